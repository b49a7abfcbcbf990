"""The parts of the pipeline: order, bounds, and errors that cross threads."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fakes
from headstart.cache import Filling, RowId
from headstart.cache.shard import read_head
from headstart.extract import pipeline
from headstart.extract._bases import Bases, Waits
from headstart.extract._inorder import Crew
from headstart.extract.pipeline import (
    Decoder,
    Decoding,
    Job,
    Outcome,
    Writer,
    distance,
    run_jobs,
    shard_rows,
)
from stores import SPEC


def jobs(folder: Path, count: int) -> list[Job]:
    found = []
    for number in range(count):
        path = fakes.draw(folder / f"{number}.png", seed=number)
        digest = hashlib.sha256(path.read_bytes()).hexdigest().encode()
        found.append(Job((digest, 0), path, path.name))
    return found


@pytest.mark.parametrize(("workers", "ahead"), [(4, 6), (2, 16), (1, 9)])
def test_decoder_keeps_the_order_and_its_distance(
    workers: int, ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results come in the order of the jobs, and never more than `ahead` are begun early."""
    begun = 0
    lock = threading.Lock()

    def decode(data: bytes, size: int, *, max_pixels: int, rule: str) -> Any:
        nonlocal begun
        with lock:
            begun += 1
            number = begun
        time.sleep(0.003 if number % 3 else 0)
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(pipeline, "decode", decode)
    wanted = jobs(tmp_path, 40)
    with Decoder(wanted, Decoding(8, 1000), workers=workers, ahead=ahead) as decoder:
        for taken, (job, pixels) in enumerate(decoder):
            assert job == wanted[taken]
            assert not isinstance(pixels, Exception)
            assert begun <= taken + 1 + ahead
    assert begun == 40


@pytest.mark.parametrize(
    ("size", "views", "batch", "expected"),
    [(150, 1, 32, 372), (299, 1, 32, 93), (150, 10, 32, 66), (75, 1, 32, 512), (150, 1, 256, 514)],
)
def test_pictures_are_decoded_ahead_within_a_bound(
    size: int, views: int, batch: int, expected: int
) -> None:
    """Two batches at least, and no more than 24 MiB of pixels or 512 pictures beyond them."""
    assert distance(size, views=views, batch_size=batch, workers=2) == expected


def test_decoder_lets_go_when_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving early waits for the pictures in hand alone."""
    begun, ended = [], threading.Event()

    def decode(data: bytes, size: int, *, max_pixels: int, rule: str) -> Any:
        begun.append(1)
        assert ended.wait(60)
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(pipeline, "decode", decode)
    with Decoder(jobs(tmp_path, 50), Decoding(8, 1000), workers=2, ahead=40) as decoder:
        monkeypatch.setattr(decoder._line, "_ended", ended)
    assert len(begun) <= 2


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
    assert filling.missing("mixed7", first[0]) == first[0][:1]
    (shard,) = filling.shards.iterdir()
    head = read_head(shard)
    assert list(zip(head.image_sha256.tolist(), head.view.tolist(), strict=True)) == wanted
    with h5py.File(shard) as file:
        assert file["features"][:, 0].tolist() == list(range(1, 10))


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


# --- several bases -----------------------------------------------------------------------------


class DeviceError(Exception):
    """What a device says that fell off the bus."""


class SlowBase(fakes.FakeBase):
    """A device that is sometimes slow, by its own seed, and may fail at one of its batches."""

    def __init__(
        self, seed: int, batch_size: int = 4, fails_at: int = 0, pace: float = 0.004
    ) -> None:
        super().__init__(
            fakes.fake_find_weights("imagenet"), size=8, layers=["mixed0"], batch_size=batch_size
        )
        self._random = np.random.default_rng(seed)
        self._fails_at, self._pace = fails_at, pace
        #: Names of the threads that computed.
        self.threads = set[str]()

    def __call__(self, pixels: Any) -> dict[str, Any]:
        self.threads.add(threading.current_thread().name.partition("_")[0])
        time.sleep(self._random.exponential(self._pace))
        if self.calls + 1 == self._fails_at:
            raise DeviceError
        return super().__call__(pixels)


def run_on(
    bases: list[SlowBase], wanted: list[Job], store: Path, told: list[tuple[int, str]] | None = None
) -> tuple[Filling, Outcome]:
    """Push the pictures through the bases into a store; with what was done, also if it fails."""
    filling, outcome = Filling(store), Outcome()
    rows = [job.row for job in wanted]
    spec = dataclasses.replace(SPEC, layer="mixed0")
    decoder = Decoder(wanted, Decoding(8, 1000), workers=3, ahead=20)
    try:
        with decoder, Writer(filling, {"mixed0": spec}, {"mixed0": rows}, {}) as writer:
            run_jobs(
                decoder,
                bases,  # type: ignore[arg-type]
                writer,
                {"mixed0": "mixed0"},
                outcome=outcome,
                on_error="ledger",
                progress=lambda count, limit: (told if told is not None else []).append(
                    (count, limit)
                ),
            )
    except DeviceError:
        assert any(base._fails_at for base in bases)
    return filling, outcome


def stored(store: Path) -> dict[bytes, Any]:
    """Return the features in the shards by the digest of their picture."""
    found: dict[bytes, Any] = {}
    for path in (store / "shards").glob("*.h5"):
        with h5py.File(path) as file:
            found |= zip(file["image_sha256"][:].tolist(), file["features"][:], strict=True)
    return found


def test_several_bases_share_the_pictures_and_mix_none_up(tmp_path: Path) -> None:
    """Each works, whatever their speeds; every picture is computed once and has its own row."""
    bases = [SlowBase(seed) for seed in range(3)]
    wanted, told = jobs(tmp_path, 101), list[tuple[int, str]]()
    filling, outcome = run_on(bases, wanted, tmp_path / "store", told)
    assert outcome.computed == {job.row for job in wanted}
    assert filling.missing("mixed0", [job.row for job in wanted]) == []
    assert sum(count for count, _ in told) == 101
    assert all(base.calls > 0 for base in bases)
    assert sum(base.calls for base in bases) == 26
    found = stored(tmp_path / "store")
    for job in wanted:
        expected = fakes.features_of(job.file, "mixed0", size=8)
        np.testing.assert_array_equal(found[job.row[0]], expected)


@pytest.mark.parametrize(
    ("per_core", "at_once", "threads"),
    [(False, 2, {"base"}), (True, 2, {"decode"}), (True, 3, {"decode"}), (True, 4, {"base"})],
)
def test_a_base_is_given_as_many_batches_as_it_takes_at_once(
    tmp_path: Path, per_core: bool, at_once: int, threads: set[str]
) -> None:
    """Side by side, by the threads that decode if each keeps to a core, and they are enough.

    Every picture still has its own row.
    """
    meeting = threading.Barrier(at_once)

    class Meets(SlowBase):
        def __call__(self, pixels: Any) -> dict[str, Any]:
            meeting.wait(timeout=60)
            return super().__call__(pixels)

    base, wanted = Meets(0, pace=0.0), jobs(tmp_path, 48)
    base.at_once, base.per_core = at_once, per_core
    _, outcome = run_on([base], wanted, tmp_path / "store")
    assert outcome.computed == {job.row for job in wanted}
    assert base.threads == threads
    found = stored(tmp_path / "store")
    for job in wanted:
        expected = fakes.features_of(job.file, "mixed0", size=8)
        np.testing.assert_array_equal(found[job.row[0]], expected)


@pytest.mark.parametrize("per_core", [False, True])
def test_a_base_that_fails_ends_the_run_and_loses_nothing_computed(
    tmp_path: Path, per_core: bool
) -> None:
    """The error is passed on; what any base has computed is in the store, and counted."""
    bases = [SlowBase(0), SlowBase(1, fails_at=5), SlowBase(2)]
    for base in bases:
        base.per_core = per_core
    wanted = jobs(tmp_path, 200)
    filling, outcome = run_on(bases, wanted, tmp_path / "store")
    calls = sum(base.calls for base in bases)
    assert 5 <= calls < 50
    assert len(outcome.computed) == 4 * calls
    assert filling.missing("mixed0", sorted(outcome.computed)) == []
    again, rest = run_on([SlowBase(3)], wanted, tmp_path / "store")
    assert again.missing("mixed0", [job.row for job in wanted]) == []
    assert len(rest.computed) == 200


def test_bases_share_the_size_of_batch_that_fits_each() -> None:
    """One short of memory does not split every batch it gets."""
    large, small = SlowBase(0, batch_size=8), SlowBase(1, batch_size=3)
    pictures = [((b"%d" % n, 0), np.zeros((8, 8, 3), np.uint8)) for n in range(10)]
    with Bases[Any]([large, small], Crew(1, "decode")) as bases:  # type: ignore[list-item]
        sizes = [len(rows) for rows, _ in bases.compute(pictures)]
    assert sizes == [3, 3, 3, 1]


def test_a_base_is_asked_nothing_before_there_is_a_batch() -> None:
    """To say how many it takes at once it may have to load a framework."""

    class Shy(SlowBase):
        at_once = property(lambda _: pytest.fail("asked"), lambda *_: None)
        per_core = property(lambda _: pytest.fail("asked"), lambda *_: None)

    crew = Crew(1, "decode")
    with Bases[Any]([Shy(0)], crew) as bases:  # type: ignore[list-item]
        assert list(bases.compute([])) == []
        assert bases.limit == ""
    crew.close()


def test_threads_of_its_own_end_also_if_the_wait_for_them_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(concurrent.futures, "wait", interrupted)
    pictures = [((b"%d" % n, 0), np.zeros((8, 8, 3), np.uint8)) for n in range(10)]
    with (
        pytest.raises(KeyboardInterrupt),
        Bases[Any]([SlowBase(0)], Crew(1, "decode")) as bases,  # type: ignore[list-item]
    ):
        next(bases.compute(pictures))
    assert not [t for t in threading.enumerate() if t.name.startswith("base")]


# --- what limits -------------------------------------------------------------------------------


def test_the_stage_waited_for_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said before a second was waited; later, what counts is the last seconds."""
    clock = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    waits = Waits()

    def wait(stage: str, seconds: float) -> None:
        nonlocal clock
        with waits.on(stage):
            clock += seconds

    wait("decoding", 0.6)
    assert waits.limit == ""
    wait("decoding", 0.6)
    wait("the base", 0.9)
    assert waits.limit == "decoding"
    wait("the base", 0.9)
    assert waits.limit == "the base"
    for _ in range(20):
        wait("the base", 9)
    for _ in range(4):
        wait("writing", 3)
    assert waits.limit == "writing"


@pytest.mark.parametrize("per_core", [False, True])
@pytest.mark.parametrize("slow", ["decoding", "the base", "writing"])
def test_progress_names_the_limiting_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str, per_core: bool
) -> None:
    """Also where the threads that decode are those that compute."""

    def slowly(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            time.sleep(0.01)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr("headstart.extract._bases._TELLING", 0.03)
    where: dict[str, tuple[Any, str]] = {
        "decoding": (pipeline, "decode"),
        "the base": (SlowBase, "expected"),
        "writing": (Writer, "put"),
    }
    monkeypatch.setattr(*where[slow], slowly(getattr(*where[slow])))
    told: list[tuple[int, str]] = []
    base = SlowBase(0, batch_size=1, pace=0)
    base.per_core = per_core
    run_on([base], jobs(tmp_path, 40), tmp_path / "store", told)
    assert base.threads == ({"decode"} if per_core else {"base"})
    assert told[-1][1] == slow
