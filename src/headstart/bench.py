"""Frozen against fine-tuned against from scratch: run every mode, keep every result."""

from __future__ import annotations

import dataclasses
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart._bench_page import check_page, write_page
from headstart._bench_results import Results, Wanted
from headstart._tasks import Task, runner
from headstart.cache import Spec
from headstart.errors import HeadError, InterruptedRunError
from headstart.extract import Settings, Speed, fill_store
from headstart.extract.layers import check_cuts, check_layers
from headstart.extract.pixels import decode_rows
from headstart.heads import modes
from headstart.heads.benchmark import Benchmark
from headstart.heads.modes import Bench, Record

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from headstart._bench_results import Entry
    from headstart._tasks import Runner
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
    on: str = "",
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
    on
        Where to compute, as in `headstart.extract.Speed`: each mode is a task there, and each
        seed of one that trains a network. The pixels are decoded here, and every machine must
        see `folder`.
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
    ClusterError
        If there is no cluster where `on` says.
    InterruptedRunError
        If the user stopped the run; what is done is kept.
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
    speed = Speed(on=on)
    with _keeping(place), runner(on) as there:
        store, summary = fill_store(
            data, place / "features", wanted, speed=speed, progress=progress
        )
        pixels = decode_rows(store, summary.source, place, progress=progress)
        views = place.absolute() / "views" if settings.views else None
        if views is not None:  # a store of its own: what views cost is then known
            more = dataclasses.replace(settings, layers=(layer,), pool="none")
            fill_store(data, views, more, speed=speed, progress=progress)
        what = Bench(
            store=str(Path(store.path).absolute()),
            pixels=str(Path(pixels).absolute()),
            weights=str(store.catalog.settings["weights"]),
            layer=layer,
            epochs=epochs,
            train_bn=train_bn,
            views=str(views or ""),
        )
        results = Results(place / "bench.json", what, store, where=there.where)
        untimed = [name for name in layers if name not in results.cost.get("base_ms", {})]
        if untimed:
            _time(there, what, untimed, results)
        asked = Wanted(entries, range(seeds), learning, results.shares(range(seeds)))
        _run(there, what, results, asked, progress)
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


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Say what is kept, should the user stop the run."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"stopped: features and each result so far are kept in {folder}; run the same command "
            "again to go on"
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


def _time(there: Runner, what: Bench, layers: list[str], results: Results) -> None:
    """Measure what the base costs up to each layer."""
    for _, value in there.run([Task(_cost, (what, layers))]):
        if isinstance(value, HeadError):
            raise value
        if value is not None:
            results.keep(cost=value)


def _run(
    there: Runner, what: Bench, results: Results, wanted: Wanted, progress: Progress | None
) -> None:
    """Run what is missing; note what fails."""
    tasks: dict[Task, tuple[str, int]] = {}
    for (mode, head), points in wanted.missing(results.have):
        part = ", learning curve" if points[0][1] < 1 else ""
        run = modes.run_parts if part else modes.run_mode
        # Where a seed takes less than its process needs to start, all seeds share one.
        alone = there.apart and _cost_of(mode) > 1
        for share in [[one] for one in points] if alone else [points]:
            given = share if part else [seed for seed, _ in share]
            task = Task(run, (what, mode, head, given))
            tasks[task] = f"{mode} {head}{part}", len(share) * _cost_of(mode)
    total, done = sum(cost for _, cost in tasks.values()), 0
    part_of: dict[Task, int] = {}

    def tell(name: str) -> None:
        if progress is not None:
            progress(f"benchmark ({name})", done + sum(part_of.values()), total)

    for name, _ in list(tasks.values())[:1]:
        tell(name)
    for task, value in there.run(list(tasks)):
        name, cost = tasks[task]
        if value is None:
            done += cost
            part_of.pop(task, None)
        elif isinstance(value, HeadError):
            results.failed[name] = str(value)
        else:
            results.keep(value)
            part_of[task] = part_of.get(task, 0) + _cost_of(task.arguments[1])
        tell(name)


def _cost_of(mode: str) -> int:
    return _COST.get(mode, _COST["finetune"] if mode.startswith("finetune:") else 1)


def _cost(what: Bench, layers: list[str]) -> Iterator[dict[str, Any]]:
    yield modes.base_cost(what, layers)
