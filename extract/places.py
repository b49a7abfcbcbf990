"""Where a picture's bytes are: a file of this machine, or anything that can fetch them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Threads that read what is not on this machine: they wait for it more than they work.
AWAY_THREADS = 16
#: Such a file is held in memory as a whole by each of these threads.
MAX_AWAY_BYTES = 128 << 20


@runtime_checkable
class Away(Protocol):
    """A picture that is no file of this machine; equal to another of the same place."""

    def fetch(self, *, again: bool) -> bytes:
        """Return its bytes.

        Parameters
        ----------
        again
            Whether they will be wanted once more, so that keeping them would save a transfer.

        Raises
        ------
        UnreadableImageError
            With the reason, fit for the ledger.
        """
        ...


Place = Path | Away


def threads(places: Sequence[Place], workers: int) -> int:
    """Return how many threads read these places: more where some are away."""
    return workers if all(isinstance(p, Path) for p in places) else max(workers, AWAY_THREADS)
