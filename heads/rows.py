"""Rows of a store as one matrix that is read in blocks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache import widened
from headstart.cache.store import pooled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from headstart.cache import Store
    from headstart.cache.store import Pool

_BLOCK = 64  # rows that are widened at a time


@dataclass(frozen=True)
class FeatureRows:
    """Some rows of one layer of a store: a matrix ``(n, d)`` that never has to be in memory.

    Attributes
    ----------
    store : Store
    layer : str or None
        The store's default layer if None.
    rows : ndarray of shape (n,)
        Row numbers of the store.
    pool : {"none", "avg", "max"}
    """

    store: Store
    layer: str | None
    rows: NDArray[np.int64]
    pool: Pool = "none"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        pooled = f"{self.layer}.{self.pool}"  # the store may hold it pooled already
        one = self.store.shape(pooled if pooled in self.store.layers else self.layer)
        return len(self.rows), one[-1] if self.pool != "none" else int(np.prod(one))

    @property
    def itemsize(self) -> int:
        """Bytes of one stored number."""
        return 4 if self.pool != "none" else np.dtype(self.store.spec.dtype).itemsize

    @property
    def pooled_when_read(self) -> bool:
        """Whether whole maps are read each time, because the store does not hold them pooled."""
        return self.pool != "none" and self.store.stored(self.layer, self.pool)[1] == self.pool

    @property
    def width_read(self) -> int:
        """Numbers that are read for one row: of a whole map where it is pooled when read."""
        if not self.pooled_when_read:
            return self.shape[1]
        return int(np.prod(self.store.shape(self.layer)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def take(self, positions: slice | NDArray[np.int64]) -> FeatureRows:
        """Return the rows at these positions."""
        return replace(self, rows=self.rows[positions])

    def blocks(self, block_rows: int = 256) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield ``(positions, block)``, each row once, as stored."""
        for positions, block in self.store.blocks(
            self.layer, rows=self.rows, block_rows=block_rows, pool=self.pool
        ):
            yield positions, block.reshape(len(block), -1)

    def load(self) -> NDArray[Any]:
        """Return all rows ``(n, d)`` in the stored dtype."""
        parts = self.blocks()
        result: NDArray[Any] | None = None
        for positions, block in parts:
            if result is None:
                result = np.empty(self.shape, block.dtype)
            result[positions] = block
        return np.empty(self.shape, np.float32) if result is None else result

    def fingerprint(self) -> str:
        """Identify the values of these rows (hex)."""
        return self.store.fingerprint(self.layer, rows=self.rows, pool=self.pool)


@dataclass(frozen=True)
class HeldRows(FeatureRows):
    """The same rows from memory.

    Attributes
    ----------
    held : callable
        Returns them ``(n, d)``.
    """

    held: Callable[[], NDArray[Any]] = field(kw_only=True, repr=False)

    @property
    def pooled_when_read(self) -> bool:
        """False: they are pooled, and held."""
        return False

    def take(self, positions: slice | NDArray[np.int64]) -> HeldRows:
        """Return the rows at these positions."""
        return replace(self, rows=self.rows[positions], held=lambda: self.held()[positions])

    def blocks(self, block_rows: int = 256) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield ``(positions, block)``, each row once."""
        X = self.held()
        for first in range(0, len(X), block_rows):
            block = X[first : first + block_rows]
            yield np.arange(first, first + len(block)), block

    def load(self) -> NDArray[Any]:
        """Return all rows ``(n, d)``."""
        return self.held()


class Maps:
    """A layer's maps of some rows, read once, however often and however pooled they are needed.

    Parameters
    ----------
    store : Store
    layer : str
    rows : ndarray of shape (n,)
        Row numbers of the store.
    """

    def __init__(self, store: Store, layer: str, rows: NDArray[np.int64]) -> None:
        self._flat = FeatureRows(store, layer, rows)
        self._shape = store.shape(layer)

    def rows(self, pool: Pool) -> FeatureRows:
        """Return the rows, flat or pooled; nothing is read before they are needed.

        What the store holds pooled already is read from there.
        """
        source = replace(self._flat, pool=pool)
        if source.store.stored(source.layer, pool)[1] != pool:
            return source
        return HeldRows(**vars(source), held=lambda: self._pooled(pool))

    @cached_property
    def _maps(self) -> NDArray[Any]:
        return self._flat.load()

    def _pooled(self, pool: Pool) -> NDArray[Any]:
        if pool == "none":
            return self._maps
        parts = [
            pooled(widened(self._maps[first : first + _BLOCK]).reshape(-1, *self._shape), pool)
            for first in range(0, len(self._maps), _BLOCK)
        ]
        X = np.concatenate(parts)
        # Sums over rows, of few numbers: float64 costs nothing, and their order matters no more.
        return X.astype(np.float64) if len(X) > X.shape[1] else X
