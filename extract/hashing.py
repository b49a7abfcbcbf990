"""The bytes of pictures, and the SHA-256 that each is known by."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headstart.cache import LeftOut
from headstart.errors import UnreadableImageError
from headstart.extract.picture import printable
from headstart.extract.places import Away, Place, threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MAX_FILE_BYTES = 1 << 30
_READ_BYTES = 1 << 20
_HASH_CHUNK = 16


def read_file(file: Place) -> bytes:
    """Read a picture's bytes; never waits on what is no regular file.

    Raises
    ------
    UnreadableImageError
        With the reason: it is gone, forbidden, not a regular file, or over `MAX_FILE_BYTES`.
    """
    if isinstance(file, Away):
        return file.fetch(again=False)
    with _opened(file) as (descriptor, length):
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
    """
    chunks = [files[start : start + _HASH_CHUNK] for start in range(0, len(files), _HASH_CHUNK)]
    answers: list[str | LeftOut] = []
    pool = ThreadPoolExecutor(threads(files, workers), thread_name_prefix="hash")
    try:
        for hashed in pool.map(lambda chunk: [_hash(file) for file in chunk], chunks):
            answers += hashed
            if progress is not None:
                progress(len(hashed))
    finally:
        pool.shutdown(cancel_futures=True)
    return answers


def _hash(file: Place) -> str | LeftOut:
    digest = hashlib.sha256()
    try:
        if isinstance(file, Away):
            return hashlib.sha256(file.fetch(again=True)).hexdigest()
        with _opened(file) as (descriptor, length):
            for piece in _pieces(descriptor, length):
                digest.update(piece)
    except UnreadableImageError as error:
        return LeftOut(printable(str(file)), str(error))
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
