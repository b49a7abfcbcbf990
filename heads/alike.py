"""Which pictures of a store have equal features, though the bytes of their files differ."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

from headstart.cache import SEAL_BYTES, check_seal, publish_bytes, sealed
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from headstart.cache import Progress, Store

    Int = NDArray[np.int64]

_VERSION = 1
_BYTES = 16  # of a digest: 2^64 rows before two differing ones are likely to share one
_KEY_BYTES = 32


def feature_numbers(store: Store, rows: Int, progress: Progress | None = None) -> Int:
    """Return a number for each of `rows` ``(n,)``, equal where the stored features are.

    The layer with the fewest numbers is read, once: digests are kept in ``derived/``.

    Parameters
    ----------
    store : Store
    rows : ndarray of shape (n,)
        Row numbers of the store.
    progress : callable, optional
        Called with ("features that are equal", done, total) while they are read.
    """
    layer = min(store.layers, key=lambda name: math.prod(store.shape(name)))
    key = hashlib.sha256(f"alike {_VERSION} {store.fingerprint(layer, rows=rows)}".encode())
    file = None if store.derived is None else store.derived / f"alike-{key.hexdigest()[:24]}.bin"
    digests = _read(file, key.digest(), len(rows)) if file else None
    if digests is None:
        digests = _digests(store, layer, rows, progress)
        if file:
            _write(file, key.digest() + digests.tobytes())
    numbers: Int = np.unique(digests, return_inverse=True)[1].ravel()
    return numbers


def _digests(store: Store, layer: str, rows: Int, progress: Progress | None) -> NDArray[np.void]:
    """Return a digest of each row's features ``(n,)``, read block by block."""
    found, done = np.zeros((len(rows), _BYTES), np.uint8), 0
    for positions, block in store.blocks(layer, rows=rows):
        for position, row in zip(positions, block, strict=True):
            digest = hashlib.blake2b(row.tobytes(), digest_size=_BYTES).digest()
            found[position] = np.frombuffer(digest, np.uint8)
        done += len(positions)
        if progress is not None:
            progress("features that are equal", done, len(rows))
    return found.view(f"V{_BYTES}").ravel()


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(exist_ok=True)
        publish_bytes(file, sealed(content))
    except OSError:  # a full disk or a read-only store: it is only a cache
        return


def _read(file: Path, key: bytes, count: int) -> NDArray[np.void] | None:
    """Return the digests kept under this key, or None if there are none or they are damaged."""
    try:
        check_seal(file)
        content = file.read_bytes()[:-SEAL_BYTES]
    except (OSError, HeadstartError):
        return None
    if content[:_KEY_BYTES] != key or len(content) != _KEY_BYTES + count * _BYTES:
        return None
    return np.frombuffer(content, f"V{_BYTES}", offset=_KEY_BYTES)
