"""URLs of pictures and stores: which are followed, and the file systems behind them."""

from __future__ import annotations

import re
from typing import Any

from headstart.errors import DataError, DataNotFoundError, MissingExtraError, install

#: What a URL may begin with. Others reach programs, clusters and other people's machines.
PROTOCOLS = ("s3", "gs", "gcs", "abfs", "az", "hf", "http", "https", "memory", "zip", "file")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(://|::)")


def is_url(data: object) -> bool:
    """Tell whether a dataset, a picture or a store is named by its URL."""
    return isinstance(data, str) and _URL.match(data) is not None


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system behind a URL, and the path in it.

    Raises
    ------
    DataError
        If the URL is none of `PROTOCOLS`, or carries a password.
    DataNotFoundError
        If its file system cannot be reached.
    MissingExtraError
        If fsspec, or its package for this protocol, is not installed.
    """
    _check(url)
    try:
        from fsspec.core import url_to_fs

        found, path = url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(
            f"{url} needs a package that is not installed ({error}); {install('cloud')}"
        ) from error
    except Exception as error:
        raise DataNotFoundError(f"cannot reach {url}: {one_line(error)}") from error
    return found, str(path) or str(found.root_marker)


def one_line(error: BaseException) -> str:
    """Return what an error says, short and in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check(url: str) -> None:
    for part in url.split("::"):
        protocol, found, rest = part.partition("://")
        known = protocol.lower() if found or re.fullmatch(r"[A-Za-z0-9]+", part) else "file"
        if known not in PROTOCOLS:
            raise DataError(f"{url}: expected one of {'://, '.join(PROTOCOLS)}://")
        if found and "@" in rest.split("/")[0] and known not in {"abfs", "az", "hf"}:
            raise DataError(
                "a URL with a password in it would be kept in the store: give it without, and the "
                "password by the environment or the file system's own configuration"
            )
