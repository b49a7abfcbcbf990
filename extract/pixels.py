"""The decoded pictures of a store's rows as one array on disk, for what trains from pixels."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from headstart._hardware import cores
from headstart.errors import DataError, UnreadableImageError
from headstart.extract.decode import MAX_PIXELS, decode
from headstart.extract.hashing import read_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from headstart.cache import Progress, Store
    from headstart.extract.plan import Source

_AHEAD = 64  # pictures in hand


def decode_rows(
    store: Store, source: Source, folder: Path, *, progress: Progress | None = None
) -> Path:
    """Decode the picture of every row of a store, under the store's own rule.

    Parameters
    ----------
    store
        Its rows give the order.
    source
        The dataset the store was filled from, as it was read then.
    folder
        Where the array goes; one of the same pictures that is there already is kept.
    progress
        Called with "decoding", done, total.

    Returns
    -------
    Path
        A ``.npy`` file of shape (rows, size, size, 3), uint8; open it with ``mmap_mode="r"``.

    Raises
    ------
    DataError
        If a picture is no longer the one whose features the store holds.
    """
    files = {picture.path: picture.file for picture in source.dataset.pictures}
    size, paths, digests = store.spec.size, store.paths(), store.image_sha256()
    done = folder / f"pixels-{size}-{hashlib.sha256(digests.tobytes()).hexdigest()[:16]}.npy"
    if done.exists():
        return done
    limit = int(store.catalog.settings.get("max_pixels", MAX_PIXELS))
    draft = folder / f".{done.name}.{os.getpid()}"

    def one(row: int) -> NDArray[np.uint8]:
        path = paths[row]
        try:
            data = read_file(files[path])
            if hashlib.sha256(data).hexdigest().encode() != digests[row]:
                raise DataError(f"{path} has changed since its features were extracted")
            return decode(data, size, max_pixels=limit, rule=store.spec.decoding)
        except (KeyError, OSError, UnreadableImageError) as error:
            raise DataError(f"{path} can no longer be read ({error}); run extract again") from error

    try:
        shape = (len(paths), size, size, 3)
        array = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
        with ThreadPoolExecutor(cores()) as pool:
            for first in range(0, len(paths), _AHEAD):
                rows = range(first, min(first + _AHEAD, len(paths)))
                array[first : rows.stop] = list(pool.map(one, rows))
                if progress is not None:
                    progress("decoding", rows.stop, len(paths))
        array.flush()
        del array
        draft.replace(done)
    finally:
        draft.unlink(missing_ok=True)
    return done
