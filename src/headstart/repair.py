"""Verify a store and, if asked to, compute again what is damaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cache import tidy, verify
from headstart.errors import StoreError
from headstart.extract import mend_store

if TYPE_CHECKING:
    import os

    from headstart.cache import Progress, Verification


def verify_and_repair(
    store: str | os.PathLike[str],
    *,
    repair: bool = False,
    data: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read a whole store back; with `repair`, mend what is damaged and read it again.

    Only features that damaged or missing shards held are computed again, from the pictures;
    rows stay as they were published. What was computed again is in the answer's `repaired`.

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
        If pictures are needed that are not there, or nobody knows where they are; or for a
        packed file, which holds nothing to mend it from.
    """
    found = verify(store, progress)
    if repair:
        tidy(Path(store))
    if found.sound or not repair:
        return found
    if Path(store).is_file():
        raise StoreError(f"{store} is a packed file, with nothing to mend it from: pack again")
    repaired = mend_store(store, data, progress=progress)
    return dataclasses.replace(verify(store, progress), repaired=repaired)
