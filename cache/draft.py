"""A shard as it grows: its rows are converted and packed as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache import _hdf5
from headstart.cache.widening import narrowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headstart.cache.fill import RowId


class Draft:
    """Rows on their way into one shard.

    What takes time is done as they come, so that a full shard is written at once and the writer
    keeps pace. Emptied, its memory is used again.

    Parameters
    ----------
    dtype
        Of storage.
    room
        Rows it takes at most.

    Attributes
    ----------
    rows
        The rows it has.
    packed
        The chunks that are complete, as the file will hold them; see `_hdf5.pack_chunks`.
    """

    def __init__(self, dtype: str, room: int) -> None:
        self._dtype, self._room = np.dtype(dtype), room
        self._features: NDArray[Any] = np.empty((0,), self._dtype)
        self.rows: list[RowId] = []
        self.packed: list[bytes] = []

    @property
    def features(self) -> NDArray[Any]:
        """Features of the rows, as stored; of this memory, which the next rows will overwrite."""
        return self._features[: len(self.rows)]

    @property
    def full(self) -> bool:
        """Whether there is no room for another row."""
        return len(self.rows) >= self._room

    def add(self, rows: Sequence[RowId], features: NDArray[Any]) -> int:
        """Take rows and their features ``(b, ...)``, as many as there is room for.

        Infinities that come of numbers too large for the dtype are refused where shards are
        written.

        Returns
        -------
        int
            How many were taken.

        Raises
        ------
        ValueError
            If there are not as many features as rows.
        """
        if len(rows) != len(features):
            raise ValueError(f"features of {len(features)} rows were given for {len(rows)} rows")
        before = len(self.rows)
        count = min(len(rows), self._room - before)
        if not len(self._features):
            self._features = np.empty((self._room, *features.shape[1:]), self._dtype)
        narrowed(features[:count], self._features[before : before + count])
        self.rows += rows[:count]
        self.packed += _hdf5.pack_chunks(self.features, len(self.packed))
        return count

    def clear(self) -> None:
        """Forget the rows."""
        self.rows, self.packed = [], []
