"""Mend a store: compute again what its damaged and missing shards held, and nothing else."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cache import Filling, Rows
from headstart.cache.urls import is_url
from headstart.errors import InterruptedRunError, StoreError
from headstart.extract.computation import Computation
from headstart.extract.plan import Plan, Settings, read_source, remembered
from headstart.extract.run import Speed, asked_spec, fill_store, require
from headstart.extract.tfds import is_tfds

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from headstart.cache import Progress, RowId
    from headstart.cache.catalog import Catalog
    from headstart.extract.plan import Source


def mend_store(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    speed: Speed | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Bring a damaged store back to what it published.

    Rows, their order, labels and splits stay as they are; features that were lost are computed
    again, from files with the same bytes, wherever in `data` they are. Where the catalog itself
    is lost, the rows are those of `data`, as after `fill_store`, and sound shards are used again.

    Parameters
    ----------
    path
        The store.
    data
        The pictures; where they were at the last extraction by default. Not needed where no
        features were lost.
    speed
        Batch size and threads.
    progress
        Called with stage, done, total.

    Returns
    -------
    tuple
        Paths of the rows whose features were computed again.

    Raises
    ------
    StoreError
        If it is not known where the pictures are, or some are not there or do not decode any
        more: it names them, and the store stays as it was.
    InterruptedRunError
        If the user stopped it; features computed so far are kept.
    """
    filling = Filling(Path(path), repair=True)
    speed = speed or Speed()
    before = filling.before
    try:
        if before is None:
            return _fill_anew(filling, _place(filling, data), speed, progress)
        return _mend(filling, before, data, speed, progress)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"stopped: what was computed is kept in {path}; run the same command again to go on"
        ) from error


def _place(filling: Filling, data: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    place = data or filling.settings.get("data")
    if not place:
        raise StoreError(f"{filling.folder} does not know where its pictures are; give --data DATA")
    if not data and (is_url(place) or is_tfds(place)):
        raise StoreError(
            f"{filling.folder} says that its pictures are at {place}: what is not on this "
            "machine is fetched only where you give it, with --data"
        )
    return str(place)


def _fill_anew(
    filling: Filling,
    data: str | os.PathLike[str],
    speed: Speed,
    progress: Progress | None,
) -> tuple[str, ...]:
    """Make the catalog again from the pictures, with every layer that sound shards are of."""
    pools: dict[str, list[str]] = {}
    for spec in filling.specs:
        pools.setdefault(spec.pool, []).append(spec.layer)
    every = [Settings(layers=tuple(layers), pool=pool) for pool, layers in pools.items()]
    for settings in every or [Settings()]:
        store, _ = fill_store(
            data, filling.folder, settings, repair=True, speed=speed, progress=progress
        )
    rows = _rows(store.catalog)
    filling.require(store.spec)  # says which views are meant
    missing = [filling.missing(name, rows.ids()) for name in store.layers]
    return _paths(rows, set().union(*missing))


def _mend(
    filling: Filling,
    before: Catalog,
    data: str | os.PathLike[str] | None,
    speed: Speed,
    progress: Progress | None,
) -> tuple[str, ...]:
    started = time.perf_counter()
    rows = _rows(before)
    missing = {name: filling.missing(name, rows.ids()) for name in before.layers}
    lost = set().union(*missing.values())
    if lost:
        require(filling, Settings())
        source = read_source(_place(filling, data), workers=speed.threads, progress=progress)
        source = _only(source, lost)
        there = {digest.encode() for digest in source.sha256}
        _require_found(filling, rows, {row for row in lost if row[0] not in there}, {})
        cuts = {
            name: (index.spec.layer, index.spec.pool)
            for name, index in before.layers.items()
            if missing[name]
        }
        work = Computation(
            filling,
            Plan(source, cuts, missing, {}),
            asked_spec(filling, Settings()),
            remembered(filling, Settings(), before.settings.get("data") or None),
            speed=speed,
            progress=progress,
        )
        work.compute()
        still = set().union(*(filling.missing(name, rows.ids()) for name in cuts))
        _require_found(filling, rows, still, work.outcome.unreadable)
    filling.publish(
        rows,
        tuple(before.layers),
        left_out=before.left_out,
        unreadable=before.unreadable,
        settings=before.settings,
        seconds=time.perf_counter() - started if lost else 0.0,
    )
    filling.remove_damaged()
    return _paths(rows, lost)


def _paths(rows: Rows, wanted: set[RowId]) -> tuple[str, ...]:
    return tuple(path for path, row in zip(rows.path, rows.ids(), strict=True) if row in wanted)


def _rows(content: Catalog) -> Rows:
    return Rows(
        content.classes,
        content.path,
        content.split,
        content.label.tolist(),
        content.image_sha256.tolist(),
        content.view.tolist(),
        content.columns,
    )


def _only(source: Source, wanted: set[RowId]) -> Source:
    """Return the pictures of a source that are wanted."""
    digests = {row[0].decode() for row in wanted}
    pairs = zip(source.dataset.pictures, source.sha256, strict=True)
    kept = [(picture, digest) for picture, digest in pairs if digest in digests]
    dataset = dataclasses.replace(source.dataset, pictures=tuple(p for p, _ in kept))
    return dataclasses.replace(source, dataset=dataset, sha256=tuple(sha for _, sha in kept))


def _require_found(
    filling: Filling, rows: Rows, lacking: set[RowId], reasons: Mapping[str, str]
) -> None:
    """Refuse to go on without pictures that rows need; nothing of the store is given up."""
    paths = _paths(rows, lacking)
    if not paths:
        return
    digest = rows.image_sha256[rows.path.index(paths[0])].decode()
    reason = f" ({reasons[digest]})" if digest in reasons else ""
    shown = ", ".join(map(repr, paths[:5])) + (", ..." if len(paths) > 5 else "")
    raise StoreError(
        f"{len(paths)} pictures whose features are damaged are not there, the first {shown}"
        f"{reason}; {filling.folder} stays as it was: give the place of its pictures with "
        "--data, or use extract to bring it in line with other pictures"
    )
