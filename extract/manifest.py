"""A dataset from a list: a CSV or Parquet manifest, or paths with labels."""

from __future__ import annotations

import csv
import dataclasses
import io
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from headstart.cache import LeftOut
from headstart.cache.urls import is_url
from headstart.errors import DataError, DataNotFoundError, MissingExtraError, install
from headstart.extract.picture import SPLITS, Dataset, Entry, is_unicode, make_dataset, printable
from headstart.extract.url import KEPT_BYTES, MAX_MANIFEST_BYTES, Kept, Tree, UrlFile

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Sequence
    from typing import BinaryIO

    from headstart.extract.places import Place

_MISSING = ("no such file", "broken link")


def list_manifest(manifest: Path | UrlFile) -> Dataset:
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
    read = MANIFESTS.get(PurePosixPath(str(manifest)).suffix.lower())
    if read is None:
        raise DataError(f"{manifest} is no dataset: expected a folder, a .csv or a .parquet file")
    try:
        columns, rows, places = read(manifest)
    except OSError as error:
        raise DataNotFoundError(f"cannot read {manifest}: {error.strerror or error}") from error
    root = manifest.parent if isinstance(manifest, Path) else manifest.tree.url
    listed = _rows(root, rows, str(manifest), places)
    return dataclasses.replace(listed, columns=columns)


def _opened(manifest: Path | UrlFile) -> BinaryIO:
    """Open a manifest; one that is away is read as a whole.

    Raises
    ------
    DataNotFoundError
        If it is away and cannot be had.
    """
    if isinstance(manifest, Path):
        return manifest.open("rb")
    try:
        return io.BytesIO(manifest.tree.content(manifest.path, MAX_MANIFEST_BYTES))
    except Exception as error:  # file systems raise nearly every kind
        raise DataNotFoundError(f"cannot read {manifest.tree.url}: {error}") from error


#: What is read of a manifest: its further columns, its rows, and where each of them is.
_Read = tuple[tuple[str, ...], list[Entry], list[str]]


def _read_csv(manifest: Path | UrlFile) -> _Read:
    try:
        with io.TextIOWrapper(_opened(manifest), "utf-8-sig", newline="") as lines:
            table = csv.reader(lines, strict=True)
            columns = [name.strip() for name in next(table, [])]
            wanted, further = _column_places(columns, manifest)
            rows, places = [], []
            for row in table:
                if row:
                    places.append(f"line {table.line_num}")
                    fields = _fields(manifest, table.line_num, row, columns, wanted)
                    rows.append(_row(manifest, places[-1], fields))
            return further, rows, places
    except UnicodeDecodeError as error:
        raise DataError(f"{manifest} is not UTF-8 text: {error.reason}") from error
    except csv.Error as error:
        raise DataError(f"{manifest} is not a well-formed CSV file: {error}") from error


def _fields(
    manifest: Path | UrlFile, line: int, row: list[str], columns: list[str], places: list[int]
) -> list[str]:
    """Return the fields of a line of CSV that are wanted; a name with a comma is quoted."""
    if len(row) > len(columns):
        raise DataError(
            f"{manifest}, line {line}: expected {len(columns)} fields, found {len(row)}; "
            'a field with a comma in it goes between "quotes"'
        )
    return [row[i] if 0 <= i < len(row) else "" for i in places]


def _read_parquet(manifest: Path | UrlFile) -> _Read:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            f"a Parquet manifest needs pyarrow; {install('parquet')}"
        ) from error
    try:
        table = parquet.ParquetFile(manifest if isinstance(manifest, Path) else _opened(manifest))
        names = list(table.schema_arrow.names)
        places, further = _column_places(names, manifest)
        wanted = table.read(columns=[names[i] for i in places if i >= 0])
    except pa.ArrowException as error:
        raise DataError(f"{manifest} is not a readable Parquet file: {error}") from error
    columns = [wanted[names[i]].to_pylist() if i >= 0 else [""] * len(wanted) for i in places]
    rows = [
        _row(manifest, f"row {number}", [_text(value) for value in values])
        for number, values in enumerate(zip(*columns, strict=True))
    ]
    return further, rows, [f"row {number}" for number in range(len(rows))]


def _text(value: object) -> str:
    """Return a label as text: 0 is a name, None and NaN (as pandas has it) are none."""
    missing = value is None or value != value  # noqa: PLR0124
    return "" if missing else str(value)


def _column_places(
    columns: list[str], manifest: Path | UrlFile
) -> tuple[list[int], tuple[str, ...]]:
    """Return where path, label, split (-1: there is none) and the others are, and the others."""
    if "path" not in columns or "label" not in columns:
        raise DataError(
            f"{manifest} has the columns {', '.join(columns) or '(none)'}; "
            f"expected path, label and optionally split{_separated(columns)}"
        )
    known = ("path", "label", "split")
    further = tuple(dict.fromkeys(name for name in columns if name and name not in known))
    places = [columns.index(name) if name in columns else -1 for name in (*known, *further)]
    return places, further


def _separated(columns: Sequence[str]) -> str:
    """Say so where a header looks as if another sign than a comma stood between its columns."""
    for sign, name in ((";", "';'"), ("\t", "a tab"), ("|", "'|'")):
        if len(columns) == 1 and sign in columns[0]:
            return f": this looks separated by {name}; write it with commas"
    return ""


def _row(manifest: Path | UrlFile, place: str, values: Sequence[str]) -> Entry:
    path, label, split, *further = values
    if not path or "\0" in path:
        raise DataError(f"{manifest}, {place}: expected a path, found {path!r}")
    split = split.strip().lower()
    if split and split not in SPLITS:
        raise DataError(
            f"{manifest}, {place}: split is {split!r}; "
            "expected train, validation (or val), test or nothing"
        )
    name, file = _found(manifest, path)
    chosen = SPLITS.get(split, "")
    return Entry(name, file, label.strip(), chosen, tuple(further))


def _found(manifest: Path | UrlFile, path: str) -> tuple[str, Place]:
    """Return a picture's name in the dataset, and where it is: relative to the manifest."""
    if not isinstance(manifest, Path):
        folder = manifest.path.rpartition("/")[0]
        return path, manifest.tree.file(f"{folder}/{path}" if folder else path)
    file = manifest.parent / path
    inside = file.is_relative_to(manifest.parent)
    return (file.relative_to(manifest.parent) if inside else file).as_posix(), file


def list_paths(
    paths: Iterable[str | os.PathLike[str]], labels: Sequence[str | None] | None
) -> Dataset:
    """List pictures by their paths, with the class name of each, if given.

    Raises
    ------
    DataError
        If labels and paths differ in number, or no file can be used.
    """
    kept = Kept(KEPT_BYTES)
    files = [_place(path, kept) for path in paths]
    names = [""] * len(files) if labels is None else [_text(label) for label in labels]
    if len(names) != len(files):
        raise DataError(f"{len(files)} paths but {len(names)} labels; expected one for each")
    rows = [Entry(name, file, label, "") for (name, file), label in zip(files, names, strict=True)]
    return _rows(None, rows, "the list of paths")


def _place(path: str | os.PathLike[str], kept: Kept) -> tuple[str, Place]:
    if not is_url(path):
        return Path(path).as_posix(), Path(path)
    tree = Tree(str(path), kept=kept)
    return str(path), tree.file(tree.path)


def _rows(
    root: Path | str | None, rows: Iterable[Entry], source: str, places: Sequence[str] = ()
) -> Dataset:
    entries: dict[str, Entry] = {}
    left_out: list[LeftOut] = []
    rows = list(rows)
    for number, row in enumerate(rows):
        known = entries.get(row.path)
        if known is not None and known != row:
            first = next(place for place, other in enumerate(rows) if other is known)
            raise DataError(
                f"{source} names {printable(row.path)} twice, {_at(places, first)}as "
                f"{_described(known)} and {_at(places, number)}as {_described(row)}; expected each "
                "picture once"
            )
        reason = "listed before" if known else _why_unusable(root, row)
        if reason:
            left_out.append(LeftOut(printable(row.path), reason))
        else:
            entries[row.path] = row
    _require_files(root, rows, entries.values(), left_out, source)
    return make_dataset(root, entries.values(), left_out, 0)


def _at(places: Sequence[str], number: int) -> str:
    return f"in {places[number]} " if places else ""


def _require_files(
    root: Path | str | None,
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
        root = Path(root or "")
        raise DataError(
            f"{source}: {len(missing)} of the {len(rows)} files listed are missing, the first "
            f"{missing[0]}; paths that are not absolute are relative to {folder}, "
            f"{root.absolute()}"
        )
    if not entries:
        first = f"; the first, {left_out[0].path}: {left_out[0].reason}" if left_out else ""
        raise DataError(f"no usable pictures in {source} ({len(left_out)} left out{first})")


def _described(entry: Entry) -> str:
    return " ".join(filter(None, (entry.label or "unlabelled", entry.split)))


def _why_unusable(root: Path | str | None, row: Entry) -> str:
    if not is_unicode(row.path):
        return "name is not valid Unicode"
    if not isinstance(row.file, Path):  # asking for each would cost a round trip
        inside = root is None or {"", ".", ".."}.isdisjoint(row.path.split("/"))
        return "" if inside else "name leads outside the manifest's folder"
    try:
        mode = row.file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return _MISSING[row.file.is_symlink()]
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if stat.S_ISREG(mode) else "not a regular file"


#: How each kind of manifest is read.
MANIFESTS = {".csv": _read_csv, ".parquet": _read_parquet}
