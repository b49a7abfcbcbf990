"""HDF5 in memory for writing, and with suspicion for reading."""

from __future__ import annotations

import contextlib
import io
import math
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from headstart.errors import CorruptStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

#: The filters any HDF5 library reads: lzf comes with h5py, the others with HDF5.
FILTERS = {"compression": "lzf", "fletcher32": True}
_ALLOWED_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, lzf
_CHUNK_BYTES = 64 << 10
_MAX_CHUNK_BYTES = 1 << 30
#: Old enough for any HDF5 1.10, new enough for many classes in one attribute.
LIBVER = ("v108", "v110")


def build(fill: Callable[[h5py.File], None]) -> bytes:
    """Return the bytes of an HDF5 file made by `fill`, without touching a disk.

    The file is written with one plain write afterwards, so that a full disk is an
    OSError of ours and never a failure inside the HDF5 library.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LIBVER) as file:
        fill(file)
    return buffer.getvalue()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open a file whose seal was checked; what HDF5 says against it becomes our error."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, CorruptStoreError):
            raise
        raise CorruptStoreError(f"{path} cannot be read as HDF5: {error}") from error


def chunk_rows(row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return how many rows share a chunk: one map, or many pooled vectors (64 KiB)."""
    return max(1, _CHUNK_BYTES // max(1, math.prod(row_shape) * dtype.itemsize))


def write_features(file: h5py.File, name: str, features: NDArray[Any]) -> None:
    """Add a compressed dataset of features, ``(rows, ...)``, chunked by rows."""
    shape = features.shape
    rows = min(len(features), chunk_rows(shape[1:], features.dtype))
    file.create_dataset(name, data=features, chunks=(rows, *shape[1:]), **FILTERS)


def write_strings(file: h5py.Group, name: str, values: list[str]) -> None:
    """Add an ``(N,)`` dataset of UTF-8 strings of fixed length: no heap, no objects."""
    encoded = [value.encode() for value in values]
    length = max(map(len, encoded), default=0) or 1
    dtype = h5py.string_dtype("utf-8", length)
    file.create_dataset(name, data=np.array(encoded, dtype=dtype))


def strings(file: h5py.File, name: str) -> list[str]:
    """Read what `write_strings` wrote."""
    try:
        return [value.decode() for value in plain(file, name, "S")[:].tolist()]
    except UnicodeDecodeError as error:
        raise CorruptStoreError(f"{file.filename}: /{name} is not UTF-8 text: {error}") from error


def member(file: h5py.File, name: str) -> h5py.Dataset:
    """Return the dataset `name`, reached by hard links alone and stored in this very file.

    Raises
    ------
    CorruptStoreError
        If it is missing, or is reached through a soft or external link, keeps its bytes
        in another file, or holds objects.
    """
    where = f"{file.filename}: /{name}"
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:depth]), getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise CorruptStoreError(f"{where} is missing or a link; expected a dataset")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise CorruptStoreError(f"{where} is a {type(dataset).__name__}; expected a dataset")
    if dataset.id.get_create_plist().get_external_count():
        raise CorruptStoreError(f"{where} keeps its bytes in another file; that is refused")
    if dataset.dtype.hasobject:
        raise CorruptStoreError(f"{where} holds objects ({dataset.dtype}); that is refused")
    return dataset


def plain(file: h5py.File, name: str, kind: str, length: int | None = None) -> h5py.Dataset:
    """Return a one-dimensional dataset of dtype kind `kind` whose bytes are all in the file."""
    dataset = member(file, name)
    where = f"{file.filename}: /{name}"
    if dataset.is_virtual or dataset.ndim != 1 or dataset.dtype.kind != kind:
        raise CorruptStoreError(
            f"{where} has shape {dataset.shape}, dtype {dataset.dtype}; expected (N,) of {kind!r}"
        )
    if length is not None and len(dataset) != length:
        raise CorruptStoreError(f"{where} has {len(dataset)} rows; expected {length}")
    if dataset.id.get_storage_size() != dataset.size * dataset.dtype.itemsize:
        raise CorruptStoreError(f"{where} declares {dataset.size} values the file does not hold")
    return dataset


def features(file: h5py.File, name: str, dtype: str, rows: int) -> h5py.Dataset:
    """Return a feature dataset, checked: dtype, rows, filters, every chunk present."""
    dataset = member(file, name)
    where = f"{file.filename}: /{name}"
    if dataset.dtype != np.dtype(dtype) or dataset.ndim < 2 or len(dataset) != rows:
        raise CorruptStoreError(
            f"{where} has shape {dataset.shape}, dtype {dataset.dtype}; "
            f"expected {rows} rows of {dtype}"
        )
    if dataset.is_virtual or dataset.chunks is None or dataset.chunks[1:] != dataset.shape[1:]:
        raise CorruptStoreError(f"{where} is not chunked by rows")
    if math.prod(dataset.chunks) * dataset.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise CorruptStoreError(f"{where} has chunks of {dataset.chunks}; that is refused")
    properties = dataset.id.get_create_plist()
    used = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if not used <= _ALLOWED_FILTERS:
        raise CorruptStoreError(f"{where} needs filters {sorted(used - _ALLOWED_FILTERS)}")
    if dataset.id.get_num_chunks() != math.ceil(rows / dataset.chunks[0]):
        raise CorruptStoreError(f"{where} declares {rows} rows the file does not hold")
    return dataset
