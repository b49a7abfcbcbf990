"""Pack a store into one self-contained HDF5 file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from headstart.cache import _files, _hdf5, catalog
from headstart.errors import StoreError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from headstart.cache.catalog import LayerIndex
    from headstart.cache.store import Store


def pack(
    store: Store,
    path: str | os.PathLike[str],
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Copy all rows of a store into one file, which opens like the store itself.

    Rows are written in the order of the store, in ranges of at most 256; nothing is
    published unless all of them could be read and checked.

    Parameters
    ----------
    store
        An open store.
    path
        The file to write; replaced if it is there.
    progress
        Called with "packing", the rows written of a layer, and all rows.

    Raises
    ------
    CorruptStoreError
        If a shard is missing or damaged.
    StoreError
        If `path` is a folder, or the store's own file.
    """
    target = Path(path)
    if target.is_dir() or (store.path.is_file() and target.samefile(store.path)):
        raise StoreError(f"{target} cannot be packed into; choose the name of a new file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _files.publishing(target) as temporary:
        with h5py.File(temporary, "w", libver=_hdf5.LIBVER, locking=False) as file:
            catalog.write_rows(file, store.catalog)
            for index in store.catalog.layers.values():
                _copy(store, index, file, progress)
        digest = _files.sha256_of(temporary)
        with temporary.open("ab") as tail:
            tail.write(_files.seal(digest))
    return target


def _copy(
    store: Store,
    index: LayerIndex,
    file: h5py.File,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Write one layer, chunk by chunk; a block of rows is read from at most a few shards."""
    name, dtype, rows = index.spec.name, np.dtype(index.spec.dtype), len(store)
    step = _hdf5.chunk_rows(index.shape, dtype)
    block = step * max(1, 256 // step)
    dataset = file.create_dataset(
        name, (rows, *index.shape), dtype, chunks=(min(step, rows), *index.shape), **_hdf5.FILTERS
    )
    dataset.attrs["spec"] = index.spec.to_json()
    for first in range(0, rows, block):
        wanted = np.arange(first, min(first + block, rows))
        dataset[first : first + len(wanted)] = store.features(name, rows=wanted, dtype=dtype)
        if progress is not None:
            progress("packing", first + len(wanted), rows)
