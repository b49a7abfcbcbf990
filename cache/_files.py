"""Files that are published whole or not at all, and that prove themselves when read.

Every HDF5 file of a store ends in a *seal* of 128 bytes: the format version, the SHA-256
of all bytes before it, and a CRC-32 of the seal itself, so that a damaged version number
is not taken for a newer format. HDF5 ignores bytes behind its own end of file, so any
reader opens a sealed file as usual, while ours checks the seal before HDF5 parses a
single byte: a damaged file can neither crash the library nor serve a wrong row.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import os
import re
import secrets
import socket
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import CorruptStoreError, StoreError, StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMAT_VERSION = 1
SEAL_BYTES = 128
_SEAL = re.compile(
    rb"(?P<text>\nheadstart/(?P<version>\d{1,6}) sha256=(?P<sha256>[0-9a-f]{64}))"
    rb" (?P<check>[0-9a-f]{8})\n *\Z"
)
_PIECE = 1 << 20
_TEMPORARY = re.compile(
    r"\.tmp-(?P<host>[0-9a-f]{8})-(?P<pid>\d{1,9})-(?P<process>[0-9a-f]{8})[0-9a-f]+\Z"
)
_CLAIM = ".tmp-next-"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
#: Tells this process from a dead one that had the same number, as the first of a container.
_PROCESS = secrets.token_hex(4)
#: What the file system says where a file, not the moment, is bad.
DAMAGE = {errno.EIO, errno.ELOOP}
_DAY = 24 * 60 * 60


class OvertakenError(StoreError):
    """Another process has replaced a file meanwhile, or is about to."""


def seal(body_sha256: str) -> bytes:
    """Return the 128 bytes that close a file whose body has this SHA-256 (hex)."""
    text = f"\nheadstart/{FORMAT_VERSION} sha256={body_sha256}".encode()
    return (text + b" %08x\n" % zlib.crc32(text)).ljust(SEAL_BYTES)


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
    match = _match(tail)
    if match is None:
        raise CorruptStoreError(
            f"{name} is damaged or cut short, or was not made by Headstart: "
            "its last bytes are not a seal"
        )
    version = int(match["version"])
    if version > FORMAT_VERSION:
        raise StoreVersionError(
            f"{name} is of format {version}; this Headstart knows formats up to "
            f"{FORMAT_VERSION}: upgrade Headstart to read it"
        )
    return match["sha256"].decode()


def is_seal(tail: bytes) -> bool:
    """Tell whether these bytes are a seal, of this version or another."""
    return _match(tail) is not None


def _match(tail: bytes) -> re.Match[bytes] | None:
    match = _SEAL.fullmatch(tail) if len(tail) == SEAL_BYTES else None
    sound = match is not None and int(match["check"], 16) == zlib.crc32(match["text"])
    return match if sound else None


def check_seal(path: Path) -> str:
    """Read a whole file and return the SHA-256 (hex) of its body, if the seal keeps its promise.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptStoreError, StoreVersionError
        If the file is not what was published, or newer than this version.
    """
    try:
        with _open(path) as file:
            size = os.fstat(file.fileno()).st_size
            found = _digest(file, size - SEAL_BYTES)
            promised = parse_seal(file.read(SEAL_BYTES), path)
    except OSError as error:
        if error.errno in DAMAGE:
            raise CorruptStoreError(f"{path} cannot be read: {error.strerror}") from error
        raise
    if found != promised:
        raise CorruptStoreError(
            f"{path} is damaged: its checksum is {found[:16]}..., it was published with "
            f"{promised[:16]}..."
        )
    return promised


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a whole file."""
    with _open(path) as file:
        return _digest(file, os.fstat(file.fileno()).st_size)


def _open(path: Path) -> io.FileIO:
    """Open for reading what is a file, and never wait for the other end of a pipe."""
    if path.exists() and not path.is_file():
        raise CorruptStoreError(f"{path} is not a regular file")
    return io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def seal_at(path: Path) -> bytes:
    """Return what tells one publication from another: the seal; empty if there is no file."""
    try:
        with path.open("rb") as file:
            return seal_of(file.fileno())
    except (FileNotFoundError, NotADirectoryError):
        return b""


def seal_of(descriptor: int) -> bytes:
    """Return the last bytes of an open file: its seal, if it has one."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, SEAL_BYTES, max(0, size - SEAL_BYTES))


def _digest(file: io.FileIO, size: int) -> str:
    """Return the SHA-256 of the next `size` bytes."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
    while size > 0:
        count = file.readinto(buffer[: min(size, _PIECE)])
        if not count:
            break
        digest.update(buffer[:count])
        size -= count
    return digest.hexdigest()


def temporary_name(path: Path) -> Path:
    """Return a private name beside `path`, which tells later runs whose it is."""
    mine = f"{_host()}-{os.getpid()}-{_PROCESS}"
    return path.with_name(f".tmp-{mine}{secrets.token_hex(6)}")


@contextlib.contextmanager
def publishing(path: Path, rename: Callable[[Path, Path], object] = Path.replace) -> Iterator[Path]:
    """Yield a private temporary path; on success it becomes `path`, whole and synced.

    On any failure the temporary is gone and `path` is as it was (or new and whole, if only
    its folder could not be synced). `rename` gives the temporary its name, or raises.

    Raises
    ------
    OSError
        If the file system refuses; it names `path`.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        sync(temporary)
        rename(temporary, path)
        temporary.unlink(missing_ok=True)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def publish_bytes(path: Path, data: bytes, *, over: bytes | None = None) -> None:
    """Write `data` to `path`: a reader sees the old file or the new one, never a part.

    Parameters
    ----------
    path, data
        The file, and what it shall hold.
    over
        What `seal_at` says of the file to replace; None to replace any.

    Raises
    ------
    OvertakenError
        If another process has replaced that file, or is about to.
    OSError
        If the file system refuses.
    """
    rename = Path.replace if over is None else functools.partial(_swap, over=over)
    with publishing(path, rename) as temporary:
        temporary.write_bytes(data)


def _swap(temporary: Path, path: Path, *, over: bytes) -> None:
    """Rename, if `path` is still the file that ends in `over`, and for one process alone.

    Who makes the hard link named after `over` first may replace it. The link vanishes in the
    renaming, so whoever makes it again finds the file replaced. No lock is taken that could
    be lost or left behind.
    """
    claim = _claim(path, over)
    try:
        claim.hardlink_to(temporary)
    except FileExistsError as error:
        raise OvertakenError(f"another run is about to publish {path}") from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        claim = temporary  # such a file system leaves a moment between the look and the renaming
    try:
        _expect(path, over)
        claim.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            claim.unlink(missing_ok=True)
        raise


def _expect(path: Path, over: bytes) -> None:
    if seal_at(path) != over:
        raise OvertakenError(f"another run has published {path}")


def _claim(path: Path, over: bytes) -> Path:
    return path.with_name(f"{_CLAIM}{hashlib.sha256(over).hexdigest()[:24]}")


def is_claimed(path: Path, over: bytes) -> bool:
    """Tell whether a process is about to replace `path`, which ends in `over`."""
    return _claim(path, over).exists()


def sync(path: Path) -> None:
    """Ask the operating system to put a file or directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_temporaries(folder: Path) -> None:
    """Remove what dead processes have left behind in `folder`."""
    claims = {}
    for path in folder.glob(f"{_CLAIM}*"):
        with contextlib.suppress(FileNotFoundError):
            claims[path] = path.stat().st_ino
    alive = set()
    for path in folder.glob(".tmp-*"):
        match = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if match and _is_stale(path, match):
                path.unlink()
            elif match:
                alive.add(path.stat().st_ino)
    for path, inode in claims.items():  # a claim lives as long as the temporary it links to
        with contextlib.suppress(FileNotFoundError):
            if inode not in alive and path.stat().st_ino == inode:
                path.unlink()


def _is_stale(path: Path, name: re.Match[str]) -> bool:
    if name["host"] != _host():  # such as a container that is gone: nobody writes for a day
        return time.time() - path.stat().st_mtime > _DAY
    pid = int(name["pid"])
    return name["process"] != _PROCESS if pid == os.getpid() else not _alive(pid)


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
