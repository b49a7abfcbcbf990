"""Work in a process of its own, whose memory can be measured and is given back."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection


def in_child(function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """Yield what a generator yields in a new process.

    Raises
    ------
    HeadstartError
        That of the generator; of any other error in it the type and the message, with the
        traceback as a note; or that the process ended by itself.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, function, arguments), daemon=True)
    child.start()
    theirs.close()
    begun = False
    try:
        while True:
            kind, value = ours.recv()
            if kind == "end":
                return
            if kind == "error":
                raise value
            if kind == "value":
                yield value
            begun = True
    except EOFError as error:
        child.join()
        raise HeadstartError(_death(child.exitcode, begun=begun)) from error
    finally:
        child.kill()
        child.join()


def _child(pipe: Connection, function: Callable[..., Iterator[Any]], arguments: Any) -> None:
    """Send what a generator yields; the terminal's interrupts are the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(("begun", None))
    try:
        for value in function(*arguments):
            pipe.send(("value", value))
        pipe.send(("end", None))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        pipe.send(("error", told(error)))


def told(error: Exception) -> HeadstartError:
    """Return an error as another process can raise it, where it was as a note."""
    found = (
        error
        if isinstance(error, HeadstartError)
        else HeadstartError(f"{type(error).__name__}: {error}")
    )
    found.add_note(f"In a process of the benchmark:\n{traceback.format_exc()}")
    return found


def _death(code: int | None, *, begun: bool) -> str:
    """Return what a process that ended without a word may have died of."""
    kept = "what was done is kept, and the same command goes on"
    if code == -signal.SIGKILL:
        return (
            f"a process of the benchmark was killed (exit code {code}), probably for lack of "
            f"memory; {kept}"
        )
    if begun:
        return f"a process of the benchmark ended by itself (exit code {code}); {kept}"
    return (
        f"a process of the benchmark could not start (exit code {code}): a script that calls "
        'headstart.bench must do so under `if __name__ == "__main__":`, because each new '
        "process imports the script anew"
    )
