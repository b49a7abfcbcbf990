"""Datasets: which pictures there are, their labels and splits, and which of them are identical."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import stat
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cache import LeftOut
from headstart.errors import (
    DataError,
    DataNotFoundError,
    MissingExtraError,
    UnreadableImageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
)
MAX_FILE_BYTES = 1 << 30

_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
# Left by operating systems and network drives, besides everything that begins with a dot.
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})
_SPLIT_SALT = b"headstart split 1:"
_READ_BYTES = 1 << 20
_HASH_CHUNK = 16


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
    file: Path
    label: int
    split: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """The pictures found, sorted by path; their classes, sorted by name; and what was not used.

    ``other_files`` counts the visible files that are no pictures by their names. ``root`` is None
    for a list of paths. ``columns`` names the further columns of a manifest.
    """

    root: Path | None
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    other_files: int
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Groups of identical pictures, as paths: all; on several splits; under several labels."""

    duplicates: tuple[tuple[str, ...], ...]
    across_splits: tuple[tuple[str, ...], ...]
    across_labels: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A picture whose label is still a name ("" where unknown)."""

    path: str
    file: Path
    label: str
    split: str
    columns: tuple[str, ...] = ()


def list_dataset(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    labels: Sequence[str | None] | None = None,
) -> Dataset:
    """List the pictures of a dataset, without opening any.

    Parameters
    ----------
    data
        A folder with one subfolder per class; a folder with ``train``, ``validation`` (or ``val``)
        and ``test``, each with one subfolder per class; a manifest, ``.csv`` or ``.parquet``, with
        columns ``path``, ``label`` and optionally ``split``; or the paths of pictures.
    labels
        For a list of paths, the class name of each; None or "" where unknown.

    Raises
    ------
    DataNotFoundError
        Where there is nothing at the path, or it cannot be read.
    DataError
        Where what is there is no dataset: no pictures, one class only, ...
    MissingExtraError
        Where a Parquet manifest is given and pyarrow is not installed.

    Examples
    --------
    >>> list_dataset(["1.jpg", "2.jpg"], labels=["cat", "dog"]).classes  # doctest: +SKIP
    ('cat', 'dog')
    """
    if not isinstance(data, str | os.PathLike):
        return _list_paths(data, labels)
    if labels is not None:
        raise DataError("labels go with a list of paths; a folder or manifest brings its own")
    root = Path(data)
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataNotFoundError(
            f"no dataset at {root}: expected a folder or a manifest ({why})"
        ) from error
    return _list_folder(root) if is_folder else _list_manifest(root)


# --- folders -------------------------------------------------------------------------------------


def _list_folder(root: Path) -> Dataset:
    walk = _Walk(root)
    walk.run()
    depth = _depth_of_classes(root, walk.files)
    entries: list[_Entry] = []
    for path in walk.files:
        parts = path.split("/")
        if len(parts) < depth + 2:
            walk.left_out.append(LeftOut(path, "not in a class folder"))
            continue
        split = _SPLITS[parts[0].lower()] if depth else ""
        entries.append(_Entry(path, root / path, parts[depth], split))
    if not entries:
        raise DataError(_why_empty(root, walk))
    return _dataset(root, entries, walk.left_out, walk.other_files)


def _depth_of_classes(root: Path, files: Iterable[str]) -> int:
    """Return 1 where the top folders are splits, 0 where they are classes; refuse a mixture.

    ``train/`` is a split if its pictures lie in folders of their own; a class of vehicles may
    have that name too. A split taken for a class would be a label that means nothing.
    """
    parts = [path.split("/") for path in files]
    folders = {part[0] for part in parts if len(part) > 1}
    flat = {part[0] for part in parts if len(part) == 2}
    splits = {name for name in folders if name.lower() in _SPLITS}
    train = {name for name in splits if name.lower() == "train"}
    if train and splits == folders:
        return 1
    if train - flat:
        strange = min(folders - splits)
        raise DataError(
            f"{root} has {', '.join(sorted(splits))} and beside them {strange}, with pictures "
            "in it: expected train, validation and test alone, or only class folders"
        )
    return 0


def _why_empty(root: Path, walk: _Walk) -> str:
    expected = "expected one subfolder per class, with pictures in it"
    if walk.files:
        return f"no class folders in {root}: {len(walk.files)} pictures lie loose; {expected}"
    if walk.left_out:
        first = walk.left_out[0]
        return (
            f"no usable pictures in {root}: {len(walk.left_out)} left out, "
            f"the first {first.path} ({first.reason}); {expected}"
        )
    return f"no pictures in {root} ({walk.other_files} other files); {expected}"


class _Walk:
    """The files below a folder; links are followed only within it, and each folder entered once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[str] = []
        self.left_out: list[LeftOut] = []
        self.other_files = 0
        self._real_root = os.path.realpath(root)
        self._entered: set[tuple[int, int]] = set()
        self._links: list[str] = []

    def run(self) -> None:
        """List everything: first what is really there, then what links lead to."""
        self._enter("")
        while self._links:
            links, self._links = sorted(self._links), []
            for path in links:
                self._follow(path)

    def _enter(self, top: str) -> None:
        folders = [top]
        while folders:
            folder = folders.pop()
            prefix = f"{folder}/" if folder else ""
            for entry in self._entries(folder):
                if not _is_litter(entry.name):
                    self._take(prefix + entry.name, entry, folders)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        place = os.path.join(self.root, folder)  # noqa: PTH118 - a Path would eat odd names
        try:
            status = os.stat(place)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in self._entered:
                return []
            self._entered.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                return list(entries)
        except OSError as error:
            if not folder:
                raise DataNotFoundError(f"cannot read {self.root}: {error.strerror}") from error
            self._leave_out(folder, f"folder cannot be read: {error.strerror}")
            return []

    def _take(self, path: str, entry: os.DirEntry[str], folders: list[str]) -> None:
        if entry.is_symlink():
            self._links.append(path)
        elif entry.is_dir():
            self._take_folder(path, folders)
        else:
            self._take_file(path, regular=entry.is_file())

    def _take_folder(self, path: str, folders: list[str]) -> None:
        if not _is_unicode(path):
            self._leave_out(path, "folder's name is not valid Unicode")
            return
        folders.append(path)

    def _take_file(self, path: str, *, regular: bool) -> None:
        if not _is_picture(path):
            self.other_files += 1
        elif not regular:
            self._leave_out(path, "not a regular file")
        elif not _is_unicode(path):
            self._leave_out(path, "name is not valid Unicode")
        else:
            self.files.append(path)

    def _follow(self, path: str) -> None:
        place = os.path.join(self.root, path)  # noqa: PTH118
        try:
            status = os.stat(place)  # noqa: PTH116
        except OSError:
            self._leave_out(path, "broken link")
            return
        folder = stat.S_ISDIR(status.st_mode)
        if (folder or _is_picture(path)) and self._is_outside(place):
            self._leave_out(path, "link leads outside the dataset")
        elif not folder:
            self._take_file(path, regular=stat.S_ISREG(status.st_mode))
        elif (status.st_dev, status.st_ino) not in self._entered:
            folders: list[str] = []
            self._take_folder(path, folders)
            for top in folders:
                self._enter(top)

    def _is_outside(self, place: str) -> bool:
        real = os.path.realpath(place)
        return os.path.commonpath([real, self._real_root]) != self._real_root

    def _leave_out(self, path: str, reason: str) -> None:
        self.left_out.append(LeftOut(_printable(path), reason))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _is_picture(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS  # noqa: PTH122 - strings by the thousand


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _printable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# --- manifests and lists -------------------------------------------------------------------------


def _list_manifest(manifest: Path) -> Dataset:
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    read = readers.get(manifest.suffix.lower())
    if read is None:
        raise DataError(f"{manifest} is no dataset: expected a folder, a .csv or a .parquet file")
    try:
        columns, rows = read(manifest)
    except OSError as error:
        raise DataNotFoundError(f"cannot read {manifest}: {error}") from error
    listed = _list_rows(manifest.parent, rows, str(manifest))
    return dataclasses.replace(listed, columns=columns)


def _read_csv(manifest: Path) -> tuple[tuple[str, ...], list[_Entry]]:
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


def _read_parquet(manifest: Path) -> tuple[tuple[str, ...], list[_Entry]]:
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


def _row(manifest: Path, place: str, values: Sequence[str]) -> _Entry:
    path, label, split, *further = values
    if not path or "\0" in path:
        raise DataError(f"{manifest}, {place}: expected a path, found {path!r}")
    split = split.strip().lower()
    if split and split not in _SPLITS:
        raise DataError(
            f"{manifest}, {place}: split is {split!r}; "
            "expected train, validation (or val), test or nothing"
        )
    file = manifest.parent / path
    name = file.relative_to(manifest.parent) if file.is_relative_to(manifest.parent) else file
    chosen = _SPLITS.get(split, "")
    return _Entry(name.as_posix(), file, label.strip(), chosen, tuple(further))


def _list_paths(
    paths: Iterable[str | os.PathLike[str]], labels: Sequence[str | None] | None
) -> Dataset:
    files = [Path(path) for path in paths]
    names = [""] * len(files) if labels is None else [_text(label) for label in labels]
    if len(names) != len(files):
        raise DataError(f"{len(files)} paths but {len(names)} labels; expected one for each")
    rows = [
        _Entry(file.as_posix(), file, name, "") for file, name in zip(files, names, strict=True)
    ]
    return _list_rows(None, rows, "the list of paths")


def _list_rows(root: Path | None, rows: Iterable[_Entry], source: str) -> Dataset:
    entries: dict[str, _Entry] = {}
    left_out: list[LeftOut] = []
    for row in rows:
        known = entries.get(row.path)
        if known is not None and known != row:
            raise DataError(
                f"{source} names {_printable(row.path)} twice, as {_described(known)} "
                f"and as {_described(row)}; expected each picture once"
            )
        reason = "listed before" if known else _why_unusable(row)
        if reason:
            left_out.append(LeftOut(_printable(row.path), reason))
        else:
            entries[row.path] = row
    if not entries:
        first = f"; the first, {left_out[0].path}: {left_out[0].reason}" if left_out else ""
        raise DataError(f"no usable pictures in {source} ({len(left_out)} left out{first})")
    return _dataset(root, entries.values(), left_out, 0)


def _described(entry: _Entry) -> str:
    return " ".join(filter(None, (entry.label or "unlabelled", entry.split)))


def _why_unusable(row: _Entry) -> str:
    if not _is_unicode(row.path):
        return "name is not valid Unicode"
    try:
        mode = row.file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return "broken link" if row.file.is_symlink() else "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _dataset(
    root: Path | None, entries: Iterable[_Entry], left_out: list[LeftOut], other_files: int
) -> Dataset:
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


# --- bytes ---------------------------------------------------------------------------------------


def read_file(file: Path) -> bytes:
    """Read a picture's bytes; never waits on what is no regular file.

    Raises
    ------
    UnreadableImageError
        With the reason: it is gone, forbidden, not a regular file, or over `MAX_FILE_BYTES`.
    """
    with _opened(file) as (descriptor, length):
        if length > MAX_FILE_BYTES:
            raise UnreadableImageError(
                f"{length / 1e6:.0f} megabytes, over the limit of {MAX_FILE_BYTES / 1e6:.0f}"
            )
        return b"".join(_pieces(descriptor))


def hash_files(
    files: Sequence[Path],
    *,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> list[str | LeftOut]:
    """Return each file's SHA-256 as hexadecimal text or, where it cannot be read, why.

    Parameters
    ----------
    files
        In any order; the answers come in the same.
    workers
        Number of threads; hashing leaves the interpreter free.
    progress
        Called in the calling thread with the number of files newly done.
    """
    chunks = [files[start : start + _HASH_CHUNK] for start in range(0, len(files), _HASH_CHUNK)]
    answers: list[str | LeftOut] = []
    pool = ThreadPoolExecutor(workers, thread_name_prefix="hash")
    try:
        for hashed in pool.map(lambda chunk: [_hash(file) for file in chunk], chunks):
            answers += hashed
            if progress is not None:
                progress(len(hashed))
    finally:
        pool.shutdown(cancel_futures=True)
    return answers


def _hash(file: Path) -> str | LeftOut:
    digest = hashlib.sha256()
    try:
        with _opened(file) as (descriptor, _):
            for piece in _pieces(descriptor):
                digest.update(piece)
    except UnreadableImageError as error:
        return LeftOut(_printable(str(file)), str(error))
    return digest.hexdigest()


@contextmanager
def _opened(file: Path) -> Iterator[tuple[int, int]]:
    """Open a regular file and give its descriptor and length; anything else is refused unread.

    Opened without blocking, so that a pipe put in the place of a picture cannot stop the run.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = -1
    try:
        descriptor = os.open(file, flags)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("not a regular file")
        yield descriptor, status.st_size
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror}") from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, _READ_BYTES):
        yield piece


# --- identical pictures --------------------------------------------------------------------------


def split_by_content(dataset: Dataset, sha256: Sequence[str], validation: float) -> Dataset:
    """Give a dataset without splits one, decided by each picture's bytes alone.

    A picture keeps its side when others come or go, and identical pictures share one. Being a
    threshold on a hash, it takes about the wanted share of every class.

    Parameters
    ----------
    dataset
        Returned as it is where it brings a split.
    sha256
        Of each picture's bytes, as hexadecimal text.
    validation
        The share of the validation pictures, at least 0 and below 1; 0 makes no split.
    """
    if not 0 <= validation < 1:
        raise DataError(f"the share for validation is {validation}; expected 0 to below 1")
    if validation == 0 or any(picture.split for picture in dataset.pictures):
        return dataset
    pictures = tuple(
        replace(picture, split="validation" if _position(digest) < validation else "train")
        for picture, digest in zip(dataset.pictures, sha256, strict=True)
    )
    return replace(dataset, pictures=pictures)


def _position(sha256: str) -> float:
    """Return a picture's place in [0, 1); salted, for others may split by the bare digest."""
    mixed = hashlib.sha256(_SPLIT_SALT + sha256.encode("ascii")).digest()
    return int.from_bytes(mixed[:6], "big") / 2**48


def conflicts(dataset: Dataset, sha256: Sequence[str]) -> Conflicts:
    """Find identical pictures, and those of them on several splits or under several labels.

    `sha256` belongs to the dataset's pictures, one for each; unknown labels contradict nothing.
    """
    same: dict[str, list[Picture]] = defaultdict(list)
    for picture, digest in zip(dataset.pictures, sha256, strict=True):
        same[digest].append(picture)
    groups = [group for group in same.values() if len(group) > 1]
    return Conflicts(
        duplicates=_paths(groups),
        across_splits=_paths(g for g in groups if len({p.split for p in g}) > 1),
        across_labels=_paths(g for g in groups if len({p.label for p in g} - {-1}) > 1),
    )


def _paths(groups: Iterable[Sequence[Picture]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(picture.path for picture in group) for group in groups)
