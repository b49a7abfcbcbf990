"""Figures of benchmarks and learning curves: data in, matplotlib figure out."""

# No pyplot: it keeps figures and chooses windows for the whole process.

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

from headstart.errors import MissingExtraError, install

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.heads.benchmark import Summary
    from headstart.heads.curve import Curve

#: By family of modes, a colour of Okabe and Ito's palette, which colour-blind people tell apart,
#: and a marker, for those who see no colour.
_LOOKS = {
    "baseline": ("#555555", "x"),
    "frozen": ("#0072B2", "o"),
    "fine-tuned": ("#D55E00", "s"),
    "from scratch": ("#009E73", "^"),
}
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GRID, _TEXT = "#dddddd", "#333333"
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.labelcolor": _TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.size": 10.0,
    "grid.color": _GRID,
    "svg.fonttype": "path",
    "svg.hashsalt": "headstart",
    "text.color": _TEXT,
    "text.parse_math": False,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}


def available() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def accuracies(summaries: Sequence[Summary]) -> Any:
    """Draw the accuracy of every mode and head, with its 95% interval, best first.

    Parameters
    ----------
    summaries : sequence of Summary
        As `Benchmark.summaries` returns them.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    figure, axes = _new(height=1.1 + 0.3 * len(summaries))
    seen: set[str] = set()
    for place, summary in enumerate(summaries):
        family = _family(summary.mode)
        low, high = summary.ci95
        colour, marker = _LOOKS[family]
        axes.errorbar(
            [summary.accuracy],
            [place],
            xerr=[[summary.accuracy - low], [high - summary.accuracy]],
            color=colour,
            marker=marker,
            capsize=3,
            linewidth=1.5,
            label="_" if family in seen else family,
        )
        seen.add(family)
    axes.set_yticks(range(len(summaries)), [name_of(s.mode, s.head) for s in summaries])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("accuracy, 95% interval")
    _legend(figure, axes)
    return figure


def trade_off(summaries: Sequence[Summary]) -> Any:
    """Draw accuracy against the seconds of one training, extraction included, and the front.

    On the front are those than which nothing quicker is as accurate. What takes no time at all
    (the majority) has no place on this scale.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    figure, axes = _new(height=4.2)
    timed = sorted((s for s in summaries if total_seconds(s) > 0), key=total_seconds)
    best = front(timed)
    axes.plot(
        [total_seconds(s) for s in best],
        [s.accuracy for s in best],
        color="#999999",
        linestyle="--",
        drawstyle="steps-post",
        label="nothing quicker is as accurate",
    )
    for family, (colour, marker) in _LOOKS.items():
        mine = [s for s in timed if _family(s.mode) == family]
        if mine:
            seconds, accuracy = [total_seconds(s) for s in mine], [s.accuracy for s in mine]
            axes.scatter(seconds, accuracy, color=colour, marker=marker, label=family, zorder=3)
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.12)
    _plain_ticks(axes)
    axes.set_xlabel("seconds: extraction, once, and one training")
    axes.set_ylabel("accuracy")
    _legend(figure, axes)
    _labelled(axes, timed)
    return figure


def learning_curves(curve: Curve) -> Any:
    """Draw accuracy against training rows, a line a mode or head, with 95% intervals.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    figure, axes = _new(height=4.2)
    names = list(dict.fromkeys(point.head for point in curve.points))
    for number, name in enumerate(names):
        mine = [point for point in curve.points if point.head == name]
        rows, accuracy = [point.rows for point in mine], [point.accuracy for point in mine]
        colour = _PALETTE[number % len(_PALETTE)]
        marker = _MARKERS[number % len(_MARKERS)]
        style = "-" if number < len(_PALETTE) else ":"
        axes.plot(rows, accuracy, style, color=colour, marker=marker, label=name)
        low, high = zip(*(point.ci95 for point in mine), strict=True)
        axes.fill_between(rows, low, high, color=colour, alpha=0.1, linewidth=0)
    sizes = sorted({point.rows for point in curve.points})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("training rows")
    axes.set_ylabel("accuracy, 95% interval")
    _legend(figure, axes)
    return figure


def svg(figure: Any) -> bytes:
    """Return a figure as SVG: of the same figure the same bytes."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def total_seconds(summary: Summary) -> float:
    """Return what a mode takes from decoded pictures to one trained head or network."""
    return summary.extract_seconds + summary.train_seconds


def front(timed: Sequence[Summary]) -> list[Summary]:
    """Return those than which nothing quicker, or as quick, is as accurate, quickest first."""
    best: list[Summary] = []
    for summary in sorted(timed, key=lambda s: (total_seconds(s), -s.accuracy)):
        if not best or summary.accuracy > best[-1].accuracy:
            best.append(summary)
    return best


def name_of(mode: str, head: str) -> str:
    """Return what a mode and its head are called beside a point.

    Examples
    --------
    >>> name_of("frozen", "svm"), name_of("finetune:mixed8", "softmax"), name_of("majority", "-")
    ('frozen svm', 'finetune:mixed8', 'majority')
    """
    named = mode.partition("+")[0] in ("frozen", "untrained")
    return f"{mode} {head}" if named else mode


def _family(mode: str) -> str:
    kind = mode.partition(":")[0].partition("+")[0]
    return {"frozen": "frozen", "finetune": "fine-tuned", "scratch": "from scratch"}.get(
        kind, "baseline"
    )


def _new(*, height: float) -> tuple[Any, Any]:
    """Return a figure and its axes."""
    if not available():
        raise MissingExtraError(f"plots need matplotlib; {install('plots')}")
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, height), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, figure.add_subplot()


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8.5, frameon=False)


def _plain_ticks(axes: Any) -> None:
    """Write seconds as numbers, not as powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def _labelled(axes: Any, timed: Sequence[Summary]) -> None:
    """Name every point, those of about the same place above each other."""
    figure = axes.figure
    figure.draw_without_rendering()
    taken: list[tuple[float, float]] = []
    for summary in sorted(timed, key=lambda s: -s.accuracy):
        x, y = axes.transData.transform((total_seconds(summary), summary.accuracy))
        wanted = y
        while any(abs(x - other) < 90 and abs(wanted - height) < 11 for other, height in taken):
            wanted -= 3
        taken.append((x, wanted))
        axes.annotate(
            name_of(summary.mode, summary.head),
            (total_seconds(summary), summary.accuracy),
            xytext=(12, (wanted - y) * 72 / figure.dpi),
            textcoords="offset points",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6, "shrinkB": 3},
        )
