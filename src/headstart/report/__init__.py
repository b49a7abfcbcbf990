"""The page people look at: what a comparison, a sweep or a benchmark found, in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.cache import Progress
    from headstart.heads.comparison import Comparison
    from headstart.heads.sweep import Sweep
    from headstart.report.content import Report

__all__ = ["MARK", "check_target", "report", "write_report"]

#: In the head of every page, by which it is known.
MARK = '<meta name="generator" content="Headstart">'
#: Bytes of a page within which that is.
_HEAD = 2000

#: Where `headstart bench` keeps the features of its pictures.
_BENCH_FEATURES = "features"


def report(
    path: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    curve: bool = False,
    sweep: Sweep | bool = False,
    tsne: bool = False,
    data: str | os.PathLike[str] | None = None,
    figures: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Compare heads on a store, or on the features of a benchmark, and write the page.

    Parameters
    ----------
    path
        A store, or the folder of ``headstart bench``, whose modes are shown too.
    file
        The page, a .html file; another one of ours is replaced, and nothing else.
    curve
        Also train on growing parts of the rows.
    sweep
        A sweep of the store's layers; True to judge them now.
    tsne
        Also make a map that keeps neighbours together; takes seconds.
    data
        Where the pictures are; where they were at the last extraction by default.
    figures
        A folder for the figures as SVG and PDF and the tables as CSV and LaTeX; files of these
        kinds in it are replaced if they are of an earlier report.
    progress
        Called with (description, done, total).
    **options
        As for `headstart.compare`: ``heads``, ``layer``, ``pool``, ``cv`` and the others.
        Of a benchmark, its heads and its layer by default.

    Returns
    -------
    Report
        All that the page shows.

    Raises
    ------
    StoreError, HeadError
        If there is no store, or heads cannot be compared on it.
    DataError
        If `data` is given and is no dataset.
    MissingExtraError
        If Jinja2 or matplotlib is not installed.
    """
    from headstart.cache import Store, local_store
    from headstart.heads.comparison import DEFAULT_HEADS, compare
    from headstart.report.papers import check_figures

    check_target(file)
    if figures is not None:
        check_figures(figures)
    place = local_store(path)
    more: dict[str, Any] = {}
    if (place / "bench.json").is_file():
        from headstart.bench import load

        more["bench"] = found = load(place)
        options.setdefault("layer", found.layer)
        frozen = [one.head for one in found.records if one.mode == "frozen"]
        options.setdefault("heads", tuple(dict.fromkeys(frozen)) or DEFAULT_HEADS)
        place /= _BENCH_FEATURES
    store = Store.open(place)
    comparison = compare(store, progress=progress, **options)
    if curve:
        from headstart.heads.curve import learning_curve

        more["curve"] = learning_curve(store, progress=progress, **options)
    if sweep is True:
        from headstart.heads.sweep import sweep as judge

        folds = {name: options[name] for name in ("cv", "seed") if name in options}
        more["sweep"] = judge(store, **folds, progress=progress)
    elif sweep:
        more["sweep"] = sweep
    return write_report(
        comparison, file, tsne=tsne, data=data, figures=figures, progress=progress, **more
    )


def write_report(
    comparison: Comparison,
    file: str | os.PathLike[str],
    *,
    figures: str | os.PathLike[str] | None = None,
    **more: Any,
) -> Report:
    """Write the page of a comparison that was made.

    Parameters
    ----------
    comparison
        As `headstart.compare` returned it.
    file
        The page, a .html file; another one of ours is replaced, and nothing else.
    figures
        A folder for the figures as SVG and PDF and the tables as CSV and LaTeX; files of these
        kinds in it are replaced if they are of an earlier report.
    **more
        As for `headstart.report.gather.gathered`: ``curve``, ``sweep``, ``bench``, ``tsne``,
        ``data``, ``progress``.

    Returns
    -------
    Report
        All that the page shows.

    Raises
    ------
    MissingExtraError
        If Jinja2 or matplotlib is not installed.
    """
    from headstart.report.gather import gathered
    from headstart.report.page import page
    from headstart.report.papers import check_figures, write_figures

    target = check_target(file)
    if figures is not None:
        check_figures(figures)

    found = gathered(comparison, **more)
    text = page(found)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    if figures is not None:
        write_figures(found, figures)
    return found


def check_target(file: str | os.PathLike[str]) -> Path:
    """Refuse a page that cannot be written, and missing packages, before anything is computed.

    Raises
    ------
    HeadstartError
        If `file` is no .html file in a folder that is there, or is there and no page of ours.
    MissingExtraError
        If Jinja2 or matplotlib is not installed.
    """
    from importlib.util import find_spec

    from headstart.errors import MissingExtraError, install

    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"a report needs {' and '.join(missing)}; {install('report')}")
    target = Path(file)
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise HeadstartError(f"{target} cannot be written: name a file in a folder that is there")
    if target.suffix.lower() not in (".html", ".htm"):
        raise HeadstartError(f"a report is a .html file; found {target}")
    if os.path.lexists(target) and not _is_page(target):
        raise HeadstartError(f"{target} is there already and is no report: name another file")
    return target


def _is_page(file: Path) -> bool:
    """Tell whether a file is a page of ours."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return MARK.encode() in opened.read(_HEAD)
