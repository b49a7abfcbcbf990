"""Verify a store and, if asked to, compute again what is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cache import Filling, tidy, verify
from headstart.errors import StoreError
from headstart.extract import Settings, fill_store

if TYPE_CHECKING:
    import os

    from headstart.cache import Verification
    from headstart.extract.plan import Progress


def verify_and_repair(
    store: str | os.PathLike[str],
    *,
    repair: bool = False,
    data: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read a whole store back; with `repair`, mend what is damaged and read it again.

    Only rows of damaged or missing shards are computed again, from the pictures; every
    other row stays as it is.

    Parameters
    ----------
    store
        A store.
    repair
        Whether to mend it.
    data
        The pictures; where they were at the last extraction by default.
    progress
        Called with stage, done, total.

    Raises
    ------
    StoreError
        If the pictures are needed and it is not known where they are.
    """
    found = verify(store, progress)
    if repair:
        tidy(Path(store))
    if found.sound or not repair:
        return found
    if Path(store).is_file():
        raise StoreError(f"{store} is a packed file, with nothing to mend it from: pack again")
    filling = Filling(Path(store), repair=True)
    data = data or filling.settings.get("data")
    if not data:
        raise StoreError(f"{store} does not know where its pictures are; give --data DATA")
    for settings in _all_layers(filling):
        fill_store(data, store, settings, repair=True, progress=progress)
    return verify(store, progress)


def _all_layers(filling: Filling) -> list[Settings]:
    """Return settings under which no layer is lost, the catalog's or, without it, the shards'."""
    if filling.before is not None or not filling.specs:
        return [Settings()]
    pools: dict[str, list[str]] = {}
    for spec in filling.specs:
        pools.setdefault(spec.pool, []).append(spec.layer)
    return [Settings(layers=tuple(layers), pool=pool) for pool, layers in pools.items()]
