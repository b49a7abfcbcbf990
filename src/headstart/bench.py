"""Frozen against fine-tuned against from scratch: run every mode, keep every result."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart._child import in_child
from headstart.cache import Spec
from headstart.errors import HeadError
from headstart.extract import Settings, fill_store
from headstart.extract.layers import check_cuts, check_layers
from headstart.extract.pixels import decode_rows
from headstart.heads import modes
from headstart.heads.benchmark import Benchmark
from headstart.heads.modes import Bench, Record
from headstart.heads.splits import labelled_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headstart.cache import Progress, Store
    from headstart.heads.splits import Labelled

HEADS = ("logreg", "svm", "ridge", "knn", "dense")
FINETUNE = ("mixed9", "mixed8", "mixed7", "all")
#: Of how modes are trained and measured: results of another one are not gone on with.
_RECIPE = 2
#: About how long one seed of each takes, in parts of a frozen head's time.
_COST = {"finetune": 40, "finetune:all": 150, "scratch": 50, "scratch+augment": 60}

#: A mode and a head, as in a table's line.
Entry = tuple[str, str]


def bench(
    data: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    settings: Settings,
    *,
    heads: Sequence[str] = HEADS,
    finetune: Sequence[str] = FINETUNE,
    scratch: bool = True,
    seeds: int = 3,
    epochs: int = 5,
    train_bn: bool = False,
    progress: Progress | None = None,
) -> Benchmark:
    """Run frozen, fine-tuned and from-scratch modes on the same rows, splits and seeds.

    What lies below the lowest trained layer is computed once and kept in ``folder/features``;
    each result is kept in ``folder/bench.json`` as it is there (and in the end the table in
    ``folder/bench.md``), so that a benchmark that was
    stopped goes on where it was.

    Parameters
    ----------
    data
        A class folder or a manifest, as for `headstart.extract`.
    folder
        Where features, pixels and results go.
    settings
        Of the extraction; the first of its layers is what frozen heads are trained on.
    heads
        Names of heads for the frozen base.
    finetune
        Layers above which everything is trained, or ``all``.
    scratch
        Train the usual small network on pixels too, with and without augmentation.
    seeds
        How many; where the data has no validation split each has a fold of its own.
    epochs
        At most, for fine-tuning.
    train_bn
        Train batch normalisation too when fine-tuning.
    progress
        Called with (stage, done, total).

    Raises
    ------
    HeadError
        If a head is unknown, a class has too few rows, or the folder holds results of other
        settings. A mode that cannot be run is noted as failed, and the others are run.
    LayerError
        If there is no such layer, or what is above one cannot be trained on its output alone.
    DataError
        If the data cannot be used.
    """
    entries = _entries(heads, finetune, scratch=scratch)
    cuts = [layer for layer in finetune if layer != "all"]
    layer = settings.layers[0] if settings.layers else Spec(weights="").layer
    check_layers([layer])
    if cuts:
        check_cuts(cuts)
    place = Path(folder)
    layers = tuple(dict.fromkeys([layer, *cuts]))
    wanted = dataclasses.replace(settings, layers=layers, pool="none")
    store, summary = fill_store(data, place / "features", wanted, progress=progress)
    pixels = decode_rows(store, summary.source, place, progress=progress)
    what = Bench(
        store=str(store.path),
        pixels=str(pixels),
        weights=str(store.catalog.settings["weights"]),
        layer=layer,
        epochs=epochs,
        train_bn=train_bn,
    )
    results = _Results(place / "bench.json", what, store)
    untimed = [name for name in layers if name not in results.cost.get("base_ms", {})]
    if untimed:
        results.keep(cost=next(in_child(_cost, what, untimed)))
    for mode, head, missing, done, total in _tasks(entries, range(seeds), results.records):
        if progress is not None:
            progress(f"benchmark ({mode} {head})", done, total)
        try:
            for record in in_child(modes.run_mode, what, mode, head, missing):
                results.keep(record)
        except HeadError as error:
            results.failed[f"{mode} {head}"] = str(error)
    found = results.benchmark(entries, range(seeds))
    (place / "bench.md").write_text(found.to_markdown(), encoding="utf-8")
    return found


def load(folder: str | os.PathLike[str]) -> Benchmark:
    """Return the results that a benchmark has kept in its folder.

    Raises
    ------
    HeadError
        If there are none, or the file is damaged.
    """
    path = Path(folder) / "bench.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        return Benchmark(
            records=tuple(Record(**record) for record in content["modes"]),
            rows=int(content["rows"]),
            trained=int(content["trained"]),
            layer=str(content["layer"]),
            classes=tuple(map(str, content["classes"])),
            resampled=bool(content["resampled"]),
            cost=dict(content["cost"]),
            failed={str(name): str(why) for name, why in content["failed"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HeadError(
            f"{path} holds no results of a benchmark ({error}): run headstart bench again"
        ) from error


def _entries(heads: Sequence[str], finetune: Sequence[str], *, scratch: bool) -> list[Entry]:
    """Return every mode and head to run, cheap ones first."""
    entries = [("majority", "-"), ("untrained", "ncm"), ("untrained", "softmax")]
    entries += [("frozen", head) for head in heads]
    entries += [(f"finetune:{layer}", "softmax") for layer in finetune]
    entries += [("scratch", "convnet"), ("scratch+augment", "convnet")] if scratch else []
    for mode, head in entries:
        modes.check_mode(mode, head)
    return entries


def _tasks(
    entries: Sequence[Entry], seeds: Iterable[int], records: Iterable[Record]
) -> Iterator[tuple[str, str, list[int], int, int]]:
    """Yield what is missing: mode, head, seeds, and which part of the whole is done by then."""
    have = {(record.mode, record.head, record.seed) for record in records}
    missing = {entry: [seed for seed in seeds if (*entry, seed) not in have] for entry in entries}
    costs = {entry: len(left) * _cost_of(entry[0]) for entry, left in missing.items()}
    done = 0
    for entry, left in missing.items():
        if left:
            yield *entry, left, done, sum(costs.values())
            done += costs[entry]


def _cost_of(mode: str) -> int:
    return _COST.get(mode, _COST["finetune"] if mode.startswith("finetune:") else 1)


class _Results:
    """What is known already, in a file that is swapped whole whenever something is added."""

    def __init__(self, path: Path, what: Bench, store: Store) -> None:
        rows = labelled_rows(store, None)
        self._path, self._store, self._rows = path, store, rows
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
        self.records = [Record(**record) for record in content.get("modes", [])]

    def keep(self, record: Record | None = None, *, cost: dict[str, Any] | None = None) -> None:
        """Add a result, or what the base costs up to some more layers."""
        self.records += [record] if record else []
        if cost:
            known = self.cost.get("base_ms", {})
            self.cost = cost | {"base_ms": known | cost["base_ms"]}
        content = {"settings": self._settings} | self._all().to_dict()
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
        draft.replace(self._path)

    def benchmark(self, entries: Sequence[Entry], seeds: Iterable[int]) -> Benchmark:
        """Return the results asked for; the file may hold others too."""
        wanted = set(itertools.product(entries, seeds))
        chosen = [r for r in self.records if ((r.mode, r.head), r.seed) in wanted]
        return dataclasses.replace(self._all(), records=tuple(chosen))

    def _all(self) -> Benchmark:
        return Benchmark(
            records=tuple(self.records),
            rows=len(self._rows.numbers),
            trained=self._trained,
            layer=self._layer,
            classes=self._store.classes,
            resampled=not self._rows.validation.any(),
            cost=self.cost,
            failed=self.failed,
        )

    def _refuse_others(self, theirs: dict[str, Any]) -> None:
        differing = [name for name, value in self._settings.items() if theirs.get(name) != value]
        if differing:
            raise HeadError(
                f"{self._path} holds results of other settings ({', '.join(differing)}): name "
                "another folder with -o, or remove the file"
            )


def _digest(rows: Labelled, classes: Sequence[str]) -> str:
    """Identify the labels, the split and what is kept together (hex)."""
    parts = [rows.numbers, rows.codes, rows.groups, rows.validation, rows.first_view]
    found = hashlib.sha256(json.dumps(list(classes)).encode())
    for part in parts:
        found.update(part.tobytes())
    return found.hexdigest()


def _cost(what: Bench, layers: list[str]) -> Iterator[dict[str, Any]]:
    yield modes.base_cost(what, layers)
