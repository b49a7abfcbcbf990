"""Work in a process of its own, whose memory can be measured and is given back."""

from __future__ import annotations

import multiprocessing
import signal
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
        That of the generator, or that the process ended by itself.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, function, arguments), daemon=True)
    child.start()
    theirs.close()
    try:
        while True:
            kind, value = ours.recv()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    except EOFError as error:
        child.join()
        raise HeadstartError(
            f"a process of the benchmark ended by itself (exit code {child.exitcode}), perhaps for "
            "lack of memory; what was done is kept, and the same command goes on"
        ) from error
    finally:
        child.kill()
        child.join()


def _child(pipe: Connection, function: Callable[..., Iterator[Any]], arguments: Any) -> None:
    """Send what a generator yields; the terminal's interrupts are the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for value in function(*arguments):
            pipe.send(("value", value))
        pipe.send(("end", None))
    except HeadstartError as error:
        pipe.send(("error", error))
