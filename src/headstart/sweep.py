"""Which layer to cut at: extract all of them in one pass, and judge each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart.extract import Settings, fill_store
from headstart.heads.sweep import Sweep
from headstart.heads.sweep import sweep as judge

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from headstart.cache import Progress

LAYERS = tuple(f"mixed{number}" for number in range(11))


def sweep(
    data: str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] | None = None,
    layers: Sequence[str] = LAYERS,
    size: int | None = None,
    weights: str | None = None,
    cv: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sweep:
    """Extract layers in one pass and judge each, flat and pooled.

    Parameters
    ----------
    data
        A class folder or a manifest, as for `headstart.extract`.
    store
        Where the features are kept; the data's name with ``.sweep`` in the current folder by
        default.
    layers
        In the order of the table.
    size, weights
        As for `headstart.extract`.
    cv
        Folds, where there is no validation split; 5 by default.
    seed
        Of the folds.
    progress
        Called with stage, done, total.

    Raises
    ------
    DataError, LayerError, WeightsError
        As `headstart.extract`.
    HeadError
        If a class has too few rows.
    """
    place = Path(f"{Path(data).absolute().name}.sweep") if store is None else Path(store)
    settings = Settings(layers=tuple(layers), pool="none", size=size, weights=weights)
    filled, _ = fill_store(data, place, settings, progress=progress)
    return judge(filled, layers=layers, cv=cv, seed=seed, progress=progress)
