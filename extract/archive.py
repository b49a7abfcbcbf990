"""Files that hold many pictures, here or at a URL; each is read where it lies."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from headstart.cache.urls import is_url
from headstart.errors import UnreadableImageError
from headstart.extract.url import Kept, Tree, UrlFile

if TYPE_CHECKING:
    from collections.abc import Iterator


class Archive:
    """A file that holds pictures, none of them compressed; `kept` is shared with others."""

    def __init__(self, name: str, kept: Kept) -> None:
        self.name = name
        self._away: UrlFile | None = None
        if is_url(name):
            tree = Tree(name, kept=kept)
            self._away = tree.file(tree.path)

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open it to seek and read in; never waits on what is no regular file."""
        if self._away is not None:
            with self._away.tree.opened(self._away.path) as file:
                yield file
            return
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(self.name, flags), "rb") as file:  # noqa: PTH123 - a descriptor
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("not a regular file")
            yield file

    def part(self, offset: int, size: int, *, again: bool) -> bytes:
        """Return some of its bytes, or raise UnreadableImageError."""
        if size == 0:
            return b""
        if self._away is not None:
            data = self._away.tree.fetch(self._away.path, again=again, part=(offset, offset + size))
        else:
            try:
                with self.opened() as file:
                    file.seek(offset)
                    data = file.read(size)
            except OSError as error:
                raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
        if len(data) != size:
            raise UnreadableImageError(f"{self.name} ends within it")
        return data


@dataclass(frozen=True, slots=True)
class Member:
    """A picture inside an archive: its name, first byte and length."""

    archive: Archive
    name: str
    offset: int
    size: int

    def fetch(self, *, again: bool) -> bytes:
        """Return its bytes; see `Away.fetch`."""
        return self.archive.part(self.offset, self.size, again=again)

    def __str__(self) -> str:
        """Return the archive's name and its own."""
        return f"{self.archive.name}/{self.name}"
