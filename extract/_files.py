"""Small helpers for files that are fetched, hashed and published whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def hash_file(path: Path, algorithm: str) -> str:
    """Hex digest of a file's bytes by one of hashlib's algorithms."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def one_line(error: object) -> str:
    """Put an error's text on one line, without the full stop."""
    return " ".join(str(error).split()).rstrip(".")


@contextlib.contextmanager
def temporary_beside(folder: Path, suffix: str) -> Iterator[Path]:
    """Make a private temporary name in `folder`, gone at the end unless the block renamed it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=suffix, dir=folder)
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def publish(temporary: Path, final: Path) -> None:
    """Give a closed temporary file its final name, durably."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
