"""The bytes of pictures: read once to know each by its SHA-256, and again to decode it."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cache import LeftOut
from headstart.errors import UnreadableImageError
from headstart.extract.picture import printable
from headstart.extract.places import Away, Place, threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_FILE_BYTES = 1 << 30
_READ_BYTES = 1 << 20
_HASH_CHUNK = 16
_RECENT_BYTES = 64 << 20


class Recent:
    """Bytes of pictures, kept from when they are hashed until they are decoded.

    Reading a file takes as long as a tenth of decoding it. Of the files read first, 64 MiB are
    kept, and of them those of less than a megabyte.
    """

    def __init__(self, limit: int = _RECENT_BYTES) -> None:
        self._left = limit
        self._lock = threading.Lock()
        self._kept: dict[Path, tuple[bytes, tuple[int, ...]]] = {}

    def keep(self, file: Path, status: os.stat_result, data: bytes) -> None:
        """Keep a file's bytes, as far as there is room."""
        with self._lock:
            if len(data) <= self._left:
                self._left -= len(data)
                self._kept[file] = data, _identity(status)

    def take(self, file: Place) -> bytes | None:
        """Give and forget a file's bytes; None if they are not kept, or the file is another now."""
        if not isinstance(file, Path) or file not in self._kept:
            return None
        data, identity = self._kept.pop(file)
        try:
            return data if _identity(file.stat()) == identity else None
        except OSError:
            return None


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file from what is put in its place, or written into it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_file(file: Place) -> bytes:
    """Read a picture's bytes; never waits on what is no regular file.

    Raises
    ------
    UnreadableImageError
        With the reason: it is gone, forbidden, not a regular file, or over `MAX_FILE_BYTES`.
    """
    if isinstance(file, Away):
        return file.fetch(again=False)
    with _opened(file) as (descriptor, status):
        length = status.st_size
        if length > MAX_FILE_BYTES:
            raise UnreadableImageError(
                f"{length / 1e6:.0f} megabytes, over the limit of {MAX_FILE_BYTES / 1e6:.0f}"
            )
        return b"".join(_pieces(descriptor, length))


def hash_files(
    files: Sequence[Place],
    *,
    workers: int,
    progress: Callable[[int], None] | None = None,
    recent: Recent | None = None,
) -> list[str | LeftOut]:
    """Return each file's SHA-256 as hexadecimal text or, where it cannot be read, why.

    Parameters
    ----------
    files
        In any order; the answers come in the same.
    workers
        Number of threads, more where files are away; hashing leaves the interpreter free.
    progress
        Called in the calling thread with the number of files newly done.
    recent
        What is read is kept there.
    """
    chunks = [files[start : start + _HASH_CHUNK] for start in range(0, len(files), _HASH_CHUNK)]
    answers: list[str | LeftOut] = []
    pool = ThreadPoolExecutor(threads(files, workers), thread_name_prefix="hash")
    try:
        for hashed in pool.map(lambda chunk: [_hash(file, recent) for file in chunk], chunks):
            answers += hashed
            if progress is not None:
                progress(len(hashed))
    finally:
        pool.shutdown(cancel_futures=True)
    return answers


def _hash(file: Place, recent: Recent | None) -> str | LeftOut:
    digest, length, piece = hashlib.sha256(), 0, b""
    try:
        if isinstance(file, Away):
            return hashlib.sha256(file.fetch(again=True)).hexdigest()
        with _opened(file) as (descriptor, status):
            for piece in _pieces(descriptor, status.st_size):
                digest.update(piece)
                length += len(piece)
        if recent is not None and len(piece) == length:  # it came as one
            recent.keep(file, status, piece)
    except UnreadableImageError as error:
        return LeftOut(printable(str(file)), str(error))
    return digest.hexdigest()


@contextmanager
def _opened(file: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file and give its descriptor and status; anything else is refused unread.

    Opened without blocking, so that a pipe put in the place of a picture cannot stop the run.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = -1
    try:
        descriptor = os.open(file, flags)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("not a regular file")
        yield descriptor, status
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror}") from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _pieces(descriptor: int, length: int) -> Iterator[bytes]:
    """Yield the bytes of a file that has `length`; of one that has more after all, these too.

    A byte more than there should be is asked for, so that one call sees the end. A buffer of a
    megabyte for every picture takes longer to get from the system than the picture's bytes.
    """
    left = length
    asked = min(left + 1, _READ_BYTES)
    while piece := os.read(descriptor, asked):
        yield piece
        left -= len(piece)
        if not left and len(piece) < asked:
            return
        asked = min(left + 1, _READ_BYTES) if left >= 0 else _READ_BYTES
