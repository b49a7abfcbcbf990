"""Files that are published whole or not at all, and that prove themselves when read.

Every HDF5 file of a store ends in a *seal* of 128 bytes: the format version and the
SHA-256 of all bytes before it. HDF5 ignores bytes behind its own end of file, so any
reader opens a sealed file as usual, while ours checks the seal before HDF5 parses a
single byte: a damaged file can neither crash the library nor serve a wrong row.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
from typing import TYPE_CHECKING

from headstart.errors import CorruptStoreError, StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

FORMAT_VERSION = 1
SEAL_BYTES = 128
_SEAL = re.compile(rb"\nheadstart/(\d{1,6}) sha256=([0-9a-f]{64})\n *\Z")
_PIECE = 1 << 20
_TEMPORARY = re.compile(r"\.tmp-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]+\Z")


def seal(body_sha256: str) -> bytes:
    """Return the 128 bytes that close a file whose body has this SHA-256 (hex)."""
    text = f"\nheadstart/{FORMAT_VERSION} sha256={body_sha256}\n"
    return text.encode().ljust(SEAL_BYTES)


def sealed(body: bytes) -> bytes:
    """Return `body` with its seal behind it."""
    return body + seal(hashlib.sha256(body).hexdigest())


def parse_seal(tail: bytes, name: object) -> str:
    """Return the SHA-256 (hex) that a seal promises.

    Raises
    ------
    StoreVersionError
        If the file is of a newer format.
    CorruptStoreError
        If this is not a seal.
    """
    match = _SEAL.fullmatch(tail) if len(tail) == SEAL_BYTES else None
    if match is None:
        raise CorruptStoreError(f"{name} is damaged or cut short: its last bytes are not a seal")
    version = int(match[1])
    if version > FORMAT_VERSION:
        raise StoreVersionError(
            f"{name} is of format {version}; this Headstart knows formats up to "
            f"{FORMAT_VERSION}: upgrade Headstart to read it"
        )
    return match[2].decode()


def check_seal(path: Path) -> str:
    """Read a whole file and return the SHA-256 (hex) of its body, if the seal keeps its promise.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptStoreError, StoreVersionError
        If the file is not what was published, or newer than this version.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        found = _digest(file, size - SEAL_BYTES)
        promised = parse_seal(file.read(SEAL_BYTES), path)
    if found != promised:
        raise CorruptStoreError(
            f"{path} is damaged: its checksum is {found[:16]}..., it was published with "
            f"{promised[:16]}..."
        )
    return promised


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a whole file."""
    with path.open("rb", buffering=0) as file:
        return _digest(file, os.fstat(file.fileno()).st_size)


def _digest(file: BinaryIO, size: int) -> str:
    """Return the SHA-256 of the next `size` bytes."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
    while size > 0:
        count = file.readinto(buffer[: min(size, _PIECE)])  # type: ignore[attr-defined]
        if not count:
            break
        digest.update(buffer[:count])
        size -= count
    return digest.hexdigest()


def temporary_name(path: Path) -> Path:
    """Return a private name beside `path`, which tells later runs whose it is."""
    return path.with_name(f".tmp-{_host()}-{os.getpid()}-{secrets.token_hex(6)}")


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yield a private temporary path; on success it becomes `path`, whole and synced.

    On any failure the temporary is gone and `path` is as it was.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def publish_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`: a reader sees the old file or the new one, never a part."""
    with publishing(path) as temporary:
        temporary.write_bytes(data)


def sync(path: Path) -> None:
    """Ask the operating system to put a file or directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_temporaries(folder: Path) -> None:
    """Remove what dead processes of this host have left behind in `folder`."""
    for path in folder.glob(".tmp-*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and match["host"] == _host() and not _alive(int(match["pid"])):
            path.unlink(missing_ok=True)


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
