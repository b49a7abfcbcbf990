"""What the tests put into each worker of Ray: the stand-in base, which notes its work."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fakes
from headstart.extract import base as base_module
from headstart.extract import layers as layers_module
from headstart.extract import pipeline
from headstart.extract import weights as weights_module

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

LOG, DELAY = "HEADSTART_TEST_LOG", "HEADSTART_TEST_DELAY"
SHARD_ROWS = 8


def environment(log: Path, delay: float) -> dict[str, Any]:
    """Return a runtime environment for Ray with the stand-ins in every worker."""
    tests = str(Path(__file__).parents[1])
    variables = {"PYTHONPATH": tests, LOG: str(log), DELAY: str(delay)}
    return {"env_vars": variables, "worker_process_setup_hook": "reliability.hook.install"}


def beside(call: Callable[[], Any]) -> Future[Any]:
    """Make a call in a thread, and return what will hold its answer or its error."""
    found: Future[Any] = Future()

    def work() -> None:
        try:
            found.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the answer is asked for
            found.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return found


class NotedBase(fakes.FakeBase):
    """The stand-in base, which notes when a process begins and ends a batch.

    Where a gate is beside the log, a batch that has begun ends only while fewer have ended than
    the gate lets through.
    """

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        note("begin")
        time.sleep(float(os.environ[DELAY]))
        log = Path(os.environ[LOG])
        while _is_shut(log):
            time.sleep(0.02)
        found = super().__call__(pixels)
        note("end")
        return found


def note(what: str) -> None:
    """Append a line to the log, whole or not at all."""
    descriptor = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{os.getpid()} {what}\n".encode())
    os.close(descriptor)


def at_work(log: Path) -> set[int]:
    """Return the processes that have begun a batch and not ended it, dead ones too."""
    last: dict[int, str] = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        process, what = line.split()
        last[int(process)] = what
    return {process for process, what in last.items() if what == "begin"}


def let_through(log: Path, batches: int) -> None:
    """Let so many batches end, all workers together, and no more but one for each of them."""
    draft = _gate(log).with_suffix(".draft")
    draft.write_text(str(batches))
    draft.replace(_gate(log))


def let_all_through(log: Path) -> None:
    """Take the gate away."""
    _gate(log).unlink(missing_ok=True)


def _gate(log: Path) -> Path:
    return log.with_suffix(".gate")


def _is_shut(log: Path) -> bool:
    try:
        batches = int(_gate(log).read_text())
    except FileNotFoundError:
        return False
    return log.read_text().count(" end\n") >= batches


def install() -> None:
    """Put the stand-ins where a worker looks for the real ones."""
    base_module.load_base = NotedBase  # type: ignore[assignment]
    weights_module.find_weights = fakes.fake_find_weights
    layers_module.MIN_SIZE = 1
    pipeline._SHARD_ROWS = (SHARD_ROWS, SHARD_ROWS)
