"""A dataset from a folder: one subfolder per class, or the same inside train, validation, test."""

from __future__ import annotations

import collections
import dataclasses
import os
import stat
from typing import TYPE_CHECKING

from headstart.cache import LeftOut
from headstart.errors import DataError, DataNotFoundError
from headstart.extract.picture import SPLITS, Dataset, Entry, is_unicode, make_dataset, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from headstart.extract.places import Place
    from headstart.extract.url import Tree, UrlWalk

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
)
# Left by operating systems and network drives, besides everything that begins with a dot.
_SHOWN = 5  # kinds of other files
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})


def list_folder(root: Path) -> Dataset:
    """List the pictures below a folder.

    Raises
    ------
    DataNotFoundError
        If the folder cannot be read.
    DataError
        If it has no class folders with pictures, or splits and classes side by side.
    """
    walk = _Walk(root)
    walk.run()
    return _dataset(root, walk, lambda path: root / path)


def list_url(tree: Tree) -> Dataset:
    """List the pictures below a URL; see `list_folder`.

    Raises
    ------
    DataNotFoundError
        If it cannot be listed.
    DataError
        As for a folder.
    """
    from headstart.extract.url import UrlWalk

    walk = UrlWalk(tree)
    walk.run()
    return _dataset(tree.url, walk, walk.places.__getitem__)


def _dataset(root: Path | str, walk: _Walk | UrlWalk, place: Callable[[str], Place]) -> Dataset:
    depth = _depth_of_classes(root, walk.files)
    entries: list[Entry] = []
    for path in walk.files:
        parts = path.split("/")
        if len(parts) < depth + 2:
            walk.left_out.append(LeftOut(path, "not in a class folder"))
            continue
        split = SPLITS[parts[0].lower()] if depth else ""
        entries.append(Entry(path, place(path), parts[depth], split))
    if not entries:
        raise DataError(_why_empty(root, walk))
    kinds = tuple(walk.others.most_common())
    try:
        listed = make_dataset(root, entries, walk.left_out, walk.others.total())
    except DataError as error:
        if not kinds:
            raise
        raise DataError(f"{error}; passed over: {described_kinds(kinds)}") from error
    used = {path.rpartition("/")[0] for path in walk.files}
    used |= {"/".join(folder.split("/")[: depth + 1]) for folder in used}
    classes = {"/".join(folder.split("/")[: depth + 1]) for folder in walk.folders if folder}
    empty = sorted(name for name in classes - used if name.count("/") == depth)
    return dataclasses.replace(listed, other_kinds=kinds, empty_classes=tuple(empty))


def described_kinds(kinds: Iterable[tuple[str, int]]) -> str:
    """Return kinds of other files as words.

    Examples
    --------
    >>> described_kinds([(".heic", 3), ("", 1)])
    '4 other files (.heic 3, no ending 1)'
    """
    every = list(kinds)
    total = sum(count for _, count in every)
    shown = [f"{kind or 'no ending'} {count:,}" for kind, count in every[:_SHOWN]]
    more = [f"{len(every) - _SHOWN:,} more kinds"] if len(every) > _SHOWN else []
    return f"{total:,} other file{'' if total == 1 else 's'} ({', '.join(shown + more)})"


def kind_of_file(name: str) -> str:
    """Return the ending of a file's name, in small letters, to be printed."""
    return printable(os.path.splitext(name)[1].lower())  # noqa: PTH122 - strings by the thousand


def pictures_below(root: Path) -> list[Path]:
    """Return the pictures in a folder and its folders, sorted, whatever the folders mean.

    Raises
    ------
    DataNotFoundError
        If the folder cannot be read.
    """
    walk = _Walk(root)
    walk.run()
    return [root / path for path in sorted(walk.files)]


def _depth_of_classes(root: Path | str, files: Iterable[str]) -> int:
    """Return 1 where the top folders are splits, 0 where they are classes; refuse a mixture.

    ``train/`` is a split if its pictures lie in folders of their own; a class of vehicles may
    have that name too. A split taken for a class would be a label that means nothing.
    """
    parts = [path.split("/") for path in files]
    folders = {part[0] for part in parts if len(part) > 1}
    flat = {part[0] for part in parts if len(part) == 2}
    splits = {name for name in folders if name.lower() in SPLITS}
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


def _why_empty(root: Path | str, walk: _Walk | UrlWalk) -> str:
    expected = "expected one subfolder per class, with pictures in it"
    if walk.files:
        return f"no class folders in {root}: {len(walk.files)} pictures lie loose; {expected}"
    if walk.left_out:
        first = walk.left_out[0]
        return (
            f"no usable pictures in {root}: {len(walk.left_out)} left out, "
            f"the first {first.path} ({first.reason}); {expected}"
        )
    others = described_kinds(walk.others.most_common()) if walk.others else "0 other files"
    return f"no pictures in {root}, but {others}; {expected}"


class _Walk:
    """The files below a folder; links are followed only within it, and each folder entered once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[str] = []
        self.left_out: list[LeftOut] = []
        self.others: collections.Counter[str] = collections.Counter()
        self.folders: list[str] = []
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
                if not is_litter(entry.name):
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
        if not is_unicode(path):
            self._leave_out(path, "folder's name is not valid Unicode")
            return
        folders.append(path)
        self.folders.append(path)

    def _take_file(self, path: str, *, regular: bool) -> None:
        if not is_picture(path):
            self.others[kind_of_file(path)] += 1
        elif not regular:
            self._leave_out(path, "not a regular file")
        elif not is_unicode(path):
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
        if (folder or is_picture(path)) and self._is_outside(place):
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
        self.left_out.append(LeftOut(printable(path), reason))


def is_litter(name: str) -> bool:
    """Tell whether an operating system left a file or folder there, by its name."""
    return name.startswith(".") or name.lower() in _LITTER


def is_picture(path: str) -> bool:
    """Tell whether a file is taken for a picture, by its name."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS  # noqa: PTH122 - strings by the thousand
