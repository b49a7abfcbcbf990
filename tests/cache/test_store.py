"""Reading a store: the right rows, or a typed error, and nothing between."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.cache import Rows, Store, pack
from headstart.errors import (
    CorruptStoreError,
    LayerError,
    StoreError,
    StoreNotFoundError,
)
from stores import fill, make_store, picture_id, rows_of, values

NAMES = [f"{number:02d}" for number in range(11)]


def expected(names: list[str]) -> np.ndarray:
    return np.stack([values((picture_id(name), 0)) for name in names])


@pytest.fixture(params=["folder", "packed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same rows as a folder and as one packed file."""
    opened = make_store(tmp_path / "store", NAMES)
    return opened if request.param == "folder" else Store.open(pack(opened, tmp_path / "one.h5"))


def test_rows_are_the_pictures(store: Store) -> None:
    """Each row's features, path and label are those of its own picture, in order."""
    np.testing.assert_array_equal(store.features(dtype="float16"), expected(NAMES))
    assert store.features().dtype == np.float32
    assert store.paths() == NAMES
    assert store.labels().tolist() == [0] * len(NAMES)
    assert store.image_sha256().tolist() == [picture_id(name) for name in NAMES]
    assert (len(store), store.layers, store.shape()) == (11, ("mixed7",), (3, 3, 4))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(0, 10), max_size=30), block_rows=st.integers(1, 5))
def test_any_selection_equals_numpy_indexing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], block_rows: int
) -> None:
    """Rows in any order, repeated or not, are what indexing the whole array gives."""
    folder = tmp_path_factory.getbasetemp() / "selection"
    store = Store.open(folder) if folder.exists() else make_store(folder, NAMES)
    wanted = np.array(rows, dtype=np.int64)
    whole = expected(NAMES)
    np.testing.assert_array_equal(store.features(rows=wanted, dtype="float16"), whole[wanted])
    seen = np.zeros(len(wanted), int)
    for positions, block in store.blocks(rows=wanted, block_rows=block_rows):
        assert len(block) <= block_rows
        np.testing.assert_array_equal(block, whole[wanted[positions]])
        seen[positions] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_pooling(store: Store, pool: str) -> None:
    """Pooled features are the mean or maximum over height and width, in float32."""
    whole = expected(NAMES).astype(np.float32)
    wanted = whole.mean(axis=(1, 2)) if pool == "avg" else whole.max(axis=(1, 2))
    np.testing.assert_allclose(store.features(pool=pool), wanted, rtol=1e-6)  # type: ignore[arg-type]


def test_identical_pictures_share_a_row_of_the_shard(tmp_path: Path) -> None:
    """A second path to the same bytes is a row of the store, but stored once."""
    rows = rows_of(["a", "b"])
    twice = Rows(
        rows.classes,
        ["x", "y", "z"],
        [""] * 3,
        [0, 1, 0],
        [rows.image_sha256[0], rows.image_sha256[1], rows.image_sha256[0]],
        [0] * 3,
    )
    fill(tmp_path / "store", twice)
    store = Store.open(tmp_path / "store")
    np.testing.assert_array_equal(store.features(dtype="float16"), expected(["a", "b", "a"]))
    assert sum(info.rows for info in store.catalog.layers["mixed7"].shards) == 2


def test_splits(tmp_path: Path) -> None:
    """``train`` includes rows that no split claims; other splits are exact."""
    rows = rows_of(["a", "b", "c", "d"])
    rows.split[:] = ["", "train", "validation", "test"]
    fill(tmp_path / "store", rows)
    store = Store.open(tmp_path / "store")
    assert store.paths("train") == ["a", "b"]
    assert store.paths("validation") == ["c"]
    assert store.rows("test").tolist() == [3]
    np.testing.assert_array_equal(store.features(split="train", dtype="f2"), expected(["a", "b"]))
    with pytest.raises(StoreError, match="no split is called 'dev'"):
        store.rows("dev")


def test_h5py_alone_reads_the_format(tmp_path: Path) -> None:
    """What design promises to people without our code."""
    make_store(tmp_path / "store", NAMES)
    moved = tmp_path / "elsewhere"
    (tmp_path / "store").rename(moved)
    with h5py.File(moved / "features.h5") as file:
        np.testing.assert_array_equal(file["mixed7"][:], expected(NAMES))
        assert file["mixed7"].dtype == np.float16
        assert file["label"].dtype == np.int32
        assert list(file["label"].attrs["classes"]) == ["a", "b"]
        assert list(file["path"].asstr()[:]) == NAMES
        assert file["view"].dtype == np.uint8
        assert file["image_sha256"][0] == picture_id(NAMES[0])
        assert {"format", "format_version", "spec", "created", "headstart_version"} <= set(
            file.attrs
        )


def test_h5py_alone_sees_a_hole_as_nan(tmp_path: Path) -> None:
    """A reader without our checks gets NaN, not zeros, where a shard is gone."""
    store = make_store(tmp_path / "store", NAMES)
    store.source(store.catalog.layers["mixed7"].shards[0]).unlink()
    with h5py.File(tmp_path / "store" / "features.h5") as file:
        assert np.isnan(file["mixed7"][:4]).all()
        np.testing.assert_array_equal(file["mixed7"][4:], expected(NAMES[4:]))


@pytest.mark.parametrize("locking", [None, True, False, "best-effort"])
def test_a_store_opens_beside_a_users_own_h5py(tmp_path: Path, locking: Any) -> None:
    """However the user has opened the files of a store in this process, ours open too."""
    store = make_store(tmp_path / "store", NAMES)
    shard = store.source(store.catalog.layers["mixed7"].shards[0])
    catalog = tmp_path / "store" / "features.h5"
    with h5py.File(catalog, locking=locking), h5py.File(shard, locking=locking):
        opened = Store.open(tmp_path / "store")
        np.testing.assert_array_equal(opened.features(dtype="float16"), expected(NAMES))


def test_a_users_own_h5py_opens_beside_a_store(tmp_path: Path) -> None:
    """In the middle of reading a shard, h5py alone reads it too, and its virtual rows."""
    reading = make_store(tmp_path / "store", NAMES).blocks(block_rows=1)
    next(reading)
    with h5py.File(tmp_path / "store" / "features.h5") as file:
        np.testing.assert_array_equal(file["mixed7"][:], expected(NAMES))
    assert sum(1 for _ in reading) == len(NAMES) - 1


def test_missing_shard_is_named_at_opening(tmp_path: Path) -> None:
    """A store with a hole does not open; the message names file and remedy."""
    store = make_store(tmp_path / "store", NAMES)
    gone = store.source(store.catalog.layers["mixed7"].shards[1])
    gone.unlink()
    with pytest.raises(CorruptStoreError, match=rf"{gone.name} is missing.*verify .* --repair"):
        Store.open(tmp_path / "store")


def test_damaged_shard_is_named_before_a_row_is_served(tmp_path: Path) -> None:
    """A flipped bit is noticed when the shard is first needed; other shards still serve."""
    store = make_store(tmp_path / "store", NAMES)
    broken = store.source(store.catalog.layers["mixed7"].shards[1])
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    store = Store.open(tmp_path / "store")
    with pytest.raises(CorruptStoreError, match=rf"{broken.name} is damaged.*--repair"):
        store.features()
    sound = np.array([0, 1, 2, 3])
    np.testing.assert_array_equal(store.features(rows=sound, dtype="f2"), expected(NAMES[:4]))


def test_shard_of_another_store_is_refused(tmp_path: Path) -> None:
    """A sound shard under the wrong name is not served."""
    store = make_store(tmp_path / "store", NAMES)
    first, second, *_ = store.catalog.layers["mixed7"].shards
    shutil.copy(store.source(second), store.source(first))
    with pytest.raises(CorruptStoreError, match=first.file):
        Store.open(tmp_path / "store").features()


def test_fingerprint_is_of_values_and_order(tmp_path: Path) -> None:
    """It ignores paths and labels, and tells other pictures, orders and poolings apart."""
    one = make_store(tmp_path / "one", ["a", "b", "c"])
    two = make_store(tmp_path / "two", ["a", "b", "c"], shard=1)
    other = make_store(tmp_path / "three", ["a", "b", "d"])
    assert one.fingerprint() == two.fingerprint()
    backwards = one.fingerprint(rows=np.array([2, 1, 0]))
    different = {one.fingerprint(), other.fingerprint(), backwards, one.fingerprint(pool="avg")}
    assert len(different) == 4


@pytest.mark.parametrize("wrong", ["none", "empty", "text", "hdf5", "strange"])
def test_what_is_not_a_store(tmp_path: Path, wrong: str) -> None:
    """Each has its own clear error."""
    path = tmp_path / "thing"
    if wrong in ("empty", "strange"):
        path.mkdir()
    if wrong == "strange":
        (path / "notes.txt").write_text("hello")
    if wrong == "text":
        path.write_text("hello")
    if wrong == "hdf5":
        with h5py.File(path, "w") as file:
            file["x"] = 1
    kind = {"text": StoreError, "hdf5": CorruptStoreError}.get(wrong, StoreNotFoundError)
    with pytest.raises(kind, match="thing"):
        Store.open(path)


def test_unfinished_store_says_how_to_finish(tmp_path: Path) -> None:
    """Shards without a catalog are an extraction to be gone on with."""
    (tmp_path / "store" / "shards").mkdir(parents=True)
    with pytest.raises(StoreNotFoundError, match="not finished; run the same"):
        Store.open(tmp_path / "store")


def test_wrong_requests(tmp_path: Path) -> None:
    """Unknown layers, rows and poolings are refused by name."""
    store = make_store(tmp_path / "store", ["a"])
    with pytest.raises(LayerError, match=r"'mixed3'.*has mixed7"):
        store.features("mixed3")
    for layer, words in [
        ("mixed3", "--layer mixed3 --pool none"),
        ("a.max", "--layer a --pool max"),
    ]:
        with pytest.raises(LayerError, match=words):
            store.features(layer)
    with pytest.raises(StoreError, match="rows must be from 0 to 0"):
        store.features(rows=np.array([1]))
    with pytest.raises(StoreError, match="pool must be"):
        store.features(pool="min")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="not both"):
        store.features(split="train", rows=np.array([0]))
