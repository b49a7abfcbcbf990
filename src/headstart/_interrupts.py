"""Ctrl-C and a polite kill: the first one ends the work in order, a second one at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SOON = 0.01  # seconds
_AT_ONCE = (
    b"headstart: stopped at once; what was finished is kept: run the same command again to go on\n"
)


class Interrupts:
    """A context in which the first SIGINT or SIGTERM raises KeyboardInterrupt, once.

    What follows it is the clean-up: threads are joined, files closed, what is computed is
    written. It takes seconds, and nothing breaks it half-way: a second signal ends the process
    where it stands, which is as safe as SIGKILL, since whatever is published is published whole.
    A signal that was ignored before, as in ``nohup headstart ... &``, stays ignored.

    Parameters
    ----------
    program
        Whether nothing but the end of the process follows the context: then both signals are
        ignored from there on, `leave` ends a process that was interrupted, and an interrupt
        that falls into a finalizer, where Python can but print it, is raised again. Otherwise
        the handlers of before are put back.
    """

    def __init__(self, *, program: bool) -> None:
        self._program = program
        self._before: dict[signal.Signals, Any] = {}
        self._terminal = -1
        self._due = False  # whether an interrupt that was lost is to be raised again
        #: Whether a signal has come.
        self.came = False

    def __enter__(self) -> Self:
        """Listen."""
        with contextlib.suppress(OSError):  # there may be no stderr
            self._terminal = os.dup(2)  # Keras' start turns the other one away for a while
        heard = [one for one in _SIGNALS if signal.getsignal(one) != signal.SIG_IGN]
        self._before = {one: signal.getsignal(one) for one in heard}
        if self._program:
            sys.unraisablehook = self._lost
        self._listen(self._first)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        if self._program:
            self._listen(signal.SIG_IGN)
            sys.unraisablehook = sys.__unraisablehook__
            if self._due:
                signal.setitimer(signal.ITIMER_REAL, 0)
        else:
            for one, handler in self._before.items():
                signal.signal(one, handler)
        if self._terminal >= 0:
            os.close(self._terminal)

    def leave(self, code: int) -> int:
        """Return an exit code; as an interrupted program, end with it here and now.

        What an interrupt has left half-imported or half-done is not worth an orderly end of the
        interpreter, which may print tracebacks, crash, or wait for ever.
        """
        if self._program and self.came:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)
        return code

    def _listen(self, handler: Callable[..., Any] | signal.Handlers) -> None:
        for one in self._before:
            signal.signal(one, handler)

    def _first(self, *_: object) -> NoReturn:
        self.came = True
        self._listen(self._second)
        raise KeyboardInterrupt

    def _lost(self, lost: sys.UnraisableHookArgs) -> None:
        """Raise it once more, when whatever cannot raise it is over."""
        if lost.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(lost)
            return
        self._due = True
        signal.signal(signal.SIGALRM, self._again)
        signal.setitimer(signal.ITIMER_REAL, _SOON)

    def _again(self, *_: object) -> NoReturn:
        raise KeyboardInterrupt

    def _second(self, *_: object) -> NoReturn:
        with contextlib.suppress(OSError):
            os.write(self._terminal, b"\n" * os.isatty(self._terminal) + _AT_ONCE)
        os._exit(1)
