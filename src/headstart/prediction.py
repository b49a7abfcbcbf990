"""Labels for pictures wherever they are: files, folders, patterns, a list on standard input."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart._words import plain
from headstart.errors import DataError, DataNotFoundError
from headstart.extract.folders import pictures_below
from headstart.extract.picture import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headstart.heads.model import Prediction

FORMATS = ("text", "csv", "jsonl")


def find_pictures(arguments: Iterable[str]) -> list[Path]:
    """Return the pictures that are meant, in the order of the arguments, each once.

    Parameters
    ----------
    arguments
        Files; folders, for all pictures below; patterns as ``pets/*.jpg``; or ``-`` for paths on
        standard input, one a line.

    What is not there is listed like the rest: predicting says so, and goes on with the others.

    Raises
    ------
    DataNotFoundError
        If nothing of it is there.
    DataError
        If there is no picture at all.
    """
    found = [path for argument in arguments for path in _meant(argument)]
    if not found:
        raise DataError("no pictures to predict: expected files, folders, patterns or '-'")
    if not any(map(os.path.lexists, found)):
        raise DataNotFoundError(f"there is no {found[0]}: expected pictures, folders or '-'")
    return list(dict.fromkeys(found))


def _meant(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if argument == "-":
        yield from (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
    elif path.is_dir():
        yield from pictures_below(path)
    elif not os.path.lexists(path) and glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - takes any pattern
        yield from map(Path, matches or [argument])
    else:
        yield path


def lines(
    predictions: Iterable[Prediction], classes: Sequence[str], *, style: str, top: int
) -> Iterator[str]:
    """Yield predictions as lines of text, CSV or JSON, as they come.

    Parameters
    ----------
    predictions, classes
        Of a model.
    style
        ``text``, ``csv`` or ``jsonl``.
    top
        How many classes to name, the most probable first.
    """
    top = min(top, len(classes))
    if style == "csv":
        ranks = [(f"label_{n}", f"probability_{n}") for n in range(2, top + 1)]
        names = ["picture", "label", "probability", *(name for pair in ranks for name in pair)]
        yield _csv([*names, "reason"])
    for prediction in predictions:
        best, picture = prediction.top(classes, top), printable(prediction.picture)
        if style == "jsonl":
            content = prediction.to_dict() | {"top": _named(best)}
            del content["probabilities"]
            yield json.dumps(content, ensure_ascii=False)
        elif style == "csv":
            cells = [text for label, share in best for text in (label, f"{share:.6f}")]
            cells += [""] * (2 * top - len(cells))
            yield _csv([picture, *cells, prediction.reason])
        else:
            named = "  ".join(f"{name} {p:.3f}" for name, p in best)
            said = f"not predicted: {prediction.reason}" if prediction.reason else named
            yield plain(f"{picture}  {said}")


def answer(
    predictions: Iterable[Prediction], classes: Sequence[str], *, top: int
) -> dict[str, Any]:
    """Return predictions as JSON can hold them, the classes once; `top` as for `lines`."""
    return {
        "classes": list(classes),
        "predictions": [
            found.to_dict() | {"top": _named(found.top(classes, top))} for found in predictions
        ],
    }


def _named(best: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "probability": share} for label, share in best]


def _csv(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)  # so that a line break is quoted
    return buffer.getvalue().removesuffix("\n")
