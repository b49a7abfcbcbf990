"""One extraction: settings, plan, base, pipeline, publication."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cache import Filling, LeftOut, Store
from headstart.cache.spec import PER_LAYER
from headstart.errors import DataError, InterruptedRunError, StoreError
from headstart.extract import plan as planning
from headstart.extract._files import hash_file
from headstart.extract.decode import DECODING, RESAMPLING
from headstart.extract.pipeline import Decoder, Job, Outcome, Writer, run_jobs
from headstart.extract.plan import ids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headstart.cache import RowId, Spec
    from headstart.extract.base import Base
    from headstart.extract.plan import Plan, Progress, Settings, Source

BATCH_SIZE = 32


@dataclass(frozen=True)
class Speed:
    """Settings that change how fast rows come, never what they are.

    Parameters
    ----------
    batch_size
        Pictures in one pass of the base.
    workers
        Threads that decode; the number of cores, at least 2, by default.
    """

    batch_size: int = BATCH_SIZE
    workers: int | None = None

    @property
    def threads(self) -> int:
        """Return the number of threads."""
        return self.workers or max(2, os.cpu_count() or 2)


@dataclass(frozen=True)
class Summary:
    """What a run did: pictures used, by where their rows came from, and left out."""

    rows: int
    computed: int
    reused: int
    duplicates: int
    left_out: tuple[LeftOut, ...]
    source: Source
    seconds: float
    changed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "rows": self.rows,
            "computed": self.computed,
            "reused": self.reused,
            "duplicates": self.duplicates,
            "left_out": [row._asdict() for row in self.left_out],
            "across_splits": self.source.conflicts.across_splits,
            "across_labels": self.source.conflicts.across_labels,
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

    Parameters
    ----------
    data
        A class folder, a manifest or a list of paths; see `list_dataset`.
    path
        The store's folder, made if need be.
    settings
        What decides values and rows; what is None there is taken from the store.
    labels
        With a list of paths: the class of each.
    on_error
        ``"ledger"`` (go on, and note the picture) or ``"fail"``.
    repair
        Check every shard first, and compute the rows of damaged ones again.
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
    SpecMismatchError
        If the store was made under another spec.
    InterruptedRunError
        If the user stopped the run; the rows computed so far are kept.
    """
    started = time.perf_counter()
    speed = speed or Speed()
    run: _Run | None = None
    try:
        filling = Filling(Path(path), repair=repair)
        _require(filling, settings)
        share = planning.validation(filling, settings)
        source = planning.read_source(
            data, labels=labels, validation=share, workers=speed.threads, progress=progress
        )
        if repair:
            _require_all_pictures(filling, source)
        plan = planning.make_plan(source, filling, settings)
        run = _Run(filling, plan, settings, speed=speed, on_error=on_error, progress=progress)
        run.remembered |= {"data": planning.data_name(data), "validation": share}
        run.compute()
        summary = run.publish(started)
        if repair:
            filling.remove_damaged()
        return Store.open(path), summary
    except KeyboardInterrupt as error:
        kept = run.kept() if run is not None else "all that was computed before is kept"
        raise InterruptedRunError(
            f"stopped: {kept} in {path}; run the same command again to go on"
        ) from error


def _require(filling: Filling, settings: Settings) -> None:
    """Refuse another spec as early as it is known, naming each field that differs."""
    if filling.spec is None:
        return
    asked = _asked(filling, settings)
    if filling.spec.differences(asked, ignore=PER_LAYER) and not _same_weights(filling, settings):
        asked = dataclasses.replace(asked, weights=str(settings.weights))
    filling.require(asked)


def _require_all_pictures(filling: Filling, source: Source) -> None:
    """Refuse to repair a store from other pictures: that would replace its rows."""
    if filling.before is None:
        return
    there = set(source.sha256)
    held = zip(filling.before.path, filling.before.image_sha256.tolist(), strict=True)
    gone = [path for path, digest in held if digest.decode() not in there]
    if gone:
        raise StoreError(
            f"{len(gone)} pictures of {filling.folder} are not there, the first {gone[0]!r}; "
            "a repair needs the pictures the store was made from: give their place with --data, "
            "or use extract to bring the store in line with other pictures"
        )


def _asked(filling: Filling, settings: Settings) -> Spec:
    """Return the spec asked for; the rules of decoding are this version's, never the store's."""
    spec = settings.spec(filling.spec)
    return dataclasses.replace(spec, decoding=DECODING, resampling=RESAMPLING)


def _same_weights(filling: Filling, settings: Settings) -> bool:
    """Tell, without Keras, whether the weights asked for are the store's."""
    asked, stored = settings.weights, filling.settings
    if asked is None or (asked == stored.get("weights") and not Path(asked).exists()):
        return True
    if not Path(asked).is_file():
        return False
    return hash_file(Path(asked), "sha256") == stored.get("weights_sha256")


class _Run:
    """The part of an extraction that needs the base, if it needs it at all."""

    def __init__(
        self,
        filling: Filling,
        plan: Plan,
        settings: Settings,
        *,
        speed: Speed,
        on_error: str,
        progress: Progress | None,
    ) -> None:
        self._filling, self._plan, self._settings = filling, plan, settings
        self._speed, self._on_error, self._progress = speed, on_error, progress
        self._total, self._done = len(plan.to_compute), 0
        self.outcome = Outcome()
        self.remembered: dict[str, Any] = {
            "weights": planning.weights_name(filling, settings),
            "weights_sha256": filling.settings.get("weights_sha256", ""),
            "max_pixels": planning.max_pixels(filling, settings),
        }

    def compute(self) -> None:
        """Compute what is missing; load nothing if nothing is and the weights are known."""
        if self._total or not _same_weights(self._filling, self._settings):
            for pool in dict.fromkeys(pool for _, pool in self._plan.cuts.values()):
                self._one_pass(pool)

    def publish(self, started: float) -> Summary:
        """Swap in the catalog, and say what was done since `started` (a `perf_counter`)."""
        plan, outcome = self._plan, self.outcome
        unreadable = plan.unreadable | outcome.unreadable
        rows, left_out = plan.rows(unreadable | outcome.vanished)
        if not rows.path:
            data = self.remembered["data"] or "the dataset"
            raise DataError(f"no picture of {data} can be used; first: {_first(left_out)}")
        known = set(plan.source.sha256) & unreadable.keys()
        changed = self._filling.publish(
            rows,
            tuple(plan.cuts),
            left_out=left_out,
            unreadable={key: unreadable[key] for key in known},
            settings=self.remembered,
            seconds=time.perf_counter() - started if outcome.computed else 0.0,
        )
        distinct = len(set(rows.ids()))
        return Summary(
            rows=len(rows.path),
            computed=len(outcome.computed),
            reused=distinct - len(outcome.computed),
            duplicates=len(rows.path) - distinct,
            left_out=tuple(left_out),
            source=plan.source,
            seconds=time.perf_counter() - started,
            changed=changed,
        )

    def kept(self) -> str:
        """Say how many of the pictures to compute have their rows in every layer."""
        plan = self._plan
        lacking = {
            row for name in plan.cuts for row in self._filling.missing(name, plan.to_compute)
        }
        return f"{self._total - len(lacking)} of {self._total} pictures are kept"

    def _one_pass(self, pool: str) -> None:
        """Compute the layers of one pooling; a store with two kinds takes two passes."""
        cuts = {name: layer for name, (layer, kind) in self._plan.cuts.items() if kind == pool}
        jobs = self._jobs(cuts)
        spec = _asked(self._filling, self._settings)
        decoder = Decoder(
            jobs,
            size=spec.size,
            max_pixels=self.remembered["max_pixels"],
            workers=self._speed.threads,
            ahead=2 * self._speed.batch_size + self._speed.threads,
        )
        from headstart.extract.base import spread

        with decoder:  # the first pictures are decoded while the base is loaded
            base = self._load(spec, pool, tuple(dict.fromkeys(cuts.values())))
            spec = dataclasses.replace(
                spec,
                weights=base.digest,
                engine=base.engine,
                precision=base.precision,
            )
            self._filling.require(spec)
            specs = {
                name: dataclasses.replace(spec, layer=layer, pool=pool)
                for name, layer in cuts.items()
            }
            with Writer(self._filling, specs, self._plan.missing, self.remembered) as writer:
                run_jobs(
                    decoder,
                    spread(base),
                    writer,
                    cuts,
                    outcome=self.outcome,
                    on_error=self._on_error,
                    progress=self._tell,
                )

    def _jobs(self, cuts: Mapping[str, str]) -> list[Job]:
        wanted = set().union(*(self._plan.missing[name] for name in cuts))
        wanted -= {(digest.encode(), 0) for digest in self.outcome.unreadable}
        first: dict[RowId, Job] = {}
        for row, picture in zip(
            ids(self._plan.source), self._plan.source.dataset.pictures, strict=True
        ):
            if row in wanted:
                first.setdefault(row, Job(row, picture.file, picture.path))
        return list(first.values())

    def _load(self, spec: Spec, pool: str, layers: tuple[str, ...]) -> Base:
        from headstart.extract.base import load_base
        from headstart.extract.weights import find_weights

        weights = find_weights(self.remembered["weights"])
        self.remembered["weights_sha256"] = weights.sha256
        return load_base(
            weights,
            size=spec.size,
            layers=layers,
            pool=pool,
            engine=spec.engine,
            precision=spec.precision,
            batch_size=self._speed.batch_size,
        )

    def _tell(self, count: int, limit: str) -> None:
        self._done += count
        if self._progress is not None:
            stage = f"extracting (limited by {limit})" if limit else "extracting"
            self._progress(stage, self._done, self._total)


def _first(left_out: Sequence[LeftOut]) -> str:
    return f"{left_out[0].path}: {left_out[0].reason}" if left_out else "there is none"
