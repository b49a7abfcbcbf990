"""The row space: an exact rotation of the features into as many numbers as there are rows."""

from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.linalg
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.cache import SEAL_BYTES, check_seal, publish_bytes, sealed, widened
from headstart.errors import HeadstartError
from headstart.heads.gram import (
    ArrayRows,
    combine,
    covariance,
    gram,
    products,
    project,
)
from headstart.heads.parallel import single_threaded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from headstart.cache import Store
    from headstart.heads.gram import Progress, Rows
    from headstart.heads.rows import FeatureRows

_CACHE_VERSION = 1
#: Rows up to which one thread factorises.
_SERIAL = 2000
#: Rows beyond which numpy's work space has more numbers than LAPACK counts in 32 bits.
_COUNTED = 32_000
#: Rows read at a time where memory is short.
_FEW = 16
_DTYPES = [np.float64, np.float32, np.float16]
#: Largest eigenvalues times float32's rounding, below which a float32 direction is rounding.
_ROUNDING = 8


def available_memory() -> int:
    """Return half of the machine's memory, in bytes: the default of every ``max_memory``."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def megabytes(count: float) -> str:
    """Return a number of bytes in words.

    Examples
    --------
    >>> megabytes(2.3e6), megabytes(56.6e9)
    ('2.3 MB', '56,600 MB')
    """
    return f"{count / 1e6:,.{0 if count >= 1e7 else 1}f} MB"


def memory_needed(shape: tuple[int, int]) -> int:
    """Return the bytes that a row space of ``(n, d)`` features takes while it is computed.

    The inner products in float64, a copy of them in which the eigenvectors come to be, a work space
    of two such matrices, and what is made of the vectors.
    """
    n, d = shape
    small = min(n, d)
    return 42 * small * small + (8 * n * d if n > d else 0)


def on_axes(X: NDArray[Any], columns: int = 48) -> bool:
    """Return whether rows ``(n, d)`` are on principal axes already, or so nearly that it will do.

    Some of the coordinates of a larger set of rows are: their columns are no more correlated
    than chance has it.
    """
    n, d = X.shape
    if d > 2 * n or n < 2:
        return False
    Z = X - X.mean(0)
    extent = np.sqrt(np.einsum("ij,ij->j", Z, Z))
    extent[extent == 0] = 1
    some = np.unique(np.linspace(0, d - 1, min(columns, d)).astype(int))
    correlation = (Z[:, some] / extent[some]).T @ Z / extent
    correlation[np.arange(len(some)), some] = 0
    return bool(np.mean(correlation**2) < 4 / n)


class RowSpace(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Rotate features into coordinates in the span of the training rows, without loss.

    Every L2-penalised linear model and every kernel machine has its solution in the span of
    the training rows, so it finds the same classifier on ``coordinates_`` ``(n, rank)`` as on
    the features ``(n, d)``, with ``d / rank`` times less work (Hastie & Tibshirani, 2004). The
    coordinates satisfy ``Z Zᵀ = X Xᵀ / scale²``, are ordered by falling eigenvalue, and are
    not centred. Repeated rows cost nothing: directions without extent are left out.

    Parameters
    ----------
    normalize : bool, default=True
        Divide by one number, so that the training rows have a mean squared norm of 1 and one
        grid of penalties suits every layer.
    max_memory : int, optional
        Bytes of stored rows to hold at a time; half of the machine's memory by default.

    Attributes
    ----------
    coordinates_ : ndarray of shape (n, rank), float64
        The training rows.
    eigenvalues_ : ndarray of shape (rank,)
        Squared extents along the coordinates, falling.
    scale_ : float
        Root of the mean squared norm of the training rows (1 if not `normalize`).
    rank_ : int
    seconds_ : float
        What the inner products and the factorisation took; 0 when they came from ``derived/``.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(5, 1000))
    >>> space = RowSpace(normalize=False).fit(X)
    >>> Z = space.transform(X)
    >>> Z.shape, bool(np.allclose(Z @ Z.T, X @ X.T))
    ((5, 5), True)
    """

    coordinates_: NDArray[np.float64]
    eigenvalues_: NDArray[np.float64]
    scale_: float
    _source: Rows

    def __init__(self, *, normalize: bool = True, max_memory: int | None = None) -> None:
        self.normalize = normalize
        self.max_memory = max_memory

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Find the coordinates of ``X`` ``(n, d)``; `y` is ignored.

        float32 and float16 rows are multiplied in float32, float64 rows in float64; the
        factorisation is always in float64.
        """
        del y
        return self._fit(ArrayRows(validate_data(self, X, dtype=_DTYPES)), None)

    def fit_transform(self, X: ArrayLike, y: object = None) -> NDArray[np.float64]:
        """Return the coordinates of the training rows ``(n, rank)``."""
        return self.fit(X, y).coordinates_

    def fit_rows(self, rows: FeatureRows, *, progress: Progress | None = None) -> Self:
        """Find the coordinates of rows of a store, or read them from its ``derived/`` folder.

        Parameters
        ----------
        rows
            Which features.
        progress
            Called with (description, done, total) while inner products are computed.
        """
        self.n_features_in_ = rows.shape[1]
        key = f"rowspace {_CACHE_VERSION} {rows.fingerprint()} {self.normalize}"
        file = _cache_file(rows.store, key)
        kept = _read(file, key) if file else None
        if kept is not None:
            self.coordinates_, self.eigenvalues_, self.scale_ = kept
            self.rank_, self._source, self.seconds_ = len(self.eigenvalues_), rows, 0.0
            return self
        self._fit(rows, progress)
        if file:
            _write(file, key, self.coordinates_, self.eigenvalues_, self.scale_)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the coordinates ``(m, rank)`` of new rows ``(m, d)``.

        What a new row has outside the span of the training rows is dropped: no classifier
        found in the row space could use it.
        """
        check_is_fitted(self)
        return self._project(ArrayRows(validate_data(self, X, reset=False, dtype=_DTYPES)))

    def transform_rows(self, rows: FeatureRows) -> NDArray[np.float64]:
        """Return the coordinates ``(m, rank)`` of rows of a store, reading them block by block."""
        check_is_fitted(self)
        return self._project(rows)

    def back(self, coef: ArrayLike) -> NDArray[np.float64]:
        """Return the weights ``(k, d)`` on features of weights ``(k, rank)`` on coordinates.

        ``w = Xᵀ a``: a linear function gives the same answers on features with these weights
        as it gives on coordinates with `coef`.
        """
        check_is_fitted(self)
        weights = np.atleast_2d(np.asarray(coef, dtype=np.float64))
        return combine(self._source, self._dual() @ weights.T) / self.scale_

    def _fit(self, rows: Rows, progress: Progress | None) -> Self:
        started = time.perf_counter()
        n, d = rows.shape
        if n <= d:
            K = gram(rows, budget=self.max_memory or available_memory(), progress=progress)
        else:
            K = covariance(rows)
        noise = max(np.finfo(K.dtype).eps, n * np.finfo(np.float64).eps)
        trace = float(np.trace(K, dtype=np.float64))
        self.scale_ = float(np.sqrt(trace / n)) if self.normalize and trace > 0 else 1.0
        scaled = np.divide(K, self.scale_**2, dtype=np.float64)
        del K
        values, vectors = _eigh(scaled)
        real = values > max(values[-1], 0) * noise
        real[-1] = True
        self.eigenvalues_ = np.maximum(values[real][::-1], 0)
        self.rank_, self._source = len(self.eigenvalues_), rows
        V = np.ascontiguousarray(vectors[:, real][:, ::-1])
        self.coordinates_ = (
            V * np.sqrt(self.eigenvalues_) if n <= d else project(rows, V / self.scale_)
        )
        self.seconds_ = time.perf_counter() - started
        return self

    def _dual(self) -> NDArray[np.float64]:
        """Return ``A`` ``(n, rank)`` with which ``Xᵀ A`` are the axes of the coordinates."""
        inverse = np.zeros(self.rank_)
        np.divide(1, self.eigenvalues_, out=inverse, where=self.eigenvalues_ > 0)
        return self.coordinates_ * (inverse / self.scale_)

    def _project(self, rows: Rows) -> NDArray[np.float64]:
        dual = self._dual() / self.scale_
        if self._source.shape[0] > rows.shape[1]:
            return project(rows, combine(self._source, dual).T)
        result = np.zeros((rows.shape[0], self.rank_))
        budget = self.max_memory or available_memory()
        tile = max(1, budget // (rows.shape[1] * rows.itemsize))
        for first in range(0, len(result), tile):
            new = rows.take(slice(first, first + tile)).load()
            for positions, block in self._source.blocks():
                result[first : first + tile] += products(new, block) @ dual[positions]
        return result


def compact_memory(n: int) -> int:
    """Return the bytes that a compact space of n rows takes: inner products and eigenvectors."""
    return 8 * n * n


class CompactSpace:
    """Centred row-space coordinates in float32, found in a fifth of the memory of `RowSpace`.

    For rows that memory does not hold. Their mean would be the largest direction by far, and its
    rounding would hide the small ones; with an intercept that is not penalised no linear model
    needs it. Directions are left out whose eigenvalue float32 cannot tell from zero: below a
    millionth of the largest one, or a ten-millionth of a row's mean squared norm.

    Attributes
    ----------
    coordinates : ndarray of shape (n, rank), float32
        In the scale of a mean squared norm of 1 before centring.
    """

    def __init__(
        self, rows: Rows, memory: int, tell: Callable[[float], None] | None = None
    ) -> None:
        """Read the rows as often as `memory` asks for; `tell` is called with the share read."""
        self._rows, self._memory = rows, memory
        K, square = _centred_products(rows, memory // 6, tell)
        self._scale = float(np.sqrt(square)) or 1.0
        K /= np.float32(self._scale**2)
        # K is symmetric: its transpose lies as Fortran has it, and the vectors take its place.
        values, vectors = scipy.linalg.eigh(K.T, driver="evr", overwrite_a=True, check_finite=False)
        del K
        least = np.finfo(np.float32).eps * max(_ROUNDING * values[-1], 1)
        rank = max(1, int(np.sum(values > least)))
        self._values = np.maximum(values[: -rank - 1 : -1], least)
        self.coordinates = vectors[:, : -rank - 1 : -1]
        self.coordinates *= np.sqrt(self._values)

    def back(
        self, coef: NDArray[np.float64], intercept: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights ``(k, d)`` and intercepts ``(k,)`` on features, of those on coordinates.

        Coordinates are centred, so that what their weights give at the mean row is taken off.
        """
        n, d = self._rows.shape
        dual = np.ones((n, len(coef) + 1), np.float32)  # of ones: the sum of all rows
        dual[:, :-1] = self.coordinates @ (coef / self._values).T.astype(np.float32)
        dual[:, :-1] -= dual[:, :-1].mean(0, dtype=np.float64)
        sums = combine(self._rows, dual, block_rows=max(1, self._memory // (32 * d)))
        weights = sums[:-1] / self._scale**2
        return weights, intercept - weights @ (sums[-1] / n)


def _centred_products(
    rows: Rows, budget: int, tell: Callable[[float], None] | None
) -> tuple[NDArray[np.float32], float]:
    """Return ``(X - mean) (X - mean)ᵀ`` ``(n, n)`` and the mean squared norm of ``X``.

    A tile of widened rows of `budget` bytes is held at a time. The mean of the first one is taken
    off all rows before they are multiplied, and what is left of their own mean off the products.
    """
    n, d = rows.shape
    K, tile = np.empty((n, n), np.float32), max(1, min(n, budget // (4 * d)))
    held, shift, squares = np.empty((tile, d), np.float32), np.zeros(d, np.float32), 0.0
    for first in range(0, n, tile):
        if tell:
            tell(1 - (1 - first / n) ** 2)  # of the triangle
        mine, after = slice(first, first + tile), first + tile
        for positions, block in rows.take(mine).blocks(_FEW):
            held[positions] = widened(block)
        A = held[: min(tile, n - first)]
        squares += float(np.einsum("ij,ij->", A, A, dtype=np.float64))
        if first == 0:
            shift = A.mean(0)
        A -= shift
        K[mine, mine] = A @ A.T
        for positions, block in rows.take(slice(after, n)).blocks(_FEW) if after < n else ():
            part = _shifted(block, shift) @ A.T
            K[after + positions, mine], K[mine, after + positions] = part, part.T
    left = K.mean(0, dtype=np.float64)
    left = (left - left.mean() / 2).astype(np.float32)
    K -= left
    K -= left[:, None]
    return K, squares / n


def _shifted(block: NDArray[Any], shift: NDArray[np.float32]) -> NDArray[Any]:
    """Return widened rows less `shift`, in place where widening has made an array of its own."""
    wide = widened(block)
    result: NDArray[Any] = np.subtract(wide, shift, out=None if wide is block else wide)
    return result


def _eigh(K: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues, rising, and eigenvectors.

    numpy's lets other threads of Python run meanwhile, as scipy's does not: two fits of ridge
    beside each other took 1.7 times as long as one. Two threads gain nothing on small matrices, and
    on a busy machine they wait for each other. A pivoted Cholesky would leave coordinates without
    any order.
    """
    if len(K) > _COUNTED:
        values, vectors = scipy.linalg.eigh(K, driver="evr", check_finite=False)
        return values, vectors
    with nullcontext() if len(K) > _SERIAL else single_threaded():
        values, vectors = np.linalg.eigh(K)
    return values, vectors


def _cache_file(store: Store, key: str) -> Path | None:
    folder = store.derived
    name = f"rowspace-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    return None if folder is None else folder / name


def _write(file: Path, key: str, Z: NDArray[Any], values: NDArray[Any], scale: float) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, key=np.array(key), coordinates=Z, eigenvalues=values, scale=np.array(scale))
    try:
        file.parent.mkdir(exist_ok=True)
        publish_bytes(file, sealed(buffer.getvalue()))
    except OSError:  # a full disk or a read-only store: it is only a cache
        return


def _read(file: Path, key: str) -> tuple[NDArray[Any], NDArray[Any], float] | None:
    """Return what was kept under this key, or None if there is nothing or it is damaged."""
    try:
        check_seal(file)
        with np.load(io.BytesIO(file.read_bytes()[:-SEAL_BYTES]), allow_pickle=False) as kept:
            if kept["key"].item() != key:
                return None
            return kept["coordinates"], kept["eigenvalues"], float(kept["scale"])
    except (OSError, HeadstartError, ValueError, KeyError, zipfile.BadZipFile):
        return None
