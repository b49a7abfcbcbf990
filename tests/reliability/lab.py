"""Datasets, processes and stores to break, and the look that tells whether one is whole."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fakes
from headstart.cache import Store, verify
from headstart.cache.shard import read_head
from headstart.errors import CorruptStoreError
from headstart.extract.dataset import Picture, list_dataset
from headstart.extract.decode import decode
from headstart.extract.hashing import read_file

TESTS = Path(__file__).parents[1]
SIZE = 24
PATIENCE = 60.0


@dataclass
class Ended:
    """How a process ended, and what it said."""

    code: int
    out: str
    err: str
    seconds: float
    told: list[tuple[str, Any]]

    def values(self, what: str) -> list[Any]:
        """Return all values told under a word."""
        return [value for word, value in self.told if word == what]

    @property
    def struck(self) -> str:
        """The operation a fault struck at; empty if it did not."""
        return next(iter(self.values("struck")), "")


@dataclass
class Running:
    """A process that was asked for."""

    descriptor: int
    out: Path
    err: Path
    begun: float = field(default_factory=time.monotonic)
    pid: int = 0
    told: list[tuple[str, Any]] = field(default_factory=list)
    _rest: bytes = b""

    def until(self, what: str, patience: float = PATIENCE) -> Any:
        """Wait for a word; None if the process ended without it."""
        deadline = time.monotonic() + patience
        while True:
            for word, value in self.told:
                if word == what:
                    return value
            if any(word == "end" for word, _ in self.told):
                return None
            self._read(deadline)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        assert self.pid > 1, "there is no such process"
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, patience: float = PATIENCE) -> Ended:
        """Wait for the end; a hang is killed and fails the test."""
        code = self.until("end", patience)
        os.close(self.descriptor)
        seconds = time.monotonic() - self.begun
        return Ended(code, self.out.read_text(), self.err.read_text(), seconds, self.told)

    def _read(self, deadline: float) -> None:
        ready, _, _ = select.select([self.descriptor], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            self.kill()
            raise AssertionError(f"process {self.pid} hangs; told {self.told[-5:]}")
        data = os.read(self.descriptor, 1 << 16)
        assert data, f"process {self.pid} is gone without a word; told {self.told[-5:]}"
        self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            word, value = json.loads(line)
            self.told.append((word, value))
            if word == "pid":
                self.pid = value


class Forge:
    """Starts Headstart processes with the fakes in them."""

    def __init__(self, folder: Path, *preload: str, **environment: str) -> None:
        self._folder, self._count = folder, 0
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        imports = "".join(f"import {name}; " for name in (*preload, "runpy"))
        program = f"{imports}runpy.run_module('reliability.child', run_name='__main__')"
        paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment |= {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
            stdin=theirs.fileno(),
            env={**os.environ, **environment},
            start_new_session=True,
        )
        theirs.close()

    def start(self, *argv: str | Path, **request: Any) -> Running:
        """Start ``headstart ARGV``, or ``call=`` a function of `tasks`."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        request |= {"argv": [str(word) for word in argv], "out": str(out), "err": str(err)}
        ours, theirs = os.pipe()
        socket.send_fds(self._socket, [json.dumps(request, default=str).encode()], [theirs])
        os.close(theirs)
        running = Running(ours, out, err)
        running.until("pid")
        return running

    def run(self, *argv: str | Path, **request: Any) -> Ended:
        """Start a process and wait for its end."""
        return self.start(*argv, **request).wait()

    def extract(self, data: Path, store: Path, *more: str, **request: Any) -> Running:
        """Start ``headstart extract`` with small shards and batches."""
        return self.start(*extract_words(data, store, *more), **({"shard_rows": 4} | request))

    def close(self) -> None:
        """End the server."""
        self._socket.close()
        self._process.wait(10)


def extract_words(data: Path, store: Path, *more: str) -> list[str | Path]:
    """Return the command that fills `store` from `data`."""
    words = ["extract", data, "-o", store, "--quiet", "--batch-size", "4", "--workers", "2"]
    return [*words, *(() if "--size" in more else ("--size", str(SIZE))), *more]


@functools.cache
def _base(layer: str, weights: str) -> fakes.FakeBase:
    return fakes.FakeBase(fakes.fake_find_weights(weights), size=SIZE, layers=(layer,))


@functools.cache
def _expected(content: bytes, layer: str, weights: str) -> Any:
    pixels = decode(content, SIZE)[None]
    return _base(layer, weights).expected(layer, pixels)[0].astype(np.float16)


def usable(data: Path) -> list[Picture]:
    """Return the pictures of a dataset, in order, but for those that are text."""
    pictures = list_dataset(data).pictures
    return [one for one in pictures if read_file(one.file)[:4] == b"\x89PNG"]


def expected(data: Path, layer: str = "mixed7", weights: str = "imagenet") -> tuple[list[str], Any]:
    """Return the paths of a dataset, in order, and the features each must have."""
    pictures = usable(data)
    rows = [_expected(read_file(picture.file), layer, weights) for picture in pictures]
    return [picture.path for picture in pictures], np.stack(rows)


def check(store: Path, data: Path, *layers: str) -> Store:
    """Assert that a store holds exactly what an uninterrupted run would have given."""
    Store._checked.clear()
    opened = Store.open(store)
    for layer in layers or ("mixed7",):
        paths, features = expected(data, layer)
        assert opened.paths() == paths
        assert opened.features(layer, dtype="float16").tobytes() == features.tobytes()
    pictures = usable(data)
    assert opened.labels().tolist() == [picture.label for picture in pictures]
    digests = [hashlib.sha256(read_file(p.file)).hexdigest().encode() for p in pictures]
    assert opened.image_sha256().tolist() == digests
    return opened


def check_clean(store: Path) -> None:
    """Assert that nothing is damaged and no temporary file is left."""
    found = verify(store)
    assert found.sound, found.problems
    assert temporaries(store) == []


def temporaries(folder: Path) -> list[Path]:
    """Return the temporary files in a folder."""
    return sorted(folder.rglob(".tmp-*"))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def heads(store: Path) -> dict[str, list[str]]:
    """Return the rows of every sound shard, by the shard's name."""
    found = {}
    for path in sorted((store / "shards").glob("*.h5")):
        with contextlib.suppress(CorruptStoreError):
            rows = read_head(path).image_sha256.tolist()
            found[path.name] = [row.decode() for row in rows]
    return found


def rows_on_disk(store: Path) -> Counter[tuple[str, bytes]]:
    """Count the rows in the published shards of a store, listed or not: (layer, picture)."""
    heads = [read_head(path) for path in sorted((store / "shards").glob("*.h5"))]
    return Counter((head.spec.name, row) for head in heads for row in head.image_sha256.tolist())


class Log:
    """Which pictures the base computed, told by their pixels."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self, *data: Path) -> list[str]:
        """Return SHA-256 of the files computed since the last call, in order; forget them."""
        known = {}
        for folder in data:
            for picture in usable(folder):
                content = read_file(picture.file)
                pixels = hashlib.sha256(decode(content, SIZE).tobytes()).hexdigest()
                known[pixels] = hashlib.sha256(content).hexdigest()
        lines = self.path.read_text().split() if self.path.exists() else []
        self.path.unlink(missing_ok=True)
        return [known[line] for line in lines]
