"""The comparison as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headstart.heads.comparison import Comparison
    from headstart.heads.evaluation import HeadResult

_SIGNIFICANT = 0.05
_HEADER = ("head", "accuracy", "95%", "balanced", "log loss", "ECE", "fit s", "ms/image", "chosen")


def lines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the table."""
    cells = [[*_HEADER, "against the best"]]
    cells += [_cells(result) for result in comparison.heads]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    pool = "" if comparison.pool == "none" else f", {comparison.pool}-pooled"
    yield (
        f"{comparison.store}: {comparison.layer}{pool}, {comparison.rows:,} rows, "
        f"{len(comparison.classes)} classes"
    )
    yield ""
    for line in cells:
        yield "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
    yield ""
    yield (
        f"Always answering {comparison.majority!r}, the largest class, would reach "
        f"{comparison.majority_accuracy:.3f}."
    )
    yield f"Extraction cost {comparison.extract_seconds:.1f} s, once."
    yield (
        f"Protocol: {comparison.protocol}; hyperparameters chosen inside the training part; "
        f"Wilson intervals on the pooled predictions of {comparison.evaluated:,} rows; "
        f"{comparison.test}, Holm's correction."
    )
    yield f"Heads were given: {comparison.features}."


def _cells(result: HeadResult) -> list[str]:
    """Return the cells of one line of the table."""
    low, high = result.ci95
    return [
        result.head,
        f"{result.accuracy:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{result.balanced_accuracy:.3f}",
        _number(result.log_loss),
        _number(result.calibration_error),
        f"{result.fit_seconds:.2f}",
        f"{result.predict_ms_per_image:.3f}",
        ", ".join(f"{name}={_short(value)}" for name, value in result.params.items()) or "-",
        _verdict(result.p_value),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _verdict(p_value: float | None) -> str:
    if p_value is None:
        return "best"
    sign = "worse" if p_value < _SIGNIFICANT else "not distinguishable"
    return f"{sign} (p={p_value:.2g})"
