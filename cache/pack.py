"""Pack a store into one self-contained HDF5 file."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from headstart.cache import _files, _hdf5, catalog
from headstart.errors import StoreError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from headstart.cache.catalog import LayerIndex
    from headstart.cache.progress import Progress
    from headstart.cache.store import Store


def pack(
    store: Store,
    path: str | os.PathLike[str],
    progress: Progress | None = None,
) -> Path:
    """Copy all rows of a store into one file, which opens like the store itself.

    Rows are written in the order of the store, in ranges of at most 256; nothing is
    published unless all of them could be read and checked.

    Parameters
    ----------
    store
        An open store.
    path
        The file to write, in a folder that is there; an older packed file is replaced, whole.
    progress
        Called with "packing", the rows written of a layer, and all rows.

    Raises
    ------
    CorruptStoreError
        If a shard is missing or damaged.
    StoreError
        If `path` is a folder, a file that is no packed store, or in a store; or if there is no
        folder to put it in.
    OSError
        If the file system refuses; `path` is as it was.
    """
    target = Path(path)
    _require_target(store, target)
    _files.remove_stale_temporaries(target.parent)
    stop = threading.Event()
    with (
        _files.publishing(target) as temporary,
        concurrent.futures.ThreadPoolExecutor(1, "pack") as thread,  # see Sink
    ):
        try:
            thread.submit(_write, store, temporary, progress, stop).result()
        finally:
            stop.set()
    return target


def _require_target(store: Store, target: Path) -> None:
    """Refuse to write over anything but an older packed file."""
    remedy = "choose the name of a new file"
    folders = target.resolve().parents
    if target.is_dir() or store.path.resolve() in (target.resolve(), *folders):
        raise StoreError(f"{target} cannot be packed into; {remedy}")
    if not target.parent.is_dir():
        raise StoreError(f"there is no folder {target.parent}; make it first, or {remedy}")
    if any((folder / catalog.SHARDS).is_dir() for folder in folders[:2]):
        raise StoreError(f"{target} is in a store, where nothing is packed; {remedy}")
    if target.exists() and not (target.is_file() and _files.is_seal(_files.seal_at(target))):
        raise StoreError(f"{target} is there and is no packed store; {remedy}, or remove it")


def _write(store: Store, path: Path, progress: Progress | None, stop: threading.Event) -> None:
    with path.open("w+b", buffering=0) as raw:
        sink = _hdf5.Sink(raw)
        with h5py.File(sink, "w", libver=_hdf5.LIBVER) as file:
            catalog.write_rows(file, store.catalog)
            for index in store.catalog.layers.values():
                for done in _copy(store, index, file):
                    sink.check()
                    if progress is not None:
                        progress("packing", done, len(store))
                    if stop.is_set():
                        return
        sink.check()
    digest = _files.sha256_of(path)
    with path.open("ab") as tail:
        tail.write(_files.seal(digest))


def _copy(store: Store, index: LayerIndex, file: h5py.File) -> Iterator[int]:
    """Write one layer, a block of whole chunks at a time; yield how many rows are done."""
    name, dtype, rows = index.spec.name, np.dtype(index.spec.dtype), len(store)
    step = _hdf5.chunk_rows(index.shape, dtype)
    block = step * max(1, 256 // step)
    sample = store.features(name, rows=np.arange(min(block, rows)), dtype=dtype)
    packed = _hdf5.packs(sample)
    dataset = _hdf5.create_features(file, name, (rows, *index.shape), dtype, packed=packed)
    dataset.attrs["spec"] = index.spec.to_json()
    for first in range(0, rows, block):
        wanted = np.arange(first, min(first + block, rows))
        _hdf5.write_rows(dataset, first, store.features(name, rows=wanted, dtype=dtype))
        yield first + len(wanted)
