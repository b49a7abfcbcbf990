"""Inner products of rows, streamed: as many rows at a time as memory allows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headstart.cache import widened
from headstart.heads.parallel import single_threaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Progress = Callable[[str, int, int], None]

#: Columns multiplied at a time: slabs of float32 that stay in the caches beat one big product.
_SLAB = 4096


class Rows(Protocol):
    """A matrix that is read in blocks of rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""

    @property
    def itemsize(self) -> int:
        """Bytes of one stored number."""

    def take(self, positions: slice | NDArray[np.int64]) -> Rows:
        """Return some of the rows."""

    def blocks(self, block_rows: int = ...) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield ``(positions, block)``, each row once."""

    def load(self) -> NDArray[Any]:
        """Return all rows."""


class ArrayRows:
    """A matrix in memory, read like a store."""

    def __init__(self, X: NDArray[Any]) -> None:
        self._X = X
        self.shape: tuple[int, int] = X.shape
        self.itemsize: int = X.itemsize

    def take(self, positions: slice | NDArray[np.int64]) -> ArrayRows:
        """Return some of the rows."""
        return ArrayRows(self._X[positions])

    def blocks(self, block_rows: int = 256) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield ``(positions, block)``, each row once."""
        for first in range(0, self.shape[0], block_rows):
            block = self._X[first : first + block_rows]
            yield np.arange(first, first + len(block)), block

    def load(self) -> NDArray[Any]:
        """Return the matrix itself."""
        return self._X


def products(A: NDArray[Any], B: NDArray[Any]) -> NDArray[Any]:
    """Return ``A Bᵀ`` of stored rows ``(a, d)``, ``(b, d)``: float32, or float64 of such rows."""
    result = np.zeros((len(A), len(B)), np.result_type(A, B, np.float32))
    for first in range(0, A.shape[1], _SLAB):
        slab = slice(first, first + _SLAB)
        left = widened(A[:, slab])
        right = left if B is A else widened(B[:, slab])  # the same array: half the work (syrk)
        result += left @ right.T
    return result


def gram(rows: Rows, *, budget: int, progress: Progress | None = None) -> NDArray[Any]:
    """Return ``K = X Xᵀ`` ``(n, n)``, holding at most `budget` bytes of stored rows.

    Rows that fit are read once; else tiles of half the budget meet pair by pair.
    """
    n, d = rows.shape
    fits = budget >= n * d * rows.itemsize
    tile = n if fits else max(1, budget // (2 * d * rows.itemsize))
    starts = range(0, n, max(tile, 1))
    total, done = len(starts) * (len(starts) + 1) // 2, 0
    K: NDArray[Any] | None = None
    for i, a in enumerate(starts):
        A = rows.take(slice(a, a + tile)).load()
        for b in starts[i:]:
            B = A if a == b else rows.take(slice(b, b + tile)).load()
            part = products(A, B)
            K = np.empty((n, n), part.dtype) if K is None else K
            K[a : a + tile, b : b + tile] = part
            K[b : b + tile, a : a + tile] = part.T
            done += 1
            if progress:
                progress("inner products", done, total)
    return np.empty((0, 0), np.float32) if K is None else K


def covariance(rows: Rows, *, block_rows: int = 1024) -> NDArray[Any]:
    """Return ``Xᵀ X`` ``(d, d)``, one pass over the rows, at least float32."""
    d = rows.shape[1]
    result = np.zeros((d, d))
    for _, block in rows.blocks(block_rows):
        wide = widened(block)
        result += wide.T @ wide
    return result


def project(rows: Rows, basis: NDArray[Any], *, block_rows: int = 256) -> NDArray[Any]:
    """Return ``X B`` ``(n, r)`` for a basis ``(d, r)``, one pass over the rows."""
    result = np.empty((rows.shape[0], basis.shape[1]), basis.dtype)
    for positions, block in rows.blocks(block_rows):
        result[positions] = widened(block) @ basis
    return result


def combine(rows: Rows, A: NDArray[Any], *, block_rows: int = 256) -> NDArray[Any]:
    """Return ``Aᵀ X`` ``(k, d)`` for ``A`` of ``(n, k)``: the way back, one pass over the rows."""
    result = np.zeros((A.shape[1], rows.shape[1]))
    for positions, block in rows.blocks(block_rows):
        result += A[positions].T.astype(np.result_type(block, np.float32)) @ widened(block)
    return result


def seconds_per_row(n: int, d: int, *, new: int = 64) -> float:
    """Return what the inner products of one new row with n rows of d features take, in seconds.

    They are computed slab by slab (`products`), all alike, of which a part of one is timed, on one
    core: the coordinates of new rows cost this, whatever is then done with them.
    """
    wide = min(d, _SLAB // 4)
    left, right = np.ones((new, wide), np.float32), np.ones((n, wide), np.float32)
    seconds = []
    with single_threaded():  # threads that wait for each other took up to a hundred times as long
        for _ in range(3):
            started = time.perf_counter()
            left @ right.T
            seconds.append(time.perf_counter() - started)
    return min(seconds) * d / wide / new
