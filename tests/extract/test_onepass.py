"""One pass over a dataset: nothing is read twice, and all that it lacks is computed."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes
from headstart.cache import Filling, Store
from headstart.cache.shard import read_head
from headstart.errors import DataError, ImageMemoryError, InterruptedRunError
from headstart.extract import Part, Settings, Speed, Summary, fill_part, fill_store, reading
from headstart.extract import plan as planning
from headstart.extract import run as run_module
from headstart.extract.dataset import list_dataset as list_now
from headstart.extract.hashing import read_file as read_now
from headstart.extract.onepass import OnePass
from headstart.extract.pipeline import Decoding

pytestmark = pytest.mark.usefixtures("fake_base")
SIZE = 75
SPEED = Speed(batch_size=4, workers=3)


def run(data: Path, store: Path, *, size: int | None = SIZE, **settings: Any) -> Summary:
    return fill_store(data, store, Settings(size=size, **settings), speed=SPEED)[1]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """Count how often each file is read."""
    counted = collections.Counter[str]()

    def read_file(file: Any) -> bytes:
        counted[Path(file).name] += 1
        return read_now(file)

    monkeypatch.setattr(reading, "read_file", read_file)
    monkeypatch.setattr("headstart.extract.pipeline.read_file", read_file)
    monkeypatch.setattr("headstart.extract.plan.hash_files", lambda *_, **__: pytest.fail("hashed"))
    return counted


def test_every_picture_is_read_once(
    pets: Path, tmp_path: Path, reads: collections.Counter[str]
) -> None:
    """In the first run, and in one that finds some new, and in one that finds none."""
    run(pets, tmp_path / "store")
    assert set(reads.values()) == {2}  # cat and dog have the same names
    reads.clear()
    fakes.draw(pets / "cat" / "new.png", seed=3)
    assert run(pets, tmp_path / "store").computed == 1
    assert reads["new.png"] == 1
    assert sum(reads.values()) == 21
    reads.clear()
    assert run(pets, tmp_path / "store").computed == 0
    assert sum(reads.values()) == 21


def test_a_layer_of_the_first_pooling_is_computed_in_the_pass_that_reads(
    pets: Path, tmp_path: Path, reads: collections.Counter[str]
) -> None:
    """Whichever pooling the store had first."""
    run(pets, tmp_path / "store")
    run(pets, tmp_path / "store", pool="avg")
    reads.clear()
    assert run(pets, tmp_path / "store", pool="none", layers=("mixed5",)).computed == 20
    assert sum(reads.values()) == 20


def test_the_second_pass_goes_on_where_the_first_has_ended(pets: Path, tmp_path: Path) -> None:
    """With one bar, and without pictures that were found not to decode."""
    run(pets, tmp_path / "store")
    for number in range(3):
        fakes.draw(pets / "cat" / f"new{number}.png", seed=number)
    (pets / "cat" / "new3.png").write_bytes(b"no picture")
    told: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage.startswith("extracting"):
            told.append((done, total))

    settings = Settings(size=SIZE, pool="avg")
    fill_store(pets, tmp_path / "store", settings, speed=SPEED, progress=progress)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert (24, 24) in told
    assert told[-1] == (27, 27)


def test_a_bad_picture_alone_needs_one_base(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found not to decode in the first pass, it is nothing to compute for the second."""
    run(pets, tmp_path / "store")
    run(pets, tmp_path / "store", pool="avg")
    (pets / "cat" / "new.png").write_bytes(b"no picture")
    pools = list[str]()
    real = OnePass._ready

    def ready(self: OnePass, pool: str, cuts: Any) -> Any:
        pools.append(pool)
        return real(self, pool, cuts)

    monkeypatch.setattr("headstart.extract.computation.Pass._ready", ready)
    assert [one.path for one in run(pets, tmp_path / "store").left_out] == ["cat/new.png"]
    assert len(pools) == 1


def test_a_second_pooling_is_computed_in_the_pass_that_reads(
    pets: Path, tmp_path: Path, reads: collections.Counter[str]
) -> None:
    """Read again is only what lacks the other pooling, too."""
    run(pets, tmp_path / "store")
    reads.clear()
    for number in range(3):
        fakes.draw(pets / "cat" / f"new{number}.png", seed=number)
    summary = run(pets, tmp_path / "store", pool="avg")
    assert (summary.rows, summary.computed) == (23, 23)
    assert {name: n for name, n in reads.items() if name.startswith("new")} == {
        f"new{number}.png": 2 for number in range(3)
    }
    assert sum(reads.values()) == 26
    store = Store.open(tmp_path / "store")
    assert store.layers == ("mixed7", "mixed7.avg")


@pytest.mark.parametrize("validation", [0.0, 0.4])
@pytest.mark.parametrize("views", [0, 2])
def test_the_pass_computes_what_a_plan_would(
    pets: Path, tmp_path: Path, validation: float, views: int
) -> None:
    """Also views of those alone that turn out to be for training, when their bytes are known."""
    settings: dict[str, Any] = {"validation": validation, "views": views}
    source = planning.read_source(pets, validation=validation, views=views)
    filling = Filling(tmp_path / "store")
    plan = planning.make_plan(source, filling, Settings(size=SIZE, **settings))
    summary = run(pets, tmp_path / "store", **settings)
    store = Store.open(tmp_path / "store")
    have = zip(store.image_sha256().tolist(), store.views().tolist(), strict=True)
    assert list(have) == planning.ids(source)
    assert summary.computed == len(plan.to_compute) == len(planning.ids(source))
    written = [
        row
        for path in (tmp_path / "store" / "shards").iterdir()
        for row in zip(*_identities(path), strict=True)
    ]
    assert sorted(written) == sorted(planning.ids(source))


def _identities(shard: Path) -> tuple[list[bytes], list[int]]:
    head = read_head(shard)
    return head.image_sha256.tolist(), head.view.tolist()


def test_the_bar_counts_what_is_to_be_computed(pets: Path, tmp_path: Path) -> None:
    """Files are read until one is to be computed; those that are not count in no total."""
    for number in range(4):
        (pets / "dog" / f"copy{number}.png").write_bytes((pets / "cat" / "0000.png").read_bytes())
    (pets / "dog" / "none.png").symlink_to("nowhere.png")
    told: list[tuple[str, int, int]] = []

    def follow() -> list[tuple[str, int, int]]:
        told.clear()
        fill_store(
            pets,
            tmp_path / "store",
            Settings(size=SIZE),
            speed=SPEED,
            progress=lambda stage, done, total: told.append((stage.split()[0], done, total)),
        )
        return told

    assert follow()[-1] == ("extracting", 20, 20)
    totals = [total for stage, _, total in told if stage == "extracting"]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] <= 24
    assert [step for step in told if step[0] == "reading"] == [("reading", 1, 24)]
    assert follow() == [("reading", n, 24) for n in range(1, 25)]
    fakes.draw(pets / "dog" / "0005.png", seed=4)
    steps = follow()
    assert steps[-1] == ("extracting", 1, 1)
    assert ("reading", 16, 24) in steps
    assert ("reading", 17, 24) not in steps


def test_copies_of_a_picture_that_found_no_memory_are_tried_again_with_it(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were not decoded, as it was to be: the next run computes it, and has them all."""
    content = (pets / "cat" / "0003.png").read_bytes()
    for name in ("cat/0004copy.png", "dog/copy.png"):
        (pets / name).write_bytes(content)
    real = Decoding.__call__

    def short(self: Decoding, data: bytes, *rest: Any) -> Any:
        if data == content:
            raise ImageMemoryError("no memory for it now")
        return real(self, data, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Decoding, "__call__", short)
        summary = run(pets, tmp_path / "store")
    assert {(one.path, one.reason) for one in summary.left_out} == {
        (path, "no memory for it now")
        for path in ("cat/0003.png", "cat/0004copy.png", "dog/copy.png")
    }
    assert (summary.rows, summary.computed) == (19, 19)
    summary = run(pets, tmp_path / "store")
    assert (summary.rows, summary.computed, summary.left_out) == (22, 1, ())


def test_copies_of_a_picture_that_does_not_decode_are_left_out_with_it(
    pets: Path, tmp_path: Path
) -> None:
    """Whichever of them was decoded; the next run tries none of them."""
    for name in ("cat/cut.png", "dog/cut.png"):
        (pets / name).write_bytes((pets / "cat" / "0000.png").read_bytes()[:200])
    for _ in range(2):
        summary = run(pets, tmp_path / "store")
        assert [one.path for one in summary.left_out] == ["cat/cut.png", "dog/cut.png"]
        assert summary.rows == 20


def test_what_is_said_to_be_kept_is_kept(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a part too; pictures that were not read yet are counted among those to compute."""
    part = Part(1, 1)
    with monkeypatch.context() as patch:
        fakes.interrupt_after(patch, 2)
        with pytest.raises(InterruptedRunError, match=r"stopped: 8 of 20 pictures are kept in"):
            fill_part(pets, tmp_path / "store", Settings(size=SIZE), part, speed=SPEED)
        said = r"8 of 12 pictures of this run are kept, beside all kept before,"
        with pytest.raises(InterruptedRunError, match=said):
            run(pets, tmp_path / "store")
    assert fill_part(pets, tmp_path / "store", Settings(), part, speed=SPEED).computed == 4
    assert run(pets, tmp_path / "store").computed == 0


def test_an_interrupt_in_the_second_pass_counts_both(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture is kept when it is in every layer."""
    run(pets, tmp_path / "store")
    for number in range(10):
        fakes.draw(pets / "cat" / f"new{number}.png", seed=number)
    real = fakes.FakeBase.__call__

    def second_time(self: fakes.FakeBase, pixels: Any) -> Any:
        if self.pool == "none" and self.calls == 1:
            raise KeyboardInterrupt
        return real(self, pixels)

    monkeypatch.setattr(fakes.FakeBase, "__call__", second_time)
    with pytest.raises(InterruptedRunError, match=r"stopped: 24 of 30 pictures are kept in"):
        run(pets, tmp_path / "store", pool="avg")


def test_no_picture_may_be_left_out_where_that_is_asked_for(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is gone when its turn comes stops the run; what was computed is kept."""
    bad = pets / "dog" / "0009.png"

    def list_dataset(*arguments: Any, **options: Any) -> Any:
        found = list_now(*arguments, **options)
        bad.unlink()
        return found

    monkeypatch.setattr(run_module, "list_dataset", list_dataset)
    settings = Settings(size=SIZE)
    with pytest.raises(DataError, match=r"^dog/0009\.png: cannot be read: .*--on-error ledger"):
        fill_store(pets, tmp_path / "store", settings, on_error="fail", speed=SPEED)
    monkeypatch.undo()
    fakes.install(monkeypatch)
    assert 0 < run(pets, tmp_path / "store").computed <= 11


def test_features_are_those_of_their_pictures_in_both_passes(pets: Path, tmp_path: Path) -> None:
    """Rows of either pooling are their own pictures'."""
    run(pets, tmp_path / "store")
    fakes.draw(pets / "cat" / "new.png", seed=5)
    run(pets, tmp_path / "store", pool="avg")
    store = Store.open(tmp_path / "store")
    rows = store.features("mixed7", pool="none", dtype="float16")
    for path, row in zip(store.paths(), rows, strict=True):
        np.testing.assert_array_equal(row, fakes.features_of(pets / path, size=SIZE))
