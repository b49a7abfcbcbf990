"""A dataset from a list: a CSV or Parquet manifest, or paths with labels."""

from __future__ import annotations

import csv
import dataclasses
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cache import LeftOut
from headstart.errors import DataError, DataNotFoundError, MissingExtraError
from headstart.extract.picture import SPLITS, Dataset, Entry, is_unicode, make_dataset, printable

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Sequence

_MISSING = ("no such file", "broken link")


def list_manifest(manifest: Path) -> Dataset:
    """List the pictures that a ``.csv`` or ``.parquet`` file names, relative to its folder.

    Raises
    ------
    DataNotFoundError
        If the manifest cannot be read.
    DataError
        If it is no manifest, or says what makes no sense; the message names the line.
    MissingExtraError
        If it is a Parquet file and pyarrow is not installed.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    read = readers.get(manifest.suffix.lower())
    if read is None:
        raise DataError(f"{manifest} is no dataset: expected a folder, a .csv or a .parquet file")
    try:
        columns, rows = read(manifest)
    except OSError as error:
        raise DataNotFoundError(f"cannot read {manifest}: {error.strerror or error}") from error
    listed = _rows(manifest.parent, rows, str(manifest))
    return dataclasses.replace(listed, columns=columns)


def _read_csv(manifest: Path) -> tuple[tuple[str, ...], list[Entry]]:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.reader(lines, strict=True)
            columns = [name.strip() for name in next(table, [])]
            places, further = _column_places(columns, manifest)
            return further, [
                _row(
                    manifest,
                    f"line {table.line_num}",
                    _fields(manifest, table.line_num, row, columns, places),
                )
                for row in table
                if row
            ]
    except UnicodeDecodeError as error:
        raise DataError(f"{manifest} is not UTF-8 text: {error.reason}") from error
    except csv.Error as error:
        raise DataError(f"{manifest} is not a well-formed CSV file: {error}") from error


def _fields(
    manifest: Path, line: int, row: list[str], columns: list[str], places: list[int]
) -> list[str]:
    """Return the fields of a line of CSV that are wanted; a name with a comma is quoted."""
    if len(row) > len(columns):
        raise DataError(
            f"{manifest}, line {line}: expected {len(columns)} fields, found {len(row)}; "
            'a field with a comma in it goes between "quotes"'
        )
    return [row[i] if 0 <= i < len(row) else "" for i in places]


def _read_parquet(manifest: Path) -> tuple[tuple[str, ...], list[Entry]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            "a Parquet manifest needs pyarrow: pip install 'headstart[parquet]'"
        ) from error
    try:
        table = parquet.ParquetFile(manifest)
        names = list(table.schema_arrow.names)
        places, further = _column_places(names, manifest)
        wanted = table.read(columns=[names[i] for i in places if i >= 0])
    except pa.ArrowException as error:
        raise DataError(f"{manifest} is not a readable Parquet file: {error}") from error
    columns = [wanted[names[i]].to_pylist() if i >= 0 else [""] * len(wanted) for i in places]
    return further, [
        _row(manifest, f"row {number}", [_text(value) for value in values])
        for number, values in enumerate(zip(*columns, strict=True))
    ]


def _text(value: object) -> str:
    """Return a label as text: 0 is a name, None and NaN (as pandas has it) are none."""
    missing = value is None or value != value  # noqa: PLR0124
    return "" if missing else str(value)


def _column_places(columns: list[str], manifest: Path) -> tuple[list[int], tuple[str, ...]]:
    """Return where path, label, split (-1: there is none) and the others are, and the others."""
    if "path" not in columns or "label" not in columns:
        raise DataError(
            f"{manifest} has the columns {', '.join(columns) or '(none)'}; "
            "expected path, label and optionally split"
        )
    known = ("path", "label", "split")
    further = tuple(dict.fromkeys(name for name in columns if name and name not in known))
    places = [columns.index(name) if name in columns else -1 for name in (*known, *further)]
    return places, further


def _row(manifest: Path, place: str, values: Sequence[str]) -> Entry:
    path, label, split, *further = values
    if not path or "\0" in path:
        raise DataError(f"{manifest}, {place}: expected a path, found {path!r}")
    split = split.strip().lower()
    if split and split not in SPLITS:
        raise DataError(
            f"{manifest}, {place}: split is {split!r}; "
            "expected train, validation (or val), test or nothing"
        )
    file = manifest.parent / path
    name = file.relative_to(manifest.parent) if file.is_relative_to(manifest.parent) else file
    chosen = SPLITS.get(split, "")
    return Entry(name.as_posix(), file, label.strip(), chosen, tuple(further))


def list_paths(
    paths: Iterable[str | os.PathLike[str]], labels: Sequence[str | None] | None
) -> Dataset:
    """List pictures by their paths, with the class name of each, if given.

    Raises
    ------
    DataError
        If labels and paths differ in number, or no file can be used.
    """
    files = [Path(path) for path in paths]
    names = [""] * len(files) if labels is None else [_text(label) for label in labels]
    if len(names) != len(files):
        raise DataError(f"{len(files)} paths but {len(names)} labels; expected one for each")
    rows = [Entry(file.as_posix(), file, name, "") for file, name in zip(files, names, strict=True)]
    return _rows(None, rows, "the list of paths")


def _rows(root: Path | None, rows: Iterable[Entry], source: str) -> Dataset:
    entries: dict[str, Entry] = {}
    left_out: list[LeftOut] = []
    rows = list(rows)
    for row in rows:
        known = entries.get(row.path)
        if known is not None and known != row:
            raise DataError(
                f"{source} names {printable(row.path)} twice, as {_described(known)} "
                f"and as {_described(row)}; expected each picture once"
            )
        reason = "listed before" if known else _why_unusable(row)
        if reason:
            left_out.append(LeftOut(printable(row.path), reason))
        else:
            entries[row.path] = row
    _require_files(root, rows, entries.values(), left_out, source)
    return make_dataset(root, entries.values(), left_out, 0)


def _require_files(
    root: Path | None,
    rows: Sequence[Entry],
    entries: Collection[Entry],
    left_out: Sequence[LeftOut],
    source: str,
) -> None:
    """Refuse a list of which so much is missing that no dataset is left, and say so."""
    classes = {entry.label for entry in entries} - {""}
    missing = [item.path for item in left_out if item.reason in _MISSING]
    listed = {row.label for row in rows} - {""}
    if missing and (not entries or len(classes) < min(2, len(listed))):
        folder = "the current folder" if root is None else "the manifest's folder"
        raise DataError(
            f"{source}: {len(missing)} of the {len(rows)} files listed are missing, the first "
            f"{missing[0]}; paths that are not absolute are relative to {folder}, "
            f"{(root or Path()).absolute()}"
        )
    if not entries:
        first = f"; the first, {left_out[0].path}: {left_out[0].reason}" if left_out else ""
        raise DataError(f"no usable pictures in {source} ({len(left_out)} left out{first})")


def _described(entry: Entry) -> str:
    return " ".join(filter(None, (entry.label or "unlabelled", entry.split)))


def _why_unusable(row: Entry) -> str:
    if not is_unicode(row.path):
        return "name is not valid Unicode"
    try:
        mode = row.file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return _MISSING[row.file.is_symlink()]
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if stat.S_ISREG(mode) else "not a regular file"
