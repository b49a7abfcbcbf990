"""Figures of what else may have been run: modes, layers, more pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headstart import _words
from headstart.report.drawing import (
    MUTED,
    Drawing,
    colour,
    marker,
    percent_axis,
    shown,
    table,
)
from headstart.report.figures import accuracy_drawing, tradeoff_drawing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headstart.heads.benchmark import Benchmark, Summary
    from headstart.heads.curve import Curve
    from headstart.heads.sweep import Sweep

_SIGNIFICANT = 0.05


def bench_answer(found: Benchmark) -> Iterator[str]:
    """Say whether training some of the base was worth it."""
    modes = found.summaries()
    if not modes:
        return
    best = modes[0]
    yield (
        f"Best is {_name(best)}: {best.accuracy:.1%} ({best.ci95[0]:.1%} to {best.ci95[1]:.1%}), "
        f"{_words.seconds(_total(best))} of extraction and training."
    )
    others = {"frozen": "a frozen base", "finetune": "fine-tuning", "scratch": "from scratch"}
    for kind, words in others.items():
        mine = [one for one in modes if one.mode.startswith(kind)]
        if mine and mine[0] is not best:
            yield (
                f"The best of {words}, {_name(mine[0])}, reaches {mine[0].accuracy:.1%} in "
                f"{_words.seconds(_total(mine[0]))}{_verdict(mine[0])}."
            )
    if found.cost:
        paid = found.break_even()
        yield (
            f"Extraction has paid for itself after {paid['trainings']:.2g} trainings: running the "
            f"usual base in each of {paid['epochs']:.0f} epochs takes "
            f"{_words.seconds(paid['usual_seconds'])}."
        )
    for name, why in found.failed.items():
        yield f"{name} failed: {why}"


def _name(one: Summary) -> str:
    return one.mode if one.head == "-" else f"{one.mode} {one.head}"


def _total(one: Summary) -> float:
    return one.extract_seconds + one.train_seconds


def _verdict(one: Summary) -> str:
    if one.p_value is None:
        return ""
    return ", worse than the best" if one.p_value < _SIGNIFICANT else ", not distinguishable"


def bench_drawings(found: Benchmark) -> Iterator[Drawing]:
    """Yield accuracy of every mode, and accuracy against all the time it takes."""
    modes = found.summaries()
    base = next((one.accuracy for one in modes if one.mode == "majority"), 0.0)
    measured = [
        (_name(one), one.accuracy, one.ci95, _total(one)) for one in modes if one.mode != "majority"
    ]
    if not measured:
        return
    yield accuracy_drawing("modes", "Accuracy of each mode", measured, base)
    yield tradeoff_drawing(
        "modes-time",
        "Accuracy against total time",
        measured,
        "seconds of extraction and training",
        "Higher is better, further left is faster. The line joins the modes than which no faster "
        "one is as accurate. Extraction is counted in full for each mode that needs it, although "
        "they share it.",
    )
    curve = found.curve()
    if curve is not None:
        title = "Accuracy of modes against training pictures"
        yield replace(curve_drawing(curve), key="modes-curve", title=title)


def curve_drawing(found: Curve) -> Drawing:
    """Return accuracy against the number of training pictures."""
    heads = list(dict.fromkeys(point.head for point in found.points))

    def draw(axes: Any) -> None:
        for number, head in enumerate(heads):
            mine = [point for point in found.points if point.head == head]
            x = [point.rows for point in mine]
            axes.fill_between(
                x,
                [point.ci95[0] for point in mine],
                [point.ci95[1] for point in mine],
                color=colour(number),
                alpha=0.12,
                linewidth=0,
            )
            axes.plot(
                x,
                [point.accuracy for point in mine],
                color=colour(number),
                marker=marker(number),
                markersize=5,
                label=shown(head, 18),
            )
        sizes = sorted({point.rows for point in found.points})
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("training pictures")
        axes.set_ylabel("accuracy")
        percent_axis(axes.yaxis)
        axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)

    gains = "; ".join(f"{head} {100 * found.gain(head):+.1f} points" for head in heads)
    return Drawing(
        key="curve",
        title="What more pictures would buy",
        alt=f"Accuracy against training pictures. The last doubling changed: {gains}.",
        note=f"The last doubling of the training pictures changed accuracy by: {gains}. Where the "
        "line still rises, more pictures help more than another head would.",
        draw=draw,
        table=table(
            ("head", "training pictures", "accuracy", "95%"),
            [
                (p.head, p.rows, f"{p.accuracy:.3f}", f"{p.ci95[0]:.3f}-{p.ci95[1]:.3f}")
                for p in found.points
            ],
        ),
    )


def sweep_drawing(found: Sweep) -> Drawing:
    """Return accuracy at every layer, flat and pooled."""
    layers = list(dict.fromkeys(cut.layer for cut in found.cuts))
    pools = list(dict.fromkeys(cut.pool for cut in found.cuts))

    def draw(axes: Any) -> None:
        for number, pool in enumerate(pools):
            mine = [cut for cut in found.cuts if cut.pool == pool]
            x = [layers.index(cut.layer) + 0.08 * number for cut in mine]
            axes.vlines(
                x,
                [cut.ci95[0] for cut in mine],
                [cut.ci95[1] for cut in mine],
                color=colour(number),
                linewidth=1,
                alpha=0.6,
            )
            name = "all numbers" if pool == "none" else f"{pool}-pooled"
            axes.plot(
                x,
                [cut.accuracy for cut in mine],
                color=colour(number),
                marker=marker(number),
                markersize=5,
                linewidth=1.2,
                label=name,
            )
        axes.axvline(
            layers.index(found.best.layer), color=MUTED, linestyle=(0, (3, 3)), linewidth=1
        )
        axes.set_xticks(range(len(layers)), layers, rotation=45, ha="right")
        axes.set_ylabel("accuracy of logistic regression")
        percent_axis(axes.yaxis)
        axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)

    best = found.best
    worth = ", ".join(
        f"{cut.layer}{'' if cut.pool == 'none' else f' {cut.pool}-pooled'}"
        for cut in found.cuts
        if cut.worth
    )
    rows = [
        (
            cut.layer,
            cut.pool,
            f"{cut.bytes_per_image:,}",
            f"{cut.accuracy:.3f}",
            f"{cut.ci95[0]:.3f}-{cut.ci95[1]:.3f}",
            "yes" if cut.worth else "",
        )
        for cut in found.cuts
    ]
    return Drawing(
        key="sweep",
        title="Which layer to cut at",
        alt=f"Accuracy at each layer; highest at {best.layer} ({best.pool}), {best.accuracy:.1%}.",
        note=f"Dashed: the highest, {best.layer}, of many close ones: mind the intervals. Worth "
        f"their bytes (nothing smaller is as accurate): {worth}.",
        draw=draw,
        table=table(("layer", "pooling", "bytes", "accuracy", "95%", "worth its bytes"), rows),
    )
