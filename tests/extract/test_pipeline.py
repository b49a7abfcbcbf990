"""The parts of the pipeline: order, bounds, and errors that cross threads."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes
from headstart.cache import Filling, RowId
from headstart.extract import pipeline
from headstart.extract.pipeline import Decoder, Job, Writer, shard_rows
from stores import SPEC


def jobs(folder: Path, count: int) -> list[Job]:
    found = []
    for number in range(count):
        path = fakes.draw(folder / f"{number}.png", seed=number)
        digest = hashlib.sha256(path.read_bytes()).hexdigest().encode()
        found.append(Job((digest, 0), path, path.name))
    return found


def test_decoder_keeps_the_order_and_its_distance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results come in the order of the jobs, and never more than `ahead` are begun early."""
    begun = 0
    lock = threading.Lock()

    def decode(data: bytes, size: int, *, max_pixels: int) -> Any:
        nonlocal begun
        with lock:
            begun += 1
            number = begun
        time.sleep(0.003 if number % 3 else 0)
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(pipeline, "decode", decode)
    wanted = jobs(tmp_path, 40)
    with Decoder(wanted, size=8, max_pixels=1000, workers=4, ahead=6) as decoder:
        for taken, (job, pixels) in enumerate(decoder):
            assert job == wanted[taken]
            assert not isinstance(pixels, Exception)
            assert begun <= taken + 1 + 6
    assert begun == 40


def test_decoder_lets_go_when_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving early waits for the pictures in hand alone."""
    begun = []

    def decode(data: bytes, size: int, *, max_pixels: int) -> Any:
        begun.append(1)
        time.sleep(0.01)
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(pipeline, "decode", decode)
    with Decoder(jobs(tmp_path, 50), size=8, max_pixels=1000, workers=2, ahead=40):
        pass
    assert len(begun) < 10


def batch(first: int, count: int) -> tuple[list[RowId], dict[str, np.ndarray]]:
    rows = [
        (hashlib.sha256(b"%d" % n).hexdigest().encode(), 0) for n in range(first, first + count)
    ]
    values = np.arange(first, first + count, dtype=np.float32)
    return rows, {"mixed7": np.repeat(values[:, None], 4, axis=1)}


def test_writer_keeps_only_missing_rows(tmp_path: Path) -> None:
    """A row the layer has already is not written twice; every other is, in order."""
    filling = Filling(tmp_path / "store")
    first, second = batch(0, 5), batch(5, 5)
    wanted = [*first[0][1:], *second[0]]
    with Writer(filling, {"mixed7": SPEC}, {"mixed7": wanted}, {}) as writer:
        writer.put(*first)
        writer.put(*second)
    assert filling.missing("mixed7", wanted) == []
    assert filling.missing("mixed7", first[0]) == first[0][:1]


def test_writer_writes_what_it_holds_when_the_run_fails(tmp_path: Path) -> None:
    """What was computed before an error is kept."""
    filling = Filling(tmp_path / "store")
    rows, features = batch(0, 5)

    def fail() -> None:
        with Writer(filling, {"mixed7": SPEC}, {"mixed7": rows}, {}) as writer:
            writer.put(rows, features)
            raise RuntimeError("elsewhere")

    with pytest.raises(RuntimeError, match="elsewhere"):
        fail()
    assert filling.missing("mixed7", rows) == []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_writers_error_is_raised_by_the_next_put(tmp_path: Path) -> None:
    """The thread's error is not lost, and `put` never waits for a dead thread."""
    filling = Filling(tmp_path / "store")
    rows, _ = batch(0, 5)
    broken = {"mixed7": np.full((5, 200_000), np.inf, np.float32)}

    def fail() -> None:
        with Writer(filling, {"mixed7": SPEC}, {"mixed7": rows * 20}, {}) as writer:
            for _ in range(100):
                writer.put(rows, broken)

    with pytest.raises(Exception, match="--dtype float32"):
        fail()


def test_shards_are_of_bounded_size() -> None:
    """About 16 MB, between 64 and 1024 rows."""
    assert shard_rows(75_264) == 222
    assert shard_rows(1536) == 1024
    assert shard_rows(10**9) == 64
