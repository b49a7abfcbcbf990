"""Shards: what is read back is what was written, or it is refused."""

from __future__ import annotations

import io
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("shape", [(2, 64, 64), (2, 64)], ids=["packed", "not packed"])
def test_h5py_alone_notices_a_damaged_row(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Each chunk carries a checksum, for readers that do not know the seal."""
    features = np.random.default_rng(0).normal(size=shape).astype(np.float16)
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


@pytest.mark.parametrize(
    ("shape", "zeros", "filters"),
    [
        ((5, 4, 4, 64), 0.0, ["deflate"]),
        ((5, 4, 4, 64), 0.9, ["deflate"]),
        ((5, 64), 0.9, ["deflate"]),
        ((5, 64), 0.1, ["fletcher32"]),
    ],
    ids=["map", "map of zeros", "vectors of zeros", "vectors"],
)
def test_what_is_packed(shape: tuple[int, ...], zeros: float, filters: list[str]) -> None:
    """Maps, and vectors that are mostly zeros; any HDF5 unpacks them, the last chunk too."""
    draw = np.random.default_rng(0)
    features = (draw.normal(size=shape) * (draw.random(shape) >= zeros)).astype(np.float16)
    data = _hdf5.build(lambda file: _hdf5.write_features(file, "features", features))
    with h5py.File(io.BytesIO(data)) as file:
        dataset = file["features"]
        properties = dataset.id.get_create_plist()
        names = [properties.get_filter(i)[3].decode() for i in range(properties.get_nfilters())]
        assert names == filters
        np.testing.assert_array_equal(dataset[:], features)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100])
def test_rows_that_share_chunks_are_all_there(rows: int) -> None:
    """Also where the last chunk is not full."""
    features = np.zeros((rows, 2, 2, 256), np.float16)
    features[:, 0, 0, 0] = np.arange(rows)
    data = _hdf5.build(lambda file: _hdf5.write_features(file, "features", features))
    with h5py.File(io.BytesIO(data)) as file:
        assert file["features"].chunks[0] == min(rows, 32)
        np.testing.assert_array_equal(file["features"][:], features)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip"},
        {"compression": "lzf"},
        {"compression": "gzip", "shuffle": True},
        {"fletcher32": True},
    ],
    ids=["deflate", "lzf", "shuffle", "fletcher32"],
)
@pytest.mark.parametrize("step", [1, 4])
@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=12).map(sorted))
def test_any_rows_are_read(options: dict[str, Any], step: int, rows: list[int]) -> None:
    """However they are packed, and however many share a chunk; also the same row twice."""
    features = np.arange(10 * 6, dtype=np.float16).reshape(10, 2, 3)
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("a", data=features, chunks=(step, 2, 3), **options)
        found = _hdf5.read_rows(dataset, np.array(rows))
    np.testing.assert_array_equal(found, features[rows])


def test_a_chunk_that_is_not_packed_is_read() -> None:
    """HDF5 leaves a chunk as it is where packing does not make it smaller."""
    features = np.ones((2, 3), np.float16)
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("a", (2, 3), "f2", chunks=(1, 3), compression="gzip")
        for row, values in enumerate(features):
            dataset.id.write_direct_chunk((row, 0), values.tobytes(), filter_mask=1)
        found = _hdf5.read_rows(dataset, np.arange(2))
    np.testing.assert_array_equal(found, features)


@pytest.mark.parametrize(
    "packed",
    [
        b"x",
        b"nonsense",
        zlib.compress(bytes(5)),
        zlib.compress(bytes(7)),
        zlib.compress(bytes(6))[:-5],
    ],
    ids=["a byte", "nonsense", "too short", "too long", "cut short"],
)
def test_a_chunk_of_another_length_is_refused(packed: bytes) -> None:
    """What does not unpack to a row is no row."""
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("a", (1, 3), "f2", chunks=(1, 3), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), packed)
        with pytest.raises((ValueError, OSError)):
            _hdf5.read_rows(dataset, np.arange(1))


def test_one_thread_at_a_time_builds_a_file() -> None:
    """As of two extractions in one process: what HDF5 closes with a file may be another's."""
    inside = most = 0

    def fill(file: h5py.File) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        file["values"] = np.arange(4)
        inside -= 1

    with ThreadPoolExecutor(4) as pool:
        built = [pool.submit(_hdf5.build, fill) for _ in range(8)]
    assert most == 1
    assert len({future.result() for future in built}) == 1
