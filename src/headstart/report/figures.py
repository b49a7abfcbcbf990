"""Which figures a report has, and what each draws."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart import _words
from headstart.report.drawing import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SQUARE,
    WIDE,
    Drawing,
    colour,
    marker,
    name_points,
    percent_axis,
    shown,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headstart.report.content import ClassScore, Confusion, Insight, Map, Report, Trust

#: A line of the accuracy figure: name, accuracy, interval, seconds.
Measured = tuple[str, float, tuple[float, float], float]
_MOST_CLASSES = 24
_FEW = 10  # pictures of which a share says little


def drawings(report: Report) -> Iterator[Drawing]:
    """Yield every figure that there is something to draw for."""
    yield from heads_drawings(report)
    if report.bench is not None:
        from headstart.report.others import bench_drawings

        yield from bench_drawings(report.bench)
    yield from insight_drawings(report.insight)
    if report.curve is not None:
        from headstart.report.others import curve_drawing

        yield curve_drawing(report.curve)
    if report.sweep is not None:
        from headstart.report.others import sweep_drawing

        yield sweep_drawing(report.sweep)


def heads_drawings(report: Report) -> Iterator[Drawing]:
    """Yield accuracy of every head, and accuracy against time."""
    heads = report.insight.comparison.heads
    measured = [(head.head, head.accuracy, head.ci95, head.fit_seconds) for head in heads]
    base = report.insight.comparison.majority_accuracy
    yield accuracy_drawing("accuracy", "Accuracy of each head", measured, base)
    if len(measured) > 1:
        yield tradeoff_drawing(
            "tradeoff",
            "Accuracy against time",
            measured,
            "seconds for one fit, its choices included",
            "Higher is better, further left is faster. The line joins the heads than which no "
            "faster one is as accurate. Extraction, "
            f"{_words.seconds(report.facts.extract_seconds)} once, is the same for all.",
        )


def insight_drawings(found: Insight) -> Iterator[Drawing]:
    """Yield what a comparison shows beyond its table."""
    yield _classes_drawing(found.classes)
    best = next(iter(found.confusions))
    yield confusion_drawing(best)
    if found.curves:
        yield _roc_drawing(found)
    if found.trust:
        yield _trust_drawing(found.trust)
    for place in found.maps:
        yield map_drawing(place, found.comparison.classes)


def accuracy_drawing(key: str, title: str, measured: Sequence[Measured], base: float) -> Drawing:
    """Return accuracies with their intervals, one line each."""

    def draw(axes: Any) -> None:
        for number, (_, accuracy, (low, high), _) in enumerate(measured):
            axes.plot([low, high], [number, number], color=colour(0), linewidth=2.2)
            axes.plot(accuracy, number, marker="o", color=colour(0), markersize=6)
            axes.annotate(
                f"{accuracy:.1%}",
                (high, number),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=INK,
            )
        axes.axvline(base, color=MUTED, linestyle=(0, (3, 3)), linewidth=1)
        axes.set_yticks(range(len(measured)), [shown(name, 26) for name, *_ in measured])
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.set_ylim(len(measured) - 0.5, -0.5)
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
        percent_axis(axes.xaxis)
        axes.set_xlabel("accuracy; dashed: always the most frequent class")

    rows = [(n, f"{a:.3f}", f"{low:.3f}", f"{high:.3f}") for n, a, (low, high), _ in measured]
    listed = "; ".join(
        f"{n} {a:.1%} ({low:.1%} to {high:.1%})" for n, a, (low, high), _ in measured
    )
    return Drawing(
        key=key,
        title=title,
        alt=f"Accuracy with 95% intervals: {listed}. The most frequent class alone: {base:.1%}.",
        note="Dots are accuracies on pictures not trained on, bars their 95% intervals (Wilson).",
        draw=draw,
        size=(WIDE[0], max(1.6, 0.9 + 0.34 * len(measured))),
        table=table(("", "accuracy", "95% from", "to"), rows),
    )


def front(measured: Sequence[Measured]) -> list[int]:
    """Return those than which nothing faster is as accurate, the fastest first.

    Examples
    --------
    >>> front([("a", 0.7, (0, 1), 3.0), ("b", 0.6, (0, 1), 1.0), ("c", 0.5, (0, 1), 2.0)])
    [1, 0]
    """
    order = sorted(range(len(measured)), key=lambda i: (measured[i][3], -measured[i][1]))
    kept: list[int] = []
    for number in order:
        if not kept or measured[number][1] > measured[kept[-1]][1]:
            kept.append(number)
    return kept


def tradeoff_drawing(
    key: str, title: str, measured: Sequence[Measured], axis: str, note: str
) -> Drawing:
    """Return accuracy against time, with the front of what is worth its time."""
    best = front(measured)

    def draw(axes: Any) -> None:
        times = [max(seconds, 1e-3) for *_, seconds in measured]
        axes.plot(
            [times[i] for i in best], [measured[i][1] for i in best], color=MUTED, linewidth=1
        )
        for number, (_, accuracy, (low, high), _) in enumerate(measured):
            tone = colour(0) if number in best else MUTED
            axes.plot([times[number]] * 2, [low, high], color=tone, linewidth=1, alpha=0.6)
            axes.plot(times[number], accuracy, marker=marker(number), color=tone, linestyle="none")
        axes.set_xscale("log")
        axes.margins(x=0.2, y=0.1)
        named = [(shown(name, 24), accuracy) for name, accuracy, *_ in measured]
        name_points(axes, [(n, (x, y)) for (n, y), x in zip(named, times, strict=True)])
        axes.set_xticks(_ticks(*axes.get_xlim()))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
        axes.set_xlabel(axis)
        axes.set_ylabel("accuracy")
        percent_axis(axes.yaxis)

    listed = ", ".join(f"{measured[i][0]} ({measured[i][3]:.2g} s)" for i in best)
    return Drawing(
        key=key,
        title=title,
        alt=f"Accuracy against time. Worth their time, fastest first: {listed}.",
        note=note,
        draw=draw,
        table=table(
            ("", "seconds", "accuracy"), [(n, f"{s:.3g}", f"{a:.3f}") for n, a, _, s in measured]
        ),
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two on a logarithmic axis: few, and two at least.

    Examples
    --------
    >>> _ticks(0.7, 3.5)
    [1.0, 2.0]
    >>> _ticks(0.05, 700)
    [0.1, 1.0, 10.0, 100.0]
    >>> _ticks(1.2, 1.7)
    [1.3, 1.4, 1.5, 1.6]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        marks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        found = [mark for mark in marks if low <= mark <= high]
        if len(found) >= (3 if len(steps) < 3 else 2):
            return found
    from matplotlib.ticker import MaxNLocator

    even = [float(mark) for mark in MaxNLocator(4).tick_values(low, high)]
    return [round(mark, 10) for mark in even if low <= mark <= high]


def _classes_drawing(classes: Sequence[ClassScore]) -> Drawing:
    some = classes[:_MOST_CLASSES]

    def draw(axes: Any) -> None:
        for number, score in enumerate(some):
            axes.plot(score.ci95, [number, number], color=colour(0), linewidth=2)
            axes.plot(score.recall, number, marker="o", color=colour(0), markersize=5)
            if score.precision is not None:
                axes.plot(
                    score.precision,
                    number,
                    marker="D",
                    color=colour(1),
                    markersize=4.5,
                    linestyle="none",
                )
        axes.plot([], [], marker="o", color=colour(0), label="recognised, with its interval")
        axes.plot([], [], marker="D", color=colour(1), linestyle="none", label="right when named")
        names = [f"{shown(score.name)} ({score.rows:,})" for score in some]
        axes.set_yticks(range(len(some)), names)
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.set_ylim(len(some) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        percent_axis(axes.xaxis)
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)

    rows = [
        (
            score.name,
            score.rows,
            f"{score.recall:.3f}",
            f"{score.ci95[0]:.3f}-{score.ci95[1]:.3f}",
            "-" if score.precision is None else f"{score.precision:.3f}",
            "-" if score.area is None else f"{score.area:.3f}",
        )
        for score in classes
    ]
    weakest = "; ".join(f"{score.name} {score.recall:.1%}" for score in some[:4])
    header = ("class", "pictures", "recognised", "95%", "right when named", "area below ROC")
    return Drawing(
        key="classes",
        title="Which classes are hard",
        alt=f"Share of each class that is recognised, the hardest first: {weakest}.",
        note="Recognised: of the class's pictures (recall). Right when named: of the pictures the "
        "head gave this class (precision).",
        draw=draw,
        size=(WIDE[0], max(1.9, 1.1 + 0.26 * len(some))),
        table=table(header, rows),
    )


def confusion_drawing(found: Confusion) -> Drawing:
    """Return a confusion matrix as a heat map, for papers."""

    def draw(axes: Any) -> None:
        share = np.array([[cell.share for cell in line] for line in found.cells])
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i, line in enumerate(found.cells):
            for j, cell in enumerate(line):
                if cell.count:
                    tone = PAPER if cell.share > 0.55 else INK
                    axes.text(
                        j, i, str(cell.count), ha="center", va="center", color=tone, fontsize=7.5
                    )
        names = [shown(name, 14) for name in found.classes]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False)
        axes.set_xlabel("answer")
        axes.set_ylabel("label")

    most = "; ".join(f"{cell.count} {cell.true} taken for {cell.guess}" for cell in found.most[:4])
    return Drawing(
        key="confusion",
        title=f"Confusion matrix of {found.head}",
        alt=f"Most frequent confusions: {most or 'none'}.",
        note="Rows are labels, columns answers.",
        draw=draw,
        size=SQUARE,
        table=table(
            ("label \\ answer", *found.classes),
            [
                (name, *(cell.count for cell in line))
                for name, line in zip(found.classes, found.cells, strict=True)
            ],
        ),
    )


def _roc_drawing(found: Insight) -> Drawing:
    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
        for number, (name, curve) in enumerate(found.curves):
            step = max(1, len(curve.false) // 150)
            keep = np.unique(np.r_[np.arange(0, len(curve.false), step), len(curve.false) - 1])
            axes.plot(
                curve.false[keep],
                curve.true[keep],
                color=colour(number),
                marker=marker(number),
                markevery=(0.1 + 0.02 * number, 0.2),
                markersize=4,
                linewidth=1.4,
                label=f"{shown(name, 18)} {curve.area:.3f}",
            )
        axes.set_xlabel("false alarms, of the other classes")
        axes.set_ylabel("found, of the class")
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis)
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)

    areas = "; ".join(f"{name} {curve.area:.3f}" for name, curve in found.curves)
    return Drawing(
        key="roc",
        title="One class against the rest (ROC)",
        alt=f"Area below the curve, hardest class first: {areas}.",
        note="How many pictures of a class are found for how many false alarms, as the threshold "
        "on its probability falls; the number is the area below (0.5: chance, 1: perfect)"
        + ("; the hardest classes." if len(found.classes) > len(found.curves) else "."),
        draw=draw,
        size=SQUARE,
        table=table(
            ("class", "area below"), [(name, f"{curve.area:.3f}") for name, curve in found.curves]
        ),
    )


def _trust_drawing(trust: Sequence[Trust]) -> Drawing:
    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for number, one in enumerate(trust):
            bins = [bin_ for bin_ in one.bins if bin_.rows >= _FEW] or one.bins
            axes.plot(
                [bin_.confidence for bin_ in bins],
                [bin_.accuracy for bin_ in bins],
                color=colour(number),
                marker=marker(number),
                markersize=4.5,
                linewidth=1.3,
                label=shown(one.head, 18),
            )
        axes.set_xlabel("probability the head gave its answer")
        axes.set_ylabel("share that was right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis)
        axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)

    rows = [
        (one.head, f"{bin_.confidence:.3f}", f"{bin_.accuracy:.3f}", bin_.rows)
        for one in trust
        for bin_ in one.bins
    ]
    return Drawing(
        key="reliability",
        title="Can the probabilities be trusted?",
        alt="Share of right answers against the probability that was given: "
        + "; ".join(_trusted(one) for one in trust)
        + ".",
        note="On the dashed line, 80% sure means right 80% of the time. Below it a head is too "
        "sure of itself, above it too modest. Points of fewer than "
        f"{_FEW} pictures are in the table alone.",
        draw=draw,
        size=SQUARE,
        table=table(("head", "probability", "right", "pictures"), rows),
    )


def _trusted(one: Trust) -> str:
    rows = sum(bin_.rows for bin_ in one.bins)
    gap = sum((bin_.confidence - bin_.accuracy) * bin_.rows for bin_ in one.bins) / rows
    kind = "too sure" if gap > 0.02 else "too modest" if gap < -0.02 else "about right"
    return f"{one.head} is {kind} ({abs(gap):.1%} off on the whole)"


def map_drawing(place: Map, classes: Sequence[str]) -> Drawing:
    """Return rows as points, coloured and shaped by class."""
    groups = _groups(place, len(classes))

    def draw(axes: Any) -> None:
        for number, (codes, members) in enumerate(groups):
            name = shown(classes[codes[0]], 18) if len(codes) == 1 else f"{len(codes)} others"
            points = axes.scatter(
                place.points[members, 0],
                place.points[members, 1],
                s=13,
                color=colour(number),
                marker=marker(number),
                linewidths=0,
                alpha=0.75,
                label=name,
                clip_on=False,
            )
            points.set_gid(f"points-{number}")
        axes.set_xticks([])
        axes.set_yticks([])
        if place.shares:
            axes.set_xlabel(f"first principal component ({place.shares[0]:.0%} of the variance)")
            axes.set_ylabel(f"second ({place.shares[1]:.0%})")
        axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, markerscale=1.5)

    linear = bool(place.shares)
    title = "Map: principal components" if linear else "Map: neighbourhoods"
    note = (
        "The two directions in which the features differ most, of very many: classes that "
        "overlap here may well be apart in others."
        if linear
        else "Made so that neighbours stay neighbours (t-SNE): who lies beside whom has a "
        "meaning, distances between groups have none."
    )
    return Drawing(
        key=place.key,
        title=title,
        alt=f"{len(place.rows):,} pictures as points, coloured by class. {note}",
        note=f"{note} Each point is a picture: hover, tap, or use the arrow keys.",
        draw=partial(draw),
        size=SQUARE,
        points=tuple(tuple(place.rows[i] for i in members) for _, members in groups),
    )


def _groups(place: Map, classes: int) -> list[tuple[list[int], list[int]]]:
    """Return classes and the places of their points: the largest alone, the rest together."""
    counts = np.bincount(place.codes, minlength=classes)
    order = [int(code) for code in np.argsort(-counts, kind="stable") if counts[code]]
    alone = sorted(order[:8] if len(order) <= 8 else order[:7])
    rest = [code for code in order if code not in alone]
    groups = [[code] for code in alone] + ([rest] if rest else [])
    return [(codes, np.flatnonzero(np.isin(place.codes, codes)).tolist()) for codes in groups]
