"""Pictures of a dataset: their paths, labels and splits, and how a dataset is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from headstart.cache import LeftOut
    from headstart.extract.places import Place

#: Names of a split, in a folder or a manifest, and the split each means.
SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a dataset.

    Attributes
    ----------
    path
        Its name in the dataset: unique, relative to the root, "/"-separated, valid Unicode.
    file
        Where it is.
    label
        Index into the dataset's classes; -1 where unknown.
    split
        "train", "validation", "test" or "".
    columns
        What a manifest says beside, in the order of the dataset's `columns`.
    """

    path: str
    file: Place
    label: int
    split: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """The pictures found, sorted by path; their classes, sorted by name; and what was not used.

    ``other_files`` counts the visible files that are no pictures by their names. ``root`` is None
    for a list of paths, and text where it is a URL. ``columns`` names the further columns of a
    manifest. Of a folder also: ``other_kinds``, how many of the other files end in what, most
    first; and ``empty_classes``, the folders in the place of classes without one picture.
    """

    root: Path | str | None
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    other_files: int
    columns: tuple[str, ...] = ()
    other_kinds: tuple[tuple[str, int], ...] = ()
    empty_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture whose label is still a name ("" where unknown)."""

    path: str
    file: Place
    label: str
    split: str
    columns: tuple[str, ...] = ()


def make_dataset(
    root: Path | str | None, entries: Iterable[Entry], left_out: list[LeftOut], other_files: int
) -> Dataset:
    """Sort pictures by path, and number their classes in the order of the names.

    Raises
    ------
    DataError
        If there is one class only.
    """
    entries = sorted(entries, key=lambda entry: entry.path)
    classes = sorted({entry.label for entry in entries} - {""})
    if len(classes) == 1:
        raise DataError(
            f"one class only, {classes[0]}, in {root or 'the list of paths'}: "
            "expected two or more to tell apart"
        )
    number = {name: index for index, name in enumerate(classes)} | {"": -1}
    pictures = tuple(Picture(e.path, e.file, number[e.label], e.split, e.columns) for e in entries)
    ledger = tuple(sorted(left_out, key=lambda item: item.path))
    return Dataset(root, pictures, tuple(classes), ledger, other_files)


def is_unicode(text: str) -> bool:
    """Tell whether a name can be stored: odd bytes of a file system make no Unicode."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def printable(path: str) -> str:
    """Return a name that can be stored and printed, odd bytes as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
