"""Packing: one file, the same rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from headstart.cache import Filling, Store, pack
from headstart.errors import CorruptStoreError, StoreError
from stores import SPEC, fill, make_store, rows_of

NAMES = [f"{number:03d}" for number in range(30)]


def test_packed_store_equals_the_folder(tmp_path: Path) -> None:
    """Rows, labels, layers and fingerprints are the same; the folder is not needed."""
    rows = rows_of(NAMES)
    rows.split[:] = ["train", "validation", "test"] * 10
    fill(tmp_path / "store", rows)
    fill(tmp_path / "store", rows, spec=dataclasses.replace(SPEC, layer="mixed5", pool="avg"))
    store = Store.open(tmp_path / "store")
    path = pack(store, tmp_path / "one.h5")
    (tmp_path / "store").rename(tmp_path / "gone")
    packed = Store.open(path)
    assert packed.layers == ("mixed7", "mixed5.avg")
    for layer in packed.layers:
        moved = Store.open(tmp_path / "gone")
        np.testing.assert_array_equal(packed.features(layer), moved.features(layer))
        assert packed.fingerprint(layer) == store.fingerprint(layer)
    assert packed.splits().tolist() == store.splits().tolist()
    assert packed.derived is None
    with h5py.File(path) as file:
        assert not file["mixed7"].is_virtual
        assert file["mixed7"].shape == (30, 3, 3, 4)


@pytest.mark.parametrize(("sparse", "compression"), [(True, "gzip"), (False, None)])
def test_vectors_are_packed_where_most_are_zeros(
    tmp_path: Path, sparse: bool, compression: str | None
) -> None:
    """As in a store; what would hardly get smaller is not slowed down."""
    rows = rows_of(NAMES)
    spec = dataclasses.replace(SPEC, layer="mixed5", pool="avg")
    filling = Filling(tmp_path / "store")
    filling.require(spec)
    features = np.ones((len(NAMES), 4), np.float16)
    features[:, 1:] = 0 if sparse else 1
    filling.add(spec, rows.ids(), features, run={})
    told: dict[str, Any] = {"left_out": [], "unreadable": {}, "settings": {}, "seconds": 1.0}
    filling.publish(rows, [spec.name], **told)
    path = pack(Store.open(tmp_path / "store"), tmp_path / "one.h5")
    with h5py.File(path) as file:
        assert file["mixed5.avg"].compression == compression
        np.testing.assert_array_equal(file["mixed5.avg"][:], features)


def test_damage_stops_the_packing(tmp_path: Path) -> None:
    """No file is written from a store that cannot be trusted, and an old one stays."""
    store = make_store(tmp_path / "store", NAMES)
    target = pack(store, tmp_path / "one.h5")
    old = target.read_bytes()
    shard = store.source(store.catalog.layers["mixed7"].shards[-1])
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptStoreError, match="damaged"):
        pack(Store.open(tmp_path / "store"), target)
    assert target.read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.h5", "store"]


def test_folders_and_the_store_itself_are_no_target(tmp_path: Path) -> None:
    """Packing never overwrites what it reads."""
    store = make_store(tmp_path / "store", NAMES)
    with pytest.raises(StoreError, match="choose the name of a new file"):
        pack(store, tmp_path)
    for name in ("features.h5", "shards/one.h5"):
        with pytest.raises(StoreError, match="choose the name of a new file"):
            pack(store, store.path / name)
    path = pack(store, tmp_path / "one.h5")
    with pytest.raises(StoreError, match="choose the name of a new file"):
        pack(Store.open(path), path)


def test_only_an_older_packed_file_is_written_over(tmp_path: Path) -> None:
    """Also a damaged one; anything else that is there stays as it is."""
    store = make_store(tmp_path / "store", NAMES)
    target = pack(store, tmp_path / "one.h5")
    whole = target.read_bytes()
    target.write_bytes(whole[:500] + b"\xff" + whole[501:])
    assert Store.open(pack(store, target)).paths() == NAMES
    for content in (b"", b"a thesis", b"\x89HDF\r\n\x1a\n" + bytes(500)):
        target.write_bytes(content)
        with pytest.raises(StoreError, match="is there and is no packed store"):
            pack(store, target)
        assert target.read_bytes() == content


def test_folder_of_the_target_must_be_there(tmp_path: Path) -> None:
    """A mistyped folder is not made."""
    store = make_store(tmp_path / "store", NAMES)
    with pytest.raises(StoreError, match=r"there is no folder .*new; make it first"):
        pack(store, tmp_path / "new" / "one.h5")
    assert not (tmp_path / "new").exists()


def test_another_store_is_no_target(tmp_path: Path) -> None:
    """The catalog and the shards of any store are sealed, too, and are no packed files."""
    store, other = make_store(tmp_path / "store", NAMES), make_store(tmp_path / "other", NAMES[:5])
    shard = other.source(other.catalog.layers["mixed7"].shards[0])
    for path in (other.path / "features.h5", shard):
        with pytest.raises(StoreError, match="is in a store"):
            pack(store, path)
    assert Store.open(tmp_path / "other").features().shape[0] == 5
