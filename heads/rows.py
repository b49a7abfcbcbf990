"""Rows of a store as one matrix that is read in blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from headstart.cache import Store
    from headstart.cache.store import Pool


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
