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


#: Headings of the table that every folder of figures has, by which it is known.
_HEADS = (
    *("head", "accuracy", "95% from", "to", "balanced", "log loss", "calibration error"),
    *("fit s", "ms a picture", "p"),
)
_KINDS = (".svg", ".pdf", ".csv", ".tex")


def check_figures(folder: str | os.PathLike[str]) -> Path:
    """Return where figures go: beside no file of their kinds that an earlier report did not write.

    Raises
    ------
    HeadstartError
        If `folder` is a file, or has such files and no table of heads as a report writes it.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise HeadstartError(f"{place} is a file; --figures needs a folder")
    found = sorted(path for path in place.glob("*") if path.suffix.lower() in _KINDS)
    if found and not _is_ours(place / "heads.csv"):
        raise HeadstartError(
            f"{found[0]} is there already and is no figure of a report: name another folder"
        )
    return place


def _is_ours(heads: Path) -> bool:
    """Tell whether a file is a report's table of heads."""
    first = as_csv((_HEADS,)).encode()
    if not heads.is_file():
        return False
    with heads.open("rb") as file:
        return file.read(len(first)) == first


def write_figures(report: Report, folder: str | os.PathLike[str]) -> list[Path]:
    """Write every figure as SVG and PDF, and every table as CSV and LaTeX.

    Parameters
    ----------
    report
        What a page shows.
    folder
        Made where missing; files of an earlier report are replaced.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    HeadstartError
        If `folder` is a file, or has others' files of these kinds.
    MissingExtraError
        If matplotlib is not installed.
    """
    place = check_figures(folder)
    place.mkdir(parents=True, exist_ok=True)
    written = []
    for key, rows in tables(report):  # first that by which the folder is known
        for kind, text in (("csv", as_csv(rows)), ("tex", as_latex(rows))):
            path = place / f"{key}.{kind}"
            path.write_text(text, encoding="utf-8")
            written.append(path)
    for drawing in drawings(report):
        for kind in ("svg", "pdf"):
            path = place / f"{drawing.key}.{kind}"
            content = io.BytesIO()
            drawing.save(content, kind)
            path.write_bytes(content.getvalue())
            written.append(path)
    return written


def tables(report: Report) -> Iterator[tuple[str, Table]]:
    """Yield every table by its name: the heads, and the numbers behind each figure."""
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
    yield "heads", table(_HEADS, rows)
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
