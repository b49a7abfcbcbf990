"""Small helpers for what is fetched: the digest its publisher gives, and errors on one line."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def md5_of(path: Path) -> str:
    """MD5 (hex) of a file: what Keras publishes beside its weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def one_line(error: object) -> str:
    """Put an error's text on one line, without the full stop."""
    return " ".join(str(error).split()).rstrip(".")
