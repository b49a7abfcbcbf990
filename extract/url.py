"""Datasets by URL: class folders, manifests and pictures in any file system fsspec knows."""

from __future__ import annotations

import collections
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from headstart.cache import LeftOut
from headstart.cache.urls import file_system, one_line
from headstart.errors import DataNotFoundError, UnreadableImageError
from headstart.extract.picture import is_unicode, printable
from headstart.extract.places import MAX_AWAY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of a dataset's files kept between hashing and decoding, so that they come once.
KEPT_BYTES = 256 << 20
_BLOCK = 4 << 20
#: A manifest is read as a whole.
MAX_MANIFEST_BYTES = 1 << 30


class Tree:
    """A file system at a URL: what is in it, and the bytes of its files.

    Parameters
    ----------
    url
        Of a folder or a file; chained as fsspec has it (``zip://::s3://bucket/pets.zip``).

    Raises
    ------
    DataError
        If the URL is of no known protocol, or carries a password.
    DataNotFoundError
        If its file system cannot be reached.
    MissingExtraError
        If fsspec, or its package for this protocol, is not installed.
    """

    def __init__(self, url: str, *, kept: Kept | None = None) -> None:
        self.url = url
        self._fs, self.path = file_system(url)
        self._kept = kept or Kept(KEPT_BYTES)

    def below(self) -> Iterator[tuple[str, str, int | None]]:
        """Yield each file below: its name relative to the URL, its path, its size if known.

        The listing is asked for anew, never taken from what an earlier one remembered.

        Raises
        ------
        DataNotFoundError
            If it cannot be listed.
        """
        try:
            self._fs.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._fs.find(self.path, detail=True)
        except Exception as error:
            raise DataNotFoundError(
                f"no dataset at {self.url}: cannot be listed ({one_line(error)})"
            ) from error
        start = self.path.rstrip("/") + "/" if self.path else ""
        for path, about in found.items():
            if path.startswith(start) and not path.endswith("/") and about["type"] == "file":
                size = about.get("size")
                yield path[len(start) :], path, None if size is None else int(size)

    def file(self, path: str, size: int | None = None) -> UrlFile:
        """Return a file by its path in the file system."""
        return UrlFile(self, path, size)

    def content(self, path: str, most: int) -> bytes:
        """Return what is in a file, or raise whatever its file system does.

        Raises
        ------
        UnreadableImageError
            If there is more than `most`.
        """
        data: bytes = self._fs.cat_file(path, start=0, end=most + 1)
        if len(data) > most:
            raise UnreadableImageError(f"over the limit of {most / 1e6:.0f} megabytes")
        return data

    @contextmanager
    def opened(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file to be read from its beginning, mostly in order."""
        with self._fs.open(path, "rb", block_size=_BLOCK, cache_type="readahead") as file:
            yield file

    def fetch(self, path: str, *, again: bool, part: tuple[int, int] | None = None) -> bytes:
        """Return a picture's bytes, from memory where they were kept for this second time.

        Parameters
        ----------
        path
            Of the file in the file system.
        again
            Whether they will be wanted once more.
        part
            First byte, and the one after the last; the whole file by default.

        Raises
        ------
        UnreadableImageError
            With the reason: it is gone, forbidden, too large, or the network is.
        """
        key = (id(self._fs), path, part)
        data = self._kept.take(key)
        if data is None or again:  # what is to be hashed comes from where it lies
            try:
                data = self._read(path, part)
            except UnreadableImageError:
                raise
            except Exception as error:
                raise UnreadableImageError(f"cannot be read: {one_line(error)}") from error
        if again:
            self._kept.put(key, data)
        return data

    def _read(self, path: str, part: tuple[int, int] | None) -> bytes:
        if part is None:
            return self.content(path, MAX_AWAY_BYTES)
        data: bytes = self._fs.cat_file(path, start=part[0], end=part[1])
        return data


@dataclass(frozen=True, slots=True)
class UrlFile:
    """A file of a tree; `size` in bytes is what the listing said, None where there was none."""

    tree: Tree
    path: str
    size: int | None = field(default=None, compare=False)

    def fetch(self, *, again: bool) -> bytes:
        """Return its bytes; see `Away.fetch`."""
        if self.size == 0:  # a range of nothing is an error to object storage
            return b""
        if self.size is not None and self.size > MAX_AWAY_BYTES:
            raise UnreadableImageError(
                f"{self.size / 1e6:.0f} megabytes, over the limit of {MAX_AWAY_BYTES / 1e6:.0f} "
                "for what is not on this machine"
            )
        return self.tree.fetch(self.path, again=again)

    def __str__(self) -> str:
        """Return its path in its file system."""
        return self.path


class UrlWalk:
    """The files below a URL, as a folder's are listed; keys are never taken for other places."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.files: list[str] = []
        self.left_out: list[LeftOut] = []
        self.others: collections.Counter[str] = collections.Counter()
        self.folders: list[str] = []
        self.places: dict[str, UrlFile] = {}

    def run(self) -> None:
        """List everything."""
        from headstart.extract.folders import is_litter, is_picture, kind_of_file

        for name, path, size in self.tree.below():
            parts = name.split("/")
            if not {"", ".", ".."}.isdisjoint(parts):
                self.left_out.append(LeftOut(printable(name), "name has empty or dotted parts"))
            elif any(map(is_litter, parts)):
                continue
            elif not is_picture(name):
                self.others[kind_of_file(name)] += 1
                if is_unicode(name):
                    self.folders.append(name.rpartition("/")[0])
            elif not is_unicode(name):
                self.left_out.append(LeftOut(printable(name), "name is not valid Unicode"))
            else:
                self.files.append(name)
                self.places[name] = self.tree.file(path, size)


#: A file system, a path in it, and which part of the file.
_Key = tuple[int, str, tuple[int, int] | None]


class Kept:
    """Bytes that will be wanted once more, up to a budget; trees may share one."""

    def __init__(self, budget: int) -> None:
        self._free = budget
        self._held: dict[_Key, bytes] = {}
        self._lock = threading.Lock()

    def take(self, path: _Key) -> bytes | None:
        """Return what is kept, and let go of it."""
        with self._lock:
            data = self._held.pop(path, None)
            self._free += len(data or b"")
            return data

    def put(self, path: _Key, data: bytes) -> None:
        """Keep a file's bytes if there is room."""
        with self._lock:
            if path not in self._held and len(data) <= self._free:
                self._held[path] = data
                self._free -= len(data)
