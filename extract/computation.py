"""The part of an extraction that needs the base, if it needs it at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from headstart.extract._files import digest_of
from headstart.extract._kept import ready
from headstart.extract.engines import require_same_engine
from headstart.extract.pipeline import Decoder, Decoding, Job, Outcome, Writer, distance, run_jobs
from headstart.extract.plan import ids, jobs
from headstart.extract.weights import is_name

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from contextlib import AbstractContextManager

    from headstart.cache import Filling, Progress, RowId, Spec
    from headstart.extract.base import Base
    from headstart.extract.pipeline import Decoded
    from headstart.extract.plan import Plan, Settings
    from headstart.extract.run import Speed


def same_weights(filling: Filling, settings: Settings) -> bool:
    """Tell, without Keras, whether the weights asked for are the store's."""
    asked, stored = settings.weights, filling.settings
    if asked is None:
        return True
    if is_name(asked):
        return bool(asked == stored.get("weights"))
    file = Path(asked).absolute()
    if not file.exists():
        return str(file) == stored.get("weights")
    return file.is_file() and digest_of(file, "sha256") == stored.get("weights_sha256")


class _Pace(TypedDict):
    workers: int
    ahead: int


class Pass:
    """What passes of pictures through the base have in common, whoever reads the pictures.

    Parameters
    ----------
    filling
        The store.
    spec
        Of what is computed, but for the weights' digest.
    remembered
        The run's settings, to be found again: which weights and limits are taken.
    speed
        Batch size and threads.
    on_error
        ``"ledger"`` or ``"fail"``.
    progress
        Called with "extracting", rows done, rows to do.

    Attributes
    ----------
    outcome
        What came of it so far.
    """

    def __init__(
        self,
        filling: Filling,
        spec: Spec,
        remembered: dict[str, Any],
        *,
        speed: Speed,
        on_error: str = "ledger",
        progress: Progress | None = None,
    ) -> None:
        self._filling, self._spec = filling, spec
        self._speed, self._on_error, self._progress = speed, on_error, progress
        self._steps = self._done = 0
        self._limit = ""
        self.outcome = Outcome()
        self.remembered = remembered

    def go_on(self, other: Pass) -> None:
        """Go on where another pass has ended: with what came of it, and what it has told."""
        self.outcome = other.outcome
        self._done += other._done
        self._steps += other._done

    def _decoding(self) -> Decoding:
        return Decoding.of(self._spec, self.remembered["max_pixels"])

    def _pace(self, views: int) -> _Pace:
        """Return how many threads decode, and how many pictures of so many views ahead."""
        batch, workers = self._speed.batch_size, self._speed.threads
        return {
            "workers": workers,
            "ahead": distance(self._spec.size, views=views, batch_size=batch, workers=workers),
        }

    def _push(
        self,
        decoded: Decoded,
        bases: tuple[Base, ...],
        pool: str,
        cuts: Mapping[str, str],
        missing: Mapping[str, Container[RowId]],
    ) -> None:
        """Push pictures through the base and into shards, once it is known to be the store's."""
        base = bases[0]
        spec = dataclasses.replace(
            self._spec,
            weights=base.digest,
            engine=base.engine,
            precision=base.precision,
        )
        self._filling.require(spec, weights=self.remembered["weights"])
        specs = {
            name: dataclasses.replace(spec, layer=layer, pool=pool) for name, layer in cuts.items()
        }
        with Writer(self._filling, specs, missing, self.remembered) as writer:
            run_jobs(
                decoded,
                bases,
                writer,
                cuts,
                outcome=self.outcome,
                on_error=self._on_error,
                progress=self._tell,
            )

    def _ready(
        self, pool: str, cuts: Mapping[str, str]
    ) -> AbstractContextManager[tuple[Base, ...]]:
        from headstart.extract.weights import find_weights

        spec = self._spec
        if self._filling.spec is not None:
            require_same_engine(
                spec.engine,
                f"the store {self._filling.folder}",
                "extract anew into another store, with --engine keras",
            )
        weights = find_weights(self.remembered["weights"])
        self.remembered["weights_sha256"] = weights.sha256
        return ready(
            weights,
            size=spec.size,
            layers=tuple(dict.fromkeys(cuts.values())),
            pool=pool,
            engine=spec.engine,
            precision=spec.precision,
            batch_size=self._speed.batch_size,
        )

    def _tell(self, count: int, limit: str) -> None:
        self._done, self._limit = self._done + count, limit
        if self._progress is not None:
            stage = f"extracting (limited by {limit})" if limit else "extracting"
            self._progress(stage, self._done, self._steps)


class Computation(Pass):
    """Pictures that were hashed and lack features, pushed through the base and into shards.

    Parameters
    ----------
    filling
        The store.
    plan
        What is missing, and the pictures to compute it from.
    spec, remembered, speed, on_error, progress
        As for `Pass`.

    Attributes
    ----------
    plan
        As given.
    outcome
        What came of it so far.
    total
        Number of pictures to compute.
    """

    def __init__(
        self,
        filling: Filling,
        plan: Plan,
        spec: Spec,
        remembered: dict[str, Any],
        *,
        speed: Speed,
        on_error: str = "ledger",
        progress: Progress | None = None,
    ) -> None:
        super().__init__(
            filling, spec, remembered, speed=speed, on_error=on_error, progress=progress
        )
        self.plan, self.total = plan, len(plan.to_compute)
        passes: dict[str, set[RowId]] = {}
        for name, (_, pool) in plan.cuts.items():
            passes.setdefault(pool, set()).update(plan.missing[name])
        self._steps = sum(map(len, passes.values()))

    def compute(self) -> None:
        """Load the base and compute what is missing; what is done stays done."""
        for pool in dict.fromkeys(pool for _, pool in self.plan.cuts.values()):
            self._one_pass(pool)

    def kept(self) -> str:
        """Say how many of the pictures to compute have their rows in every layer.

        Of a run that went on from another, and of a part, that is not all there is.
        """
        plan = self.plan
        lacking = {
            row for name in plan.cuts for row in self._filling.missing(name, plan.to_compute)
        }
        known = {row for row in ids(plan.source) if row[0].decode() not in plan.unreadable}
        more = self.total < len(known)
        which = " of this run are kept, beside all kept before," if more else " are kept"
        what = "rows" if plan.source.views else "pictures"
        return f"{self.total - len(lacking)} of {self.total} {what}{which}"

    def _one_pass(self, pool: str) -> None:
        """Compute the layers of one pooling; a store with two kinds takes two passes."""
        cuts = self._cuts(pool)
        missing = {name: set(self.plan.missing[name]) for name in cuts}
        views = 1 + self.plan.source.views
        decoder = Decoder(self._jobs(cuts), self._decoding(), **self._pace(views))
        # The first pictures are decoded while the base is loaded.
        with decoder, self._ready(pool, cuts) as bases:
            self._push(decoder, bases, pool, cuts, missing)

    def _cuts(self, pool: str) -> dict[str, str]:
        return {name: layer for name, (layer, kind) in self.plan.cuts.items() if kind == pool}

    def _jobs(self, cuts: Mapping[str, str]) -> list[Job]:
        wanted: dict[bytes, list[int]] = {}
        for digest, view in sorted(set().union(*(self.plan.missing[name] for name in cuts))):
            if digest.decode() not in self.outcome.unreadable:
                wanted.setdefault(digest, []).append(view)
        return [
            dataclasses.replace(job, views=tuple(wanted[job.row[0]]))
            for job in jobs(self.plan.source)
            if job.row[0] in wanted
        ]
