"""A server that forks a fresh Headstart process for every request, in milliseconds.

Run as a program. A request comes over a socket with the writing end of a pipe; the new
process tells through that pipe its number, what it does, and how it ended. It runs and ends
as any Python process does: its own signal handlers, atexit functions, HDF5's included.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import resource
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import fakes
from headstart import cli, repair  # noqa: F401 - loaded before the fork
from headstart._interrupts import Interrupts
from headstart.cache import Filling
from headstart.extract import base as base_module
from headstart.extract import layers as layers_module
from headstart.extract import pipeline, run
from headstart.extract import weights as weights_module
from reliability import faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


class Teller:
    """Writes lines of JSON to whoever asked for this process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __call__(self, what: str, value: Any = None) -> None:
        """Tell one thing, if anybody listens still."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.descriptor, json.dumps([what, value]).encode() + b"\n")


class LoggedBase(fakes.FakeBase):
    """The fake base, which notes what it computes and takes its time."""

    seconds = 0.0
    log = ""
    #: Whether the threads that decode compute, too.
    shared = False
    refuses: tuple[int, str] | None = None

    def __init__(self, weights: weights_module.WeightsFile, **options: Any) -> None:
        super().__init__(weights, **options)
        self.per_core = self.shared
        self.tell: Any = tell

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Note the pictures, then compute."""
        self.tell("base", self.calls)
        features = super().__call__(pixels)
        time.sleep(self.seconds)
        if self.log:
            lines = "".join(f"{hashlib.sha256(one.tobytes()).hexdigest()}\n" for one in pixels)
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, lines.encode())
            os.close(descriptor)
        return features


class BigBase:
    """A base whose maps have mixed7's size and share of zeros, made in no time.

    It takes as long to load as a real one does, in which the line of decoded pictures fills.
    """

    engine, precision, digest = "keras", "float32", hashlib.sha256(b"big").hexdigest()
    at_once = 1
    per_core = False

    def __init__(self, _: object, *, layers: Sequence[str], batch_size: int, **__: Any) -> None:
        self.layers, self.batch_size = tuple(layers), batch_size
        self.shapes = dict.fromkeys(layers, (7, 7, 768))
        draw = np.random.default_rng(0)
        pattern = np.maximum(draw.normal(-1.1, 1.0, (batch_size, 7, 7, 768)), 0)
        self._pattern = pattern.astype(np.float32)
        time.sleep(3)

    def __call__(self, pixels: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Return the pattern, scaled by the pictures' brightness."""
        scale = 1 + pixels.mean(axis=(1, 2, 3), dtype=np.float32)[:, None, None, None] / 255
        return dict.fromkeys(self.layers, self._pattern[: len(pixels)] * scale)


class ToldFilling(Filling):
    """A store's filling, which tells when it begins."""

    def __init__(self, *args: Any, **options: Any) -> None:
        tell("filling")
        super().__init__(*args, **options)


class ToldInterrupts(Interrupts):
    """What hears signals, and tells from when on."""

    def __enter__(self) -> Self:
        """Listen, then tell."""
        super().__enter__()
        tell("listening")
        return self


def tell(_: str, __: Any = None) -> None:
    """Say nothing; replaced in a process that someone asked for."""


def serve() -> tuple[dict[str, Any], Teller]:
    """Answer requests for ever; return in each new process."""
    channel = socket.socket(fileno=0)
    alive: dict[int, tuple[int, Teller]] = {}
    gc.collect()
    gc.freeze()  # else each process collects, and so copies, all that is loaded when it ends
    while True:
        watched: list[Any] = [channel, *alive]
        ready, _, _ = select.select(watched, [], [])
        for process in ready:
            if isinstance(process, int):
                pid, teller = alive.pop(process)
                _, status = os.waitpid(pid, 0)
                os.close(process)
                teller("end", os.waitstatus_to_exitcode(status))
                os.close(teller.descriptor)
        if channel not in ready:
            continue
        data, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 1)
        if not data:
            os._exit(0)
        teller = Teller(descriptors[0])
        pid = os.fork()
        if pid == 0:
            for process, (_, other) in alive.items():
                os.close(process)
                os.close(other.descriptor)
            return json.loads(data), teller
        alive[os.pidfd_open(pid)] = pid, teller
        teller("pid", pid)


def begin(request: dict[str, Any], teller: Teller) -> int:
    """Become the process asked for; return its exit code."""
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        descriptor = os.open(name, flags)
        os.dup2(descriptor, number)
        os.close(descriptor)
    globals()["tell"] = teller
    base_module.load_base = BigBase if request.get("big") else LoggedBase  # type: ignore[assignment]
    weights_module.find_weights = fakes.fake_find_weights
    layers_module.MIN_SIZE = 1
    vars(run)["Filling"] = ToldFilling
    vars(cli)["Interrupts"] = ToldInterrupts
    LoggedBase.seconds, LoggedBase.log = request.get("delay", 0.0), request.get("log", "")
    LoggedBase.shared = request.get("shared", False)
    if "shard_rows" in request:
        pipeline._SHARD_ROWS = (request["shard_rows"],) * 2
    if request.get("no_locks"):
        import fcntl

        fcntl.flock = fcntl.lockf = lambda *_: None
    fault = None
    if "fault" in request:
        fault = faults.Fault(struck=lambda name: teller("struck", name), **request["fault"])
        fault.install()
    if "file_size_limit" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size_limit"],) * 2)
    if "start" in request:
        time.sleep(max(0.0, request["start"] - time.time()))
    teller("begin", time.time())
    if "call" in request:
        from reliability import tasks

        code = int(getattr(tasks, request["call"])(teller, **request["arguments"]))
    else:
        sys.argv = ["headstart", *request["argv"]]
        code = cli.main()
    teller("done", time.time())
    teller("operations", fault.count if fault else 0)
    teller("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return code


if __name__ == "__main__":
    sys.exit(begin(*serve()))
