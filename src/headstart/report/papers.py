"""Figures and tables of a report as files for a paper: SVG and PDF, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from headstart._words import plain
from headstart.errors import HeadstartError
from headstart.report.drawing import table
from headstart.report.figures import drawings

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from headstart.report.content import Report

    Table = tuple[tuple[str, ...], ...]

_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def write_figures(report: Report, folder: str | os.PathLike[str]) -> list[Path]:
    """Write every figure as SVG and PDF, and every table as CSV and LaTeX.

    Parameters
    ----------
    report
        What a page shows.
    folder
        Made where missing; files of the same names are replaced.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    HeadstartError
        If `folder` is a file.
    MissingExtraError
        If matplotlib is not installed.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise HeadstartError(f"{place} is a file; --figures needs a folder")
    place.mkdir(parents=True, exist_ok=True)
    written = []
    for drawing in drawings(report):
        for kind in ("svg", "pdf"):
            path = place / f"{drawing.key}.{kind}"
            content = io.BytesIO()
            drawing.save(content, kind)
            path.write_bytes(content.getvalue())
            written.append(path)
    for key, rows in tables(report):
        for kind, text in (("csv", as_csv(rows)), ("tex", as_latex(rows))):
            path = place / f"{key}.{kind}"
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def tables(report: Report) -> Iterator[tuple[str, Table]]:
    """Yield every table by its name: the heads, and the numbers behind each figure."""
    header = (
        *("head", "accuracy", "95% from", "to", "balanced", "log loss", "calibration error"),
        *("fit s", "ms a picture", "p"),
    )
    heads = report.insight.comparison.heads
    rows = [
        (
            head.head,
            *(f"{value:.4f}" for value in (head.accuracy, *head.ci95, head.balanced_accuracy)),
            *("" if v is None else f"{v:.4f}" for v in (head.log_loss, head.calibration_error)),
            f"{head.fit_seconds:.3g}",
            f"{head.predict_ms_per_image:.3g}",
            "" if head.p_value is None else f"{head.p_value:.3g}",
        )
        for head in heads
    ]
    yield "heads", table(header, rows)
    for drawing in drawings(report):
        if drawing.table:
            yield drawing.key, drawing.table


def as_csv(rows: Table) -> str:
    """Return a table as CSV, headings first.

    Examples
    --------
    >>> print(as_csv((("class", "rows"), ('a "b", c', "2"))))
    class,rows
    "a ""b"", c",2
    <BLANKLINE>
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([map(plain, row) for row in rows])
    return text.getvalue()


def as_latex(rows: Table) -> str:
    r"""Return a table as LaTeX (with booktabs), headings first; every name is text.

    Examples
    --------
    >>> print(as_latex((("class", "share"), ("a_b & c", "50%"))))
    \begin{tabular}{lr}
    \toprule
    class & share \\
    \midrule
    a\_b \& c & 50\% \\
    \bottomrule
    \end{tabular}
    <BLANKLINE>
    """
    lines = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in plain(text))
