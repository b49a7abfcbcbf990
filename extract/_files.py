"""Small helpers for weights files: their digests, and errors on one line."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


#: Path and kind of digest to what the file's status was, and its digest.
_known: dict[tuple[Path, str], tuple[tuple[int, ...], str]] = {}
_SETTLED = 2 * 10**9  # nanoseconds after which a further change shows in a file's times


def digest_of(path: Path, kind: str) -> str:
    """Return a digest (hex) of a file; one whose status is as it was is not read again.

    Parameters
    ----------
    path
        The file.
    kind
        ``"sha256"``, or ``"md5"``, which Keras publishes beside its weights.
    """
    now, status = time.time_ns(), _status(path)
    before, digest = _known.get((path, kind), ((), ""))
    if before != status:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, kind).hexdigest()
        if now - max(status[-2:]) > _SETTLED and _status(path) == status:
            _known[path, kind] = status, digest
    return digest


def _status(path: Path) -> tuple[int, ...]:
    """Return what a file can hardly keep when its bytes change; the times last."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def one_line(error: object) -> str:
    """Put an error's text on one line, without the full stop."""
    return " ".join(str(error).split()).rstrip(".")
