"""An extraction that reads every picture once: what it lacks is computed on the way."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from headstart.cache import LeftOut
from headstart.errors import DataError
from headstart.extract import plan as planning
from headstart.extract.computation import Computation, Pass, same_weights
from headstart.extract.identical import side
from headstart.extract.pipeline import useless
from headstart.extract.reading import Reading

if TYPE_CHECKING:
    from headstart.cache import Filling, Progress, RowId, Spec
    from headstart.extract.dataset import Dataset, Picture
    from headstart.extract.parts import Part
    from headstart.extract.plan import Plan, Settings
    from headstart.extract.run import Speed


class OnePass(Pass):
    """Pictures that were listed, each read once: hashed, decoded and computed if it lacks rows.

    The base is loaded when the first such picture is found. Layers of another pooling take a pass
    of their own, over the pictures that lack them.

    Parameters
    ----------
    filling
        The store.
    dataset
        What was listed.
    settings
        What was asked for.
    spec, remembered, speed, on_error, progress
        As for `Pass`; `progress` is called with "reading" until a picture is to be computed.
    part
        The only part to compute; None: all.

    Attributes
    ----------
    plan
        The pictures, and what was still missing when all had been read.
    outcome
        What came of it so far.
    """

    plan: Plan

    def __init__(
        self,
        filling: Filling,
        dataset: Dataset,
        settings: Settings,
        spec: Spec,
        remembered: dict[str, Any],
        *,
        speed: Speed,
        on_error: str = "ledger",
        progress: Progress | None = None,
        part: Part | None = None,
    ) -> None:
        super().__init__(
            filling, spec, remembered, speed=speed, on_error=on_error, progress=progress
        )
        self._dataset, self._settings, self._part = dataset, settings, part
        self._views = planning.views(filling, settings)
        self._share = planning.validation(filling, settings)
        self._cuts = planning.wanted_cuts(filling, settings)
        self._unreadable = planning.known_unreadable(filling, settings)
        self._split_known = planning.has_splits(dataset) or not self._share
        #: Rows of pictures that are not read yet, at most, and those begun.
        self._unread, self._begun = sum(map(self._most, dataset.pictures)), 0
        self._steps = self._expected()
        self._reading: Reading | None = None
        self._extracting = False
        self._rest: Computation | None = None

    def compute(self) -> None:
        """Read the pictures and compute what is missing; what is done stays done.

        Raises
        ------
        DataError
            If a picture cannot be used and none may be left out.
        """
        for one in self._dataset.left_out:
            self._refuse(one.path, one.reason)
        pools = dict.fromkeys(pool for _, pool in self._cuts.values())
        pool = self._settings.pool or self._spec.pool  # the one asked for lacks most
        others = [other for other in pools if other != pool]
        reading = self._read(pool)
        source = planning.make_source(
            self._dataset, reading.sha256, validation=self._share, views=self._views
        )
        self._leave_out_copies(source)
        self.plan = planning.make_plan(source, self._filling, self._settings)
        if self._part is not None:
            self.plan = self._part.of_plan(self.plan)
        if others:
            self._compute_rest(others)

    def kept(self) -> str:
        """Say how many of the pictures to compute have their rows in every layer.

        Those that are not read yet are counted among them. Of a run that went on from another, and
        of a part, that is not all there is.
        """
        reading = self._reading
        if reading is None:
            return "all that was computed before is kept"
        wanted = set(reading.begun)
        if self._rest is not None:
            wanted.update(self._rest.plan.to_compute)
        lacking = {row for name in self._cuts for row in self._filling.missing(name, list(wanted))}
        pairs = zip(self._dataset.pictures, reading.sha256, strict=False)
        seen = {
            row
            for picture, digest in pairs
            if isinstance(digest, str) and digest not in self._unreadable
            for row in self._rows(picture, digest)
        }
        which = " of this run are kept, beside all kept before," if seen - wanted else " are kept"
        what = "rows" if self._views else "pictures"
        return f"{len(wanted) - len(lacking)} of {len(wanted) + self._expected()} {what}{which}"

    def _expected(self) -> int:
        """Return how many rows of pictures that are not read yet there may be to compute."""
        return -(-self._unread // (self._part.of if self._part is not None else 1))

    def _read(self, pool: str) -> Reading:
        """Read all pictures, and compute the layers of one pooling on the way."""
        cuts = {name: layer for name, (layer, kind) in self._cuts.items() if kind == pool}
        missing = {name: self._filling.lacking(name) for name in cuts}

        def wanted(picture: Picture, sha256: str) -> list[RowId]:
            if sha256 in self._unreadable:
                return []
            if self._part is not None and not self._part.has(sha256.encode()):
                return []
            rows = self._rows(picture, sha256)
            return [row for row in rows if any(row in lacking for lacking in missing.values())]

        self._reading = reading = Reading(
            self._dataset.pictures,
            self._decoding(),
            wanted=wanted,
            passed=self._passed,
            **self._pace(1 + self._views),
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(reading)
            # Other weights than the store's are refused whether there is something to compute or
            # not. The first pictures are decoded while the base is loaded.
            if reading.has_any() or not same_weights(self._filling, self._settings):
                self._extracting = True
                bases = stack.enter_context(self._ready(pool, cuts))
                self._push(reading, bases, pool, cuts, missing)
        return reading

    def _compute_rest(self, pools: list[str]) -> None:
        """Compute the layers of other poolings."""
        cuts = {name: cut for name, cut in self.plan.cuts.items() if cut[1] in pools}
        bad = self.outcome.unreadable
        missing = {
            name: [row for row in self.plan.missing[name] if row[0].decode() not in bad]
            for name in cuts
        }
        self._rest = Computation(
            self._filling,
            dataclasses.replace(self.plan, cuts=cuts, missing=missing),
            self._spec,
            self.remembered,
            speed=self._speed,
            on_error=self._on_error,
            progress=self._progress,
        )
        if self._rest.total:
            self._rest.go_on(self)
            self._rest.compute()

    def _most(self, picture: Picture) -> int:
        """Return how many rows a picture has at most, as long as its bytes are not known."""
        return len(planning.rows_of("", picture.split, self._views))

    def _rows(self, picture: Picture, sha256: str) -> list[RowId]:
        split = picture.split if self._split_known else side(sha256, self._share)
        return planning.rows_of(sha256, split, self._views)

    def _passed(self, picture: Picture, sha256: str | LeftOut, count: int) -> None:
        """Note that a picture was read, and will be computed for so many rows."""
        if isinstance(sha256, LeftOut):
            self._refuse(picture.path, sha256.reason)
        elif sha256 in self._unreadable:
            self._refuse(picture.path, self._unreadable[sha256])
        self._unread -= self._most(picture)
        self._begun += count
        self._steps = self._begun + self._expected()
        if self._extracting and not count:
            self._tell(0, self._limit)
        elif not self._extracting and self._progress is not None:
            assert self._reading is not None
            done = len(self._reading.sha256)
            self._progress("reading", done, len(self._dataset.pictures))

    def _refuse(self, path: str, reason: str) -> None:
        """Stop at a picture that is of no use, if none may be left out."""
        if self._on_error == "fail":
            raise DataError(useless(path, reason))

    def _leave_out_copies(self, source: planning.Source) -> None:
        """Leave out the copies of pictures that found no memory: they were not decoded either."""
        vanished = self.outcome.vanished
        pairs = list(zip(source.dataset.pictures, source.sha256, strict=True))
        reasons = {
            sha: vanished[picture.path] for picture, sha in pairs if picture.path in vanished
        }
        vanished |= {picture.path: reasons[sha] for picture, sha in pairs if sha in reasons}
