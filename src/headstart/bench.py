"""Frozen against fine-tuned against from scratch: run every mode, keep every result."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart._bench_page import check_page, write_page
from headstart._bench_results import Results, Wanted
from headstart._child import in_child
from headstart.cache import Spec
from headstart.errors import HeadError
from headstart.extract import Settings, fill_store
from headstart.extract.layers import check_cuts, check_layers
from headstart.extract.pixels import decode_rows
from headstart.heads import modes
from headstart.heads.benchmark import Benchmark
from headstart.heads.modes import Bench, Record

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from headstart._bench_results import Entry
    from headstart.cache import Progress

HEADS = ("logreg", "svm", "ridge", "knn", "dense")
FINETUNE = ("mixed9", "mixed8", "mixed7", "all")
_UNTRAINED = ("majority", "untrained")
#: About how long one seed of each takes, in parts of a frozen head's time.
_COST = {"finetune": 40, "finetune:all": 150, "scratch": 50, "scratch+augment": 60}


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
    curve: bool | Sequence[str] = False,
    page: str | os.PathLike[str] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Benchmark:
    """Run frozen, fine-tuned and from-scratch modes on the same rows, splits and seeds.

    What lies below the lowest trained layer is computed once and kept in ``folder/features``;
    each result is kept in ``folder/bench.json`` as it is there, so that a benchmark that was
    stopped goes on where it was. In the end the table and its plots are in ``folder/bench.md``.

    Parameters
    ----------
    data
        A class folder or a manifest, as for `headstart.extract`.
    folder
        Where features, pixels and results go.
    settings
        Of the extraction; the first of its layers is what frozen heads are trained on. With views,
        frozen heads are trained a second time, on augmented views as well.
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
    curve
        Modes to train on a sixteenth, an eighth, ... of the training rows too; if True, the frozen
        heads, the first of `finetune` that is a layer, and ``scratch``.
    page
        A Markdown file to write what is in ``folder/bench.md`` to as well, its plots beside it.
    command
        That ran this, for the page.
    progress
        Called with (stage, done, total).

    Raises
    ------
    HeadError
        If a head is unknown, a class has too few rows, the folder holds results of other
        settings, or `page` is there and no benchmark's. A mode that cannot be run is noted as
        failed, and the others are run.
    LayerError
        If there is no such layer, or what is above one cannot be trained on its output alone.
    DataError
        If the data cannot be used.
    """
    entries = _entries(heads, finetune, scratch=scratch, views=settings.views or 0)
    learning = _learning(entries, curve)
    cuts = [layer for layer in finetune if layer != "all"]
    layer = settings.layers[0] if settings.layers else Spec(weights="").layer
    check_layers([layer])
    if cuts:
        check_cuts(cuts)
    place = Path(folder)
    pages = [place / "bench.md", *([] if page is None else [check_page(page)])]
    layers = tuple(dict.fromkeys([layer, *cuts]))
    wanted = dataclasses.replace(settings, layers=layers, pool="none", views=0, augment=None)
    store, summary = fill_store(data, place / "features", wanted, progress=progress)
    pixels = decode_rows(store, summary.source, place, progress=progress)
    views = place / "views" if settings.views else None
    if views is not None:  # a store of its own: what views cost is then known
        more = dataclasses.replace(settings, layers=(layer,), pool="none")
        fill_store(data, views, more, progress=progress)
    what = Bench(
        store=str(store.path),
        pixels=str(pixels),
        weights=str(store.catalog.settings["weights"]),
        layer=layer,
        epochs=epochs,
        train_bn=train_bn,
        views=str(views or ""),
    )
    results = Results(place / "bench.json", what, store)
    untimed = [name for name in layers if name not in results.cost.get("base_ms", {})]
    if untimed:
        results.keep(cost=next(in_child(_cost, what, untimed)))
    asked = Wanted(entries, range(seeds), learning, results.shares(range(seeds)))
    _run(what, results, asked, progress)
    found = results.benchmark(asked)
    for file in pages:
        write_page(found, file, name=Path(data).absolute().name, command=command)
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
            parts=tuple(Record(**record) for record in content.get("curve", [])),
            runs=tuple(content.get("runs", [])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HeadError(
            f"{path} holds no results of a benchmark ({error}): run headstart bench again"
        ) from error


def _entries(
    heads: Sequence[str], finetune: Sequence[str], *, scratch: bool, views: int = 0
) -> list[Entry]:
    """Return every mode and head to run, cheap ones first."""
    entries = [("majority", "-"), ("untrained", "ncm"), ("untrained", "softmax")]
    entries += [("frozen", head) for head in heads]
    entries += [(f"frozen+{views}views", head) for head in heads if views]
    entries += [(f"finetune:{layer}", "softmax") for layer in finetune]
    entries += [("scratch", "convnet"), ("scratch+augment", "convnet")] if scratch else []
    for mode, head in entries:
        modes.check_mode(mode, head)
    return entries


def _learning(entries: Sequence[Entry], curve: bool | Sequence[str]) -> tuple[Entry, ...]:
    """Return the modes and heads to draw a learning curve of."""
    trained = list(dict.fromkeys(mode for mode, _ in entries if mode not in _UNTRAINED))
    cuts = [m for m in trained if m.startswith("finetune:") and m != "finetune:all"]
    usual = [mode for mode in ("frozen", *cuts[:1], "scratch") if mode in trained]
    wanted = usual if curve is True else curve or ()
    for mode in wanted:
        if mode not in trained:
            raise HeadError(
                f"no learning curve of {mode!r}: this benchmark trains {', '.join(trained)}"
            )
    return tuple(entry for entry in entries if entry[0] in wanted)


def _run(what: Bench, results: Results, wanted: Wanted, progress: Progress | None) -> None:
    """Run what is missing, each mode in a process of its own; note what fails."""
    tasks = list(wanted.missing(results.have))
    total = sum(len(points) * _cost_of(mode) for (mode, _), points in tasks)
    done = 0
    for (mode, head), points in tasks:
        part = ", learning curve" if points[0][1] < 1 else ""
        run = modes.run_parts if part else modes.run_mode
        given = points if part else [seed for seed, _ in points]
        end = done + len(points) * _cost_of(mode)
        try:
            if progress is not None:
                progress(f"benchmark ({mode} {head}{part})", done, total)
            for record in in_child(run, what, mode, head, given):
                results.keep(record)
                done += _cost_of(mode)
                if progress is not None:
                    progress(f"benchmark ({mode} {head}{part})", done, total)
        except HeadError as error:
            results.failed[f"{mode} {head}{part}"] = str(error)
        done = end


def _cost_of(mode: str) -> int:
    return _COST.get(mode, _COST["finetune"] if mode.startswith("finetune:") else 1)


def _cost(what: Bench, layers: list[str]) -> Iterator[dict[str, Any]]:
    yield modes.base_cost(what, layers)
