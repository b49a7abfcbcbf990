"""What a benchmark has found already, in a file, and what it still has to run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from headstart._hardware import machine
from headstart.cache.catalog import now, versions
from headstart.errors import HeadError
from headstart.heads import modes
from headstart.heads.benchmark import Benchmark
from headstart.heads.curve import SHARES
from headstart.heads.modes import Bench, Record
from headstart.heads.splits import labelled_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headstart.cache import Store
    from headstart.heads.splits import Labelled

#: Of how modes are trained and measured: results of another one are not gone on with.
_RECIPE = 3

#: A mode and a head, as in a table's line.
Entry = tuple[str, str]
#: A seed, and a share of its training rows.
Point = tuple[int, float]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes
    ----------
    entries : sequence of (mode, head)
        For the table.
    seeds : sequence of int
    learning : sequence of (mode, head)
        Those of them to draw a learning curve of.
    shares : sequence of float
        Of the training rows, below 1.
    """

    entries: Sequence[Entry]
    seeds: Sequence[int]
    learning: Sequence[Entry] = ()
    shares: Sequence[float] = ()

    def points(self) -> Iterator[tuple[Entry, list[Point]]]:
        """Yield the points of each mode: first those of the table, then those of the curves."""
        for entry in self.entries:
            yield entry, [(seed, 1.0) for seed in self.seeds]
        for entry in self.learning:
            yield entry, [(seed, share) for share in self.shares for seed in self.seeds]

    def missing(self, have: set[tuple[Entry, Point]]) -> Iterator[tuple[Entry, list[Point]]]:
        """Yield the same without what is there."""
        for entry, points in self.points():
            left = [point for point in points if (entry, point) not in have]
            if left:
                yield entry, left


class Results:
    """What is known already, in a file that is swapped whole whenever something is added."""

    def __init__(self, path: Path, what: Bench, store: Store, *, where: str = "") -> None:
        rows = labelled_rows(store, None)
        self._path, self._store, self._rows = path, store, rows
        self._where = where
        self._layer = what.layer
        self._trained = len(modes.split_of(store, rows, 0)[0])
        self.failed: dict[str, str] = {}
        self._settings = {
            "layer": what.layer,
            "epochs": what.epochs,
            "train_bn": what.train_bn,
            "features": store.fingerprint(what.layer, rows=rows.numbers),
            "rows": _digest(rows, store.classes),
            "recipe": _RECIPE,
        }
        content = json.loads(path.read_text("utf-8")) if path.exists() else {}
        self._refuse_others(content.get("settings", self._settings))
        self.cost: dict[str, Any] = content.get("cost", {})
        kept = [*content.get("modes", []), *content.get("curve", [])]
        self._records = [Record(**record) for record in kept]
        self._runs: list[dict[str, Any]] = content.get("runs", [])

    @property
    def have(self) -> set[tuple[Entry, Point]]:
        """What need not be run again."""
        return {_place(record) for record in self._records}

    def shares(self, seeds: Sequence[int]) -> list[float]:
        """Return the shares, below 1, with two training rows or more of every class."""
        return [
            share
            for share in SHARES
            if share < 1
            and all(modes.part_of(self._store, self._rows, seed, share) for seed in seeds)
        ]

    def keep(self, record: Record | None = None, *, cost: dict[str, Any] | None = None) -> None:
        """Add a result, or what the base costs up to some more layers."""
        self._records += [record] if record else []
        if cost:
            known = self.cost.get("base_ms", {})
            self.cost = cost | {"base_ms": known | cost["base_ms"]}
        run = {"date": now()[:10], "machine": machine(), "versions": versions()}
        run |= {"where": self._where} if self._where else {}
        self._runs += [] if run in self._runs else [run]
        content = {"settings": self._settings} | self._benchmark(self._records).to_dict()
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
        draft.replace(self._path)

    def benchmark(self, wanted: Wanted) -> Benchmark:
        """Return the results asked for; the file may hold others too."""
        asked = {(entry, point) for entry, points in wanted.points() for point in points}
        return self._benchmark([record for record in self._records if _place(record) in asked])

    def _benchmark(self, records: Sequence[Record]) -> Benchmark:
        return Benchmark(
            records=tuple(record for record in records if record.share == 1),
            rows=len(self._rows.numbers),
            trained=self._trained,
            layer=self._layer,
            classes=self._store.classes,
            resampled=not self._rows.validation.any(),
            cost=self.cost,
            failed=self.failed,
            parts=tuple(record for record in records if record.share < 1),
            runs=tuple(self._runs),
        )

    def _refuse_others(self, theirs: dict[str, Any]) -> None:
        differing = [name for name, value in self._settings.items() if theirs.get(name) != value]
        if differing:
            raise HeadError(
                f"{self._path} holds results of other settings ({', '.join(differing)}): name "
                "another folder with -o, or remove the file"
            )


def _place(record: Record) -> tuple[Entry, Point]:
    return (record.mode, record.head), (record.seed, record.share)


def _digest(rows: Labelled, classes: Sequence[str]) -> str:
    """Identify the labels, the split and what is kept together (hex)."""
    parts = [rows.numbers, rows.codes, rows.groups, rows.validation, rows.first_view]
    found = hashlib.sha256(json.dumps(list(classes)).encode())
    for part in parts:
        found.update(part.tobytes())
    return found.hexdigest()
