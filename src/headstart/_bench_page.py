"""A benchmark as a page: its tables, its plots beside it, what ran it, when and on what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart import plots
from headstart._words import plain, plural
from headstart.errors import HeadError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from headstart.heads.benchmark import Benchmark

#: The first line of such a page, by which it is known.
MARK = "<!-- A benchmark, as headstart bench writes it: the next run overwrites this page. -->"


def check_page(path: str | os.PathLike[str]) -> Path:
    """Return where a page goes: into a folder that is there, over nothing but such a page.

    Raises
    ------
    HeadError
        If it is no Markdown file, its folder is not there, or another file is.
    """
    page = Path(path)
    if page.suffix != ".md" or not page.absolute().parent.is_dir():
        raise HeadError(f"a page is a .md file in a folder that exists; found {page}")
    if page.is_dir() or (page.is_file() and _first_line(page) != MARK):
        raise HeadError(f"{page} is there already and no benchmark's page: name another --page")
    return page


def write_page(found: Benchmark, page: Path, *, name: str, command: str) -> None:
    """Write the page, and beside it the plots where matplotlib is installed.

    Parameters
    ----------
    found
        What to show.
    page
        The file; its plots have its name and what they show.
    name
        Of the data.
    command
        That ran the benchmark; may be empty.
    """
    drawn = _draw(found, page) if plots.available() else {}
    page.write_text("\n".join(_lines(found, drawn, name, command)), encoding="utf-8")


def _draw(found: Benchmark, page: Path) -> dict[str, str]:
    """Write the plots; return the file name of each."""
    summaries, curve = found.summaries(), found.curve()
    figures = {"accuracy": plots.accuracies(summaries), "time": plots.trade_off(summaries)}
    if curve:
        figures["curve"] = plots.learning_curves(curve)
    for what, figure in figures.items():
        page.with_name(f"{page.stem}-{what}.svg").write_bytes(plots.svg(figure))
    return {what: f"{page.stem}-{what}.svg" for what in figures}


def _lines(found: Benchmark, drawn: dict[str, str], name: str, command: str) -> Iterator[str]:
    yield MARK
    yield f"# Frozen, fine-tuned, from scratch: {plain(name)}"
    yield ""
    rows, classes = plural(found.rows, "labelled row"), plural(len(found.classes), "class")
    yield f"{rows}, {classes}: {', '.join(map(plain, found.classes))}."
    if command:
        yield from ("", "```sh", plain(command), "```")
    for run in found.runs:
        versions = ", ".join(f"{what} {number}" for what, number in run["versions"].items())
        yield from ("", f"Run on {run['date']}, {run['machine']}; {versions}.")
    yield from ("", "## Results", "", found.to_markdown())
    if drawn:
        yield from (f"![Accuracy of every mode, with its interval]({drawn['accuracy']})", "")
        yield from (f"![Accuracy against seconds, extraction included]({drawn['time']})", "")
    curve = found.curve()
    if curve:
        yield from ("## Accuracy against training rows", "", curve.to_markdown())
        yield from (found.curve_notes(), "")
        if drawn:
            yield from (f"![Accuracy against training rows]({drawn['curve']})", "")


def _first_line(page: Path) -> str:
    with page.open("rb") as file:
        return file.read(len(MARK)).decode("utf-8", "replace")
