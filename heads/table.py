"""The comparison as a table for a terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headstart.heads.comparison import Comparison
    from headstart.heads.evaluation import HeadResult

_SIGNIFICANT = 0.05
_WIDTH = 100
HEADER = (
    "head",
    "accuracy (95%)",
    "balanced",
    "log loss",
    "ECE",
    "fit s",
    "ms/img",
    "against the best",
)


def lines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the table."""
    rows = [list(HEADER), *map(cells, comparison.heads)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pool = "" if comparison.pool == "none" else f", {comparison.pool}-pooled"
    yield (
        f"{comparison.store}: {comparison.layer}{pool}, {comparison.rows:,} rows, "
        f"{len(comparison.classes)} classes"
    )
    yield ""
    for line in rows:
        yield "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
    yield ""
    for note in notes(comparison):
        yield from textwrap.wrap(note, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def notes(comparison: Comparison) -> Iterator[str]:
    """Yield what a reader should know of the numbers."""
    chosen = [_chosen(result) for result in comparison.heads if result.params]
    if chosen:
        folds = len(comparison.heads[0].params_by_fold)
        where = f", in {folds} folds from least to most" if folds > 1 else ""
        yield f"Chosen inside the training part{where}: {'; '.join(chosen)}."
    yield (
        f"Always answering {comparison.majority!r}, the most frequent class of the training part, "
        f"would reach {comparison.majority_accuracy:.3f}."
    )
    yield f"Protocol: {comparison.protocol}; {comparison.evaluated:,} rows measured."
    yield (
        f"95%: Wilson's interval. Against the best: {comparison.test}, Holm's correction. ECE: "
        "expected calibration error, the mean distance between confidence and accuracy. Fit s: one "
        f"fit and its choices. Ms/img: from features to the answer{_included(comparison)}."
    )
    yield f"Heads were given: {comparison.features}."
    yield (
        f"The comparison took {comparison.seconds:.1f} s; extraction cost "
        f"{comparison.extract_seconds:.1f} s, {extraction(comparison)}."
    )


def extraction(comparison: Comparison) -> str:
    """Return of what the cost of extraction is: of the store, not of one layer or run."""
    layers = len(comparison.evidence.store.layers)
    return f"once, all runs{f' and all {layers} layers' if layers > 1 else ''} together"


def _included(comparison: Comparison) -> str:
    spaces = any(result.form == "row space" for result in comparison.heads)
    return ", row-space coordinates included" if spaces else ""


def cells(result: HeadResult) -> list[str]:
    """Return the cells of one line of the table."""
    low, high = result.ci95
    return [
        result.head,
        f"{result.accuracy:.3f} ({low:.3f}-{high:.3f})",
        f"{result.balanced_accuracy:.3f}",
        _number(result.log_loss),
        _number(result.calibration_error),
        f"{result.fit_seconds:.2f}",
        f"{result.predict_ms_per_image:.2f}",
        _verdict(result.p_value),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _chosen(result: HeadResult) -> str:
    """Return what a head chose; where folds disagree, from the least to the most."""
    settings = []
    for name in result.params:
        values = sorted({params[name] for params in result.params_by_fold})
        ends = dict.fromkeys((_short(values[0]), _short(values[-1])))
        settings.append(f"{name}={' to '.join(ends)}")
    return f"{result.head} {', '.join(settings)}"


def _short(value: Any) -> str:
    """Return three digits of a number, without an exponent where it reads well without one."""
    return f"{float(f'{value:.3g}'):g}" if isinstance(value, float) else str(value)


def _verdict(p_value: float | None) -> str:
    if p_value is None:
        return "best"
    sign = "worse" if p_value < _SIGNIFICANT else "not distinguishable"
    return f"{sign} (p={p_value:.2g})"
