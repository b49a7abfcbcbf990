"""Filling a store: nothing computed twice, nothing lost, another spec refused."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from headstart.cache import Filling, LeftOut, Spec, Store, _hdf5, verify
from headstart.errors import CorruptStoreError, SpecMismatchError, StoreError
from stores import SPEC, fill, make_store, picture_id, rows_of, values, with_views


def test_second_filling_misses_nothing(tmp_path: Path) -> None:
    """What was published is known; a new picture is all that is missing."""
    fill(tmp_path / "store", rows_of(["a", "b", "c"]))
    filling = Filling(tmp_path / "store")
    wanted = rows_of(["b", "new", "a"]).ids()
    assert filling.missing("mixed7", wanted) == [(picture_id("new"), 0)]
    assert filling.missing("mixed5", wanted) == wanted


def test_a_store_packed_with_lzf_gains_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stores of before are read, go on, and need no row computed again."""

    def lzf(file: h5py.File, name: str, features: np.ndarray, _: object) -> None:
        chunks = (1, *features.shape[1:])
        file.create_dataset(name, data=features, chunks=chunks, compression="lzf", fletcher32=True)

    names = list("abcdef")
    with monkeypatch.context() as before:
        before.setattr(_hdf5, "write_features", lzf)
        fill(tmp_path / "store", rows_of(names[:3]))
    fill(tmp_path / "store", rows_of(names))
    filters = set()
    for path in (tmp_path / "store" / "shards").iterdir():
        with h5py.File(path) as file:
            filters.add(file["features"].compression)
    assert filters == {"lzf", "gzip"}
    expected = np.stack([values(row) for row in rows_of(names).ids()])
    store = Store.open(tmp_path / "store")
    np.testing.assert_array_equal(store.features(dtype="float16"), expected)
    with h5py.File(tmp_path / "store" / "features.h5") as file:
        np.testing.assert_array_equal(file["mixed7"][:], expected)
    assert verify(tmp_path / "store").sound


def test_missing_names_each_row_once(tmp_path: Path) -> None:
    """Identical pictures are computed once."""
    rows = rows_of(["a", "b"]).ids()
    assert Filling(tmp_path / "store").missing("mixed7", rows + rows) == rows


def test_shards_of_a_dead_run_are_found_again(tmp_path: Path) -> None:
    """A shard is committed when it is written, whether or not its run published."""
    filling = Filling(tmp_path / "store")
    rows = rows_of(["a", "b"]).ids()
    time.sleep(0.02)
    filling.add(SPEC, rows, np.stack([values(row) for row in rows]), {"weights": "registry"})
    later = Filling(tmp_path / "store")
    assert later.missing("mixed7", rows) == []
    assert later.spec == SPEC
    assert later.settings["weights"] == "registry"
    assert 0.02 <= later.earlier_seconds < 60


def test_removed_pictures_keep_their_rows(tmp_path: Path) -> None:
    """A picture that comes back costs nothing."""
    fill(tmp_path / "store", rows_of(["a", "b"]))
    fill(tmp_path / "store", rows_of(["b"]))
    assert Store.open(tmp_path / "store").paths() == ["b"]
    assert Filling(tmp_path / "store").missing("mixed7", rows_of(["a"]).ids()) == []


def test_unchanged_publication_writes_nothing(tmp_path: Path) -> None:
    """The same rows again leave ``features.h5`` untouched."""
    fill(tmp_path / "store", rows_of(["a"]))
    before = (tmp_path / "store" / "features.h5").stat()
    fill(tmp_path / "store", rows_of(["a"]))
    after = (tmp_path / "store" / "features.h5").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    fill(tmp_path / "store", rows_of(["a"], label=1))
    assert (tmp_path / "store" / "features.h5").stat().st_ino != before.st_ino


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(Spec) if f.name not in ("layer", "pool")]
)
def test_another_spec_is_refused_naming_the_field(tmp_path: Path, field: str) -> None:
    """The store's value, the one asked for and the remedy are in the message."""
    spec = dataclasses.replace(SPEC, augmentation="some")
    fill(tmp_path / "store", rows_of(["a"]))
    fill(tmp_path / "store", with_views(["a"], 1), spec=spec)
    value = getattr(spec, field)
    changed: Any = 299 if field == "size" else "other"
    other = dataclasses.replace(spec, **{field: changed})
    with pytest.raises(SpecMismatchError, match=rf"{field}: the store has {value!r}.*another -o"):
        Filling(tmp_path / "store").require(other)


def test_views_are_gained_dropped_and_found_again(tmp_path: Path) -> None:
    """A store gains views of what it holds, and neither computes nor mixes up a row for it."""
    one, two = (dataclasses.replace(SPEC, augmentation=name) for name in ("one", "two"))
    fill(tmp_path / "store", rows_of(["a", "b"]))
    filling = Filling(tmp_path / "store")
    filling.require(one)
    rows = with_views(["a", "b"], 2)
    assert filling.missing("mixed7", rows.ids()) == [row for row in rows.ids() if row[1]]
    fill(tmp_path / "store", rows, spec=one)
    store = Store.open(tmp_path / "store")
    assert store.spec == one
    assert store.views().tolist() == [0, 1, 2, 0, 1, 2]
    expected = np.stack([values(row) for row in rows.ids()])
    np.testing.assert_array_equal(store.features(dtype="f2"), expected)
    assert verify(tmp_path / "store").sound
    fill(tmp_path / "store", rows_of(["a", "b"]))
    assert Store.open(tmp_path / "store").spec == SPEC
    for spec, lacking in ((one, 0), (two, 4)):
        filling = Filling(tmp_path / "store")
        filling.require(spec)
        assert len(filling.missing("mixed7", rows.ids())) == lacking


def test_a_layer_may_be_added(tmp_path: Path) -> None:
    """Layers are gained; the rest of the spec is fixed."""
    fill(tmp_path / "store", rows_of(["a", "b"]))
    fill(tmp_path / "store", rows_of(["a", "b"]), spec=dataclasses.replace(SPEC, layer="mixed5"))
    store = Store.open(tmp_path / "store")
    assert store.layers == ("mixed7", "mixed5")
    assert store.spec.layer == "mixed7"
    assert store.features("mixed5").shape == (2, 3, 3, 4)


def test_incomplete_layers_are_never_published(tmp_path: Path) -> None:
    """A catalog with a row that is nowhere is refused."""
    filling = Filling(tmp_path / "store")
    rows = rows_of(["a", "b"])
    filling.add(SPEC, rows.ids()[:1], values(rows.ids()[0])[None], {})
    with pytest.raises(StoreError, match="lacks 1 rows"):
        filling.publish(rows, ("mixed7",), left_out=[], unreadable={}, settings={}, seconds=0.0)
    assert not (tmp_path / "store" / "features.h5").exists()


def test_values_the_dtype_cannot_hold_are_refused(tmp_path: Path) -> None:
    """An overflow to infinity is an error with a remedy, not a row."""
    filling = Filling(tmp_path / "store")
    rows = rows_of(["a"]).ids()
    with pytest.raises(StoreError, match="--dtype float32"):
        filling.add(SPEC, rows, np.full((1, 2), np.inf, np.float16), {})
    assert list(filling.shards.iterdir()) == []


def test_ledger_is_readable_and_restored(tmp_path: Path) -> None:
    """``ledger.jsonl`` names each picture left out; a lost one is written again."""
    left_out = [LeftOut("b\n.png", "truncated"), LeftOut("a é.png", "empty file")]
    fill(tmp_path / "store", rows_of(["x"]), left_out=left_out)
    ledger = tmp_path / "store" / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text("utf-8").splitlines()]
    assert lines == [row._asdict() for row in sorted(left_out)]
    ledger.unlink()
    fill(tmp_path / "store", rows_of(["x"]), left_out=left_out)
    assert [json.loads(line) for line in ledger.read_text("utf-8").splitlines()] == lines


def test_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """``-o`` wants a folder."""
    (tmp_path / "f").write_text("x")
    with pytest.raises(StoreError, match="is a file; -o expects a folder"):
        Filling(tmp_path / "f")


def test_folder_with_other_things_is_refused_and_untouched(tmp_path: Path) -> None:
    """A folder of somebody's is not filled."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"not empty \(it has 'thesis.tex'\)"):
        Filling(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_opening_makes_nothing(tmp_path: Path) -> None:
    """A folder is made with the first shard: a run that is refused leaves none behind."""
    filling = Filling(tmp_path / "new" / "store")
    assert not (tmp_path / "new").exists()
    rows = rows_of(["a"]).ids()
    filling.add(SPEC, rows, values(rows[0])[None], {})
    assert len(list((tmp_path / "new" / "store" / "shards").iterdir())) == 1


def test_weights_are_named_as_people_know_them(tmp_path: Path) -> None:
    """Two names and two digests; of shards that no run published, too."""
    other = dataclasses.replace(SPEC, weights="e" * 64)
    for published in (True, False):
        folder = tmp_path / str(published)
        if published:
            fill(folder, rows_of(["a"]), settings={"weights": "registry"})
        else:
            rows = rows_of(["a"]).ids()
            Filling(folder).add(SPEC, rows, values(rows[0])[None], {"weights": "registry"})
        match = r"has 'registry \(sha256 f{16}\.\.\.\)', asked for 'imagenet \(sha256 e{16}"
        with pytest.raises(SpecMismatchError, match=match):
            Filling(folder).require(other, weights="imagenet")


def test_a_missing_shard_is_missed_at_once(tmp_path: Path) -> None:
    """Not when all is computed: the shard and the remedy are named before anything else."""
    fill(tmp_path / "store", rows_of(list("abcdef")), shard=2)
    store = Store.open(tmp_path / "store")
    gone = store.source(store.catalog.layers["mixed7"].shards[1])
    gone.unlink()
    with pytest.raises(CorruptStoreError, match=rf"{gone.name} is missing.*--repair"):
        Filling(tmp_path / "store")


def test_repair_forgets_damaged_shards_alone(tmp_path: Path) -> None:
    """Rows of a damaged shard are missing again; the rest is kept."""
    fill(tmp_path / "store", rows_of(list("abcdef")), shard=2)
    store = Store.open(tmp_path / "store")
    broken = store.source(store.catalog.layers["mixed7"].shards[1])
    broken.write_bytes(broken.read_bytes()[:-1])
    filling = Filling(tmp_path / "store", repair=True)
    assert filling.missing("mixed7", rows_of(list("abcdef")).ids()) == rows_of(["c", "d"]).ids()
    assert filling.damaged == [broken]


@pytest.mark.parametrize("tail", ["zeros", "another shard's"])
def test_a_shard_that_ends_otherwise_is_not_filled_beside(tmp_path: Path, tail: str) -> None:
    """A file of the right size whose end was never written, or is of another shard, is found."""
    store = make_store(tmp_path / "store", list("abcdefgh"))
    first, second = sorted((store.path / "shards").glob("*.h5"))[:2]
    end = bytes(128) if tail == "zeros" else second.read_bytes()[-128:]
    first.write_bytes(first.read_bytes()[:-128] + end)
    said = rf"{first.name} is damaged: its last bytes are not the seal.*--repair"
    with pytest.raises(CorruptStoreError, match=said):
        Filling(store.path)
