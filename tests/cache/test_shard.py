"""Shards: what is read back is what was written, or it is refused."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headstart.cache import _files, _hdf5
from headstart.cache.shard import read_head, rows_sha256, write_shard
from headstart.errors import CorruptStoreError
from stores import SPEC, picture_id

IDS = np.array([picture_id("a"), picture_id("b")])
VIEW = np.array([0, 3], np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    features=hnp.arrays(
        np.float16,
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=9).map(lambda shape: (2, *shape)),
        elements=st.floats(-60000, 60000, width=16),
    )
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, features: np.ndarray) -> None:
    """Rows, ids, views and spec come back, to our reader and to h5py alone."""
    folder = tmp_path_factory.mktemp("shards")
    info = write_shard(folder, SPEC, IDS, VIEW, features, run={"weights": "é"})
    head = read_head(folder / info.file)
    assert (head.info, head.spec, head.run) == (info, SPEC, {"weights": "é"})
    np.testing.assert_array_equal(head.image_sha256, IDS)
    np.testing.assert_array_equal(head.view, VIEW)
    assert rows_sha256(folder / info.file, head) == head.rows_sha256
    with h5py.File(folder / info.file) as file:
        np.testing.assert_array_equal(file["features"][:], features)


def test_shard_is_named_by_its_content(tmp_path: Path) -> None:
    """The same rows are the same file; other rows are another file."""
    one = np.ones((2, 3), np.float16)
    first = write_shard(tmp_path, SPEC, IDS, VIEW, one, run={})
    again = write_shard(tmp_path, SPEC, IDS, VIEW, one, run={})
    other = write_shard(tmp_path, SPEC, IDS, VIEW, 2 * one, run={})
    assert first == again != other
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({first.file, other.file})


def test_h5py_alone_notices_a_damaged_row(tmp_path: Path) -> None:
    """Each chunk carries HDF5's own checksum, for readers that do not know the seal."""
    features = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float16)
    path = tmp_path / write_shard(tmp_path, SPEC, IDS, VIEW, features, run={}).file
    with h5py.File(path) as file:
        offset = file["features"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 100] ^= 1
    path.write_bytes(data)
    with h5py.File(path) as file, pytest.raises(OSError, match=r"[Cc]an't"):
        file["features"][:]


def test_another_hdf5_file_is_no_shard(tmp_path: Path) -> None:
    """Also with a valid seal: what is inside is looked at."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["features"] = 1
    path.write_bytes(_files.sealed(path.read_bytes()))
    with pytest.raises(CorruptStoreError, match="is not a shard"):
        read_head(path)


def test_the_same_content_gives_the_same_file_at_any_time() -> None:
    """No time is in it, so that work done twice leaves one file."""

    def fill(file: h5py.File) -> None:
        file.attrs["a"] = 1
        _hdf5.write_features(file, "features", np.ones((4, 3), np.float16))

    first = _hdf5.build(fill)
    time.sleep(1.1)  # HDF5 counts whole seconds
    assert _hdf5.build(fill) == first
