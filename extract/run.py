"""One extraction: settings, plan, base, pipeline, publication."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart._hardware import cores
from headstart.cache import Filling, LeftOut, Mirror, Store
from headstart.cache.spec import PER_LAYER
from headstart.cache.store import POOLS
from headstart.cache.urls import is_url
from headstart.errors import DataError, InterruptedRunError, StoreError
from headstart.extract import plan as planning
from headstart.extract.base import BATCH_SIZE
from headstart.extract.changes import Changes, changes
from headstart.extract.computation import Computation, same_weights
from headstart.extract.dataset import list_dataset
from headstart.extract.decode import DECODING, RESAMPLING, RULES
from headstart.extract.layers import check_layers, check_size
from headstart.extract.onepass import OnePass
from headstart.extract.parts import PartSummary
from headstart.extract.pipeline import useless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headstart.cache import Progress, Spec
    from headstart.extract.cluster import Ahead, ClusterComputation
    from headstart.extract.parts import Part
    from headstart.extract.plan import Plan, Settings, Source

DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Speed:
    """Settings that change how fast rows come, never what they are.

    Parameters
    ----------
    batch_size
        Pictures in one pass of the base.
    workers
        Threads that decode; the number of cores, at least 2, by default.
    on
        Where to compute: ``""`` here, ``"ray"`` in workers on this machine, or the
        ``ray://host:10001`` of a cluster that sees the dataset and the store under these paths.
    """

    batch_size: int = BATCH_SIZE
    workers: int | None = None
    on: str = ""

    @property
    def threads(self) -> int:
        """Return the number of threads."""
        return self.workers or max(2, cores())


@dataclass(frozen=True)
class Summary:
    """What a run did: pictures used, by where their rows came from, and left out.

    Attributes
    ----------
    rows, computed, reused, duplicates
        Rows of the store; different pictures computed in this run, and those known before;
        rows that are copies of others.
    left_out
        Pictures that could not be used, and why.
    source
        The pictures that could, with what contradicts itself among them.
    seconds
        That the run took.
    changed
        Whether anything of the store is another than before.
    changes
        What has become of the rows the store had before.
    """

    rows: int
    computed: int
    reused: int
    duplicates: int
    left_out: tuple[LeftOut, ...]
    source: Source
    seconds: float
    changed: bool
    changes: Changes

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "rows": self.rows,
            "computed": self.computed,
            "reused": self.reused,
            "duplicates": self.duplicates,
            "left_out": [row._asdict() for row in self.left_out],
            "ignored_validation": self.source.ignored_validation,
            "other_kinds": dict(self.source.dataset.other_kinds),
            "empty_classes": self.source.dataset.empty_classes,
            "across_splits": self.source.conflicts.across_splits,
            "across_labels": self.source.conflicts.across_labels,
            "changes": self.changes.counts(),
            "seconds": self.seconds,
        }


def fill_store(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    settings: Settings,
    *,
    labels: Sequence[str] | None = None,
    on_error: str = "ledger",
    repair: bool = False,
    speed: Speed | None = None,
    progress: Progress | None = None,
) -> tuple[Store, Summary]:
    """Bring a store in line with a dataset, computing only what it lacks.

    Afterwards the store has the rows of this dataset and no others. Features of pictures that
    are no more in it stay in the shards, and cost nothing should they come back.

    Parameters
    ----------
    data
        A class folder, a manifest or a list of paths; see `list_dataset`.
    path
        The store's folder, made if need be; or its URL: it is filled on this machine, then sent,
        ``features.h5`` last.
    settings
        What decides values and rows; what is None there is taken from the store.
    labels
        With a list of paths: the class of each.
    on_error
        ``"ledger"`` (go on, and note the picture) or ``"fail"``.
    repair
        Read every shard first, and compute the rows of damaged ones again; what is damaged is
        removed.
    speed
        Batch size and threads.
    progress
        Called with stage, done, total.

    Returns
    -------
    store, summary
        The store, opened, and what was done.

    Raises
    ------
    DataError
        If the dataset cannot be used, or no picture of it decodes.
    LayerError
        If the base has no such layer, or the size is too small for it.
    SpecMismatchError
        If the store was made under another spec.
    CorruptStoreError
        If a shard is missing, or the catalog is damaged, unless `repair`.
    InterruptedRunError
        If the user stopped the run; the rows computed so far are kept.
    """
    if is_url(path):
        return _fill_away(
            data,
            str(path),
            settings,
            labels=labels,
            on_error=on_error,
            repair=repair,
            speed=speed,
            progress=progress,
        )
    started = time.perf_counter()
    with _keeping(path) as run:
        run.prepare(
            data,
            path,
            settings,
            labels=labels,
            on_error=on_error,
            speed=speed or Speed(),
            progress=progress,
            repair=repair,
        )
        run.compute(settings)
        summary = _publish(run.filling, run.plan, run.work, started)
        if repair:
            run.filling.remove_damaged()
        return Store.open(path), summary


def fill_part(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    settings: Settings,
    part: Part,
    *,
    labels: Sequence[str] | None = None,
    on_error: str = "ledger",
    speed: Speed | None = None,
    progress: Progress | None = None,
) -> PartSummary:
    """Compute one part of what a store lacks, and publish nothing.

    Several parts may be computed at once, by processes and machines that share the store's
    folder. `fill_store` finds their shards, computes what is still missing and publishes.

    Parameters
    ----------
    data, path, settings, labels, on_error, speed, progress
        As for `fill_store`, whose errors are raised here too. What is None in `settings` is
        taken from the store, also from parts that are not published yet.
    part
        Which one.
    """
    started = time.perf_counter()
    with _keeping(path) as run:
        run.prepare(
            data,
            path,
            settings,
            labels=labels,
            on_error=on_error,
            speed=speed or Speed(),
            progress=progress,
            part=part,
        )
        run.compute(settings)
        rows = {row for row in planning.ids(run.plan.source) if part.has(row[0])}
        outcome = run.work.outcome
        unreadable = run.plan.unreadable | outcome.unreadable
        bad = {row for row in rows if row[0].decode() in unreadable}
        left_out = run.plan.source.usable(outcome.unreadable, outcome.vanished).left_out
        return PartSummary(
            part=part,
            rows=len(rows - bad),
            computed=len(outcome.computed),
            left_out=tuple(one for one in left_out if one not in run.plan.source.left_out),
            seconds=time.perf_counter() - started,
        )


class _Run:
    """What a run has of its store and its work, as far as it has come."""

    filling: Filling
    work: OnePass | Computation

    def __init__(self) -> None:
        self.ends = contextlib.ExitStack()
        self._ray: Ahead | None = None

    @property
    def plan(self) -> Plan:
        """What the run is, or was, to do."""
        return self.work.plan

    def prepare(
        self,
        data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        path: str | os.PathLike[str],
        settings: Settings,
        *,
        labels: Sequence[str] | None,
        on_error: str,
        speed: Speed,
        progress: Progress | None,
        repair: bool = False,
        part: Part | None = None,
    ) -> None:
        """Read the store, list the dataset and, for a cluster, plan what to compute."""
        self.filling = filling = Filling(Path(path), repair=repair)
        require(filling, settings)
        _require_place(Path(path))
        options: dict[str, Any] = {
            "spec": asked_spec(filling, settings),
            "remembered": planning.remembered(filling, settings, data),
            "speed": speed,
            "on_error": on_error,
        }
        if speed.on:
            self.work = self._for_cluster(
                data, settings, labels=labels, part=part, progress=progress, options=options
            )
        else:
            planning.require_share(planning.validation(filling, settings))
            dataset = list_dataset(data, labels=labels)
            self.work = OnePass(filling, dataset, settings, progress=progress, part=part, **options)

    def compute(self, settings: Settings) -> None:
        """Compute what is missing, if anything is, or if only the base can tell."""
        work = self.work
        if isinstance(work, OnePass) or work.total or not same_weights(self.filling, settings):
            work.compute()

    def _for_cluster(
        self,
        data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        settings: Settings,
        *,
        labels: Sequence[str] | None,
        part: Part | None,
        progress: Progress | None,
        options: dict[str, Any],
    ) -> ClusterComputation:
        """Hash the pictures here, and plan what a cluster shall compute."""
        from headstart.extract.cluster import ClusterComputation

        filling = self.filling
        source = planning.read_source(
            data,
            labels=labels,
            validation=planning.validation(filling, settings),
            views=planning.views(filling, settings),
            workers=options["speed"].threads,
            progress=progress,
            listed=lambda: self._look_ahead(settings, options),
        )
        plan = planning.make_plan(source, filling, settings)
        if options["on_error"] == "fail":
            _require_all(plan)
        plan = plan if part is None else part.of_plan(plan)
        work = ClusterComputation(filling, plan, progress=progress, **options)
        work.ahead = self._ray
        return work

    def _look_ahead(self, settings: Settings, options: dict[str, Any]) -> None:
        """Start Ray on this machine while files are read, if the store holds nothing yet."""
        if options["speed"].on != "ray" or self.filling.spec is not None:
            return
        from headstart.extract import cluster

        cuts = planning.wanted_cuts(self.filling, settings)
        # What Ray says at its start is not for stdout either. Here, as that is the whole process's:
        # set and reset in the order of a stack, and not in the thread that starts Ray.
        self.ends.enter_context(contextlib.redirect_stdout(sys.stderr))
        self._ray = self.ends.enter_context(cluster.ahead(self.filling, cuts, **options))
        self._ray.start()


@contextlib.contextmanager
def _keeping(path: str | os.PathLike[str]) -> Iterator[_Run]:
    """Give a run; should the user stop it, say what is kept of its work."""
    run = _Run()
    try:
        with run.ends:
            yield run
    except KeyboardInterrupt as error:
        work = getattr(run, "work", None)
        kept = work.kept() if work is not None else "all that was computed before is kept"
        raise InterruptedRunError(
            f"stopped: {kept} in {path}; run the same command again to go on"
        ) from error


def _fill_away(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    url: str,
    settings: Settings,
    *,
    progress: Progress | None,
    **options: Any,
) -> tuple[Store, Summary]:
    """Fill the mirror of a store at a URL, and send what is new."""
    try:
        mirror = Mirror(url)
        folder = mirror.pull(progress)
        options["repair"] = options["repair"] or bool(mirror.damaged)
        _, summary = fill_store(data, folder, settings, progress=progress, **options)
        mirror.push(progress)
        return Store.open(url), summary
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"stopped: {url} is as it was, and what was fetched, computed and sent is kept; run "
            "the same command again to go on"
        ) from error


def asked_spec(filling: Filling, settings: Settings) -> Spec:
    """Return the spec asked for; the rules of decoding are this version's, never the store's."""
    spec = settings.spec(filling.spec)
    decoding = spec.decoding if spec.decoding in RULES.values() else DECODING
    return dataclasses.replace(
        spec,
        decoding=decoding,
        resampling=RESAMPLING,
        augmentation=planning.augmentation(filling, settings),
    )


def require(filling: Filling, settings: Settings) -> None:
    """Refuse what cannot be done as early as it is known, before a picture is read.

    Raises
    ------
    StoreError
        If there is no such pooling, storage dtype or rule of decoding.
    SpecMismatchError
        If the store was made under another spec; it names each field that differs.
    LayerError
        If the base has no such layer, or the size is too small for it.
    """
    for name, choices in (("pool", POOLS), ("dtype", DTYPES), ("decoding", RULES)):
        value = getattr(settings, name)
        if value not in (None, *choices):
            raise StoreError(f"--{name} {value}: expected one of {', '.join(choices)}")
    asked = asked_spec(filling, settings)
    differs = filling.spec is not None and filling.spec.differences(asked, ignore=PER_LAYER)
    if differs and not same_weights(filling, settings):  # alone, they differ once they are loaded
        asked = dataclasses.replace(asked, weights="")
    filling.require(asked, weights=settings.weights or "")
    check_size(asked.size)
    check_layers([layer for layer, _ in planning.wanted_cuts(filling, settings).values()])


def _require_place(store: Path) -> None:
    """Refuse a folder that could never be made, before anything is computed for it."""
    place = store.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise StoreError(f"{store} cannot be made, as {place} is a file; choose another -o")
    if not os.access(place, os.W_OK | os.X_OK):
        raise StoreError(f"{place} cannot be written to; choose another place with -o")


def _require_all(plan: Plan) -> None:
    """Stop at the first picture that is known to be of no use."""
    left_out = plan.source.usable(plan.unreadable, {}).left_out
    if left_out:
        first = min(left_out)
        raise DataError(useless(first.path, first.reason))


def _publish(filling: Filling, plan: Plan, work: OnePass | Computation, started: float) -> Summary:
    """Swap in the catalog, and say what was done since `started` (a `perf_counter`)."""
    outcome = work.outcome
    unreadable = plan.unreadable | outcome.unreadable
    source = plan.source.usable(unreadable, outcome.vanished)
    rows = source.rows()
    if not rows.path:
        data = work.remembered["data"] or "the dataset"
        raise DataError(f"no picture of {data} can be used; first: {_first(source.left_out)}")
    since = changes(filling, rows)
    changed = filling.publish(
        rows,
        tuple(plan.cuts),
        left_out=source.left_out,
        unreadable={key: unreadable[key] for key in unreadable.keys() & set(plan.source.sha256)},
        settings=work.remembered,
        seconds=time.perf_counter() - started if outcome.computed else 0.0,
    )
    distinct = set(rows.ids())
    computed = len(distinct & outcome.computed)
    return Summary(
        rows=len(rows.path),
        computed=computed,
        reused=len(distinct) - computed,
        duplicates=len(rows.path) - len(distinct),
        left_out=source.left_out,
        source=source,
        seconds=time.perf_counter() - started,
        changed=changed,
        changes=since,
    )


def _first(left_out: Sequence[LeftOut]) -> str:
    return f"{left_out[0].path}: {left_out[0].reason}" if left_out else "there is none"
