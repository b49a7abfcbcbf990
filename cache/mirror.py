"""A store on object storage: a folder of this machine that its files come to and leave from."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from headstart.cache import _files, catalog
from headstart.cache.urls import file_system, is_url, one_line
from headstart.errors import CorruptStoreError, StoreError, StoreNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headstart.cache.progress import Progress
    from headstart.cache.shard import ShardInfo

_ORIGIN = "origin"
_LEDGER = "ledger.jsonl"


class Mirror:
    """The local side of a store at a URL.

    Files of a store never change under their names but for ``features.h5`` and the ledger. So
    shards are fetched once, when a row of theirs is first read, and sent once; whatever comes is
    checked against its seal before it gets its name here.

    Attributes
    ----------
    url
        The store's, without a "/" at its end.
    folder
        Where its files are on this machine: in the user's cache, or below
        ``$HEADSTART_STORES``.
    damaged
        Names of the shards that `pull` found missing or damaged at the URL; they are sent again.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, self._path = file_system(self.url)
        self.folder = _root() / hashlib.sha256(self.url.encode()).hexdigest()[:24]
        self.damaged: set[str] = set()
        self._over = b""

    @classmethod
    def of(cls, folder: Path) -> Mirror | None:
        """Return the mirror whose folder this is; a folder elsewhere is never taken for one."""
        if folder.absolute().parent != _root():
            return None
        try:
            return cls((folder / _ORIGIN).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self) -> Path:
        """Bring the catalog up to date with what is published, and return the folder.

        Raises
        ------
        StoreNotFoundError
            If nothing is published at the URL.
        StoreError
            If it cannot be reached.
        CorruptStoreError
            If what is published is damaged.
        """
        if not self._fetch_catalog():
            raise StoreNotFoundError(
                f"there is no store at {self.url}; make one with: headstart extract DATA -o "
                f"{self.url}"
            )
        return self.folder

    def pull(self, progress: Progress | None = None) -> Path:
        """Bring catalog and shards here, so that a run can go on with them.

        Raises
        ------
        CorruptStoreError
            If the catalog is damaged.
        StoreError
            If something cannot be reached.
        """
        if not self._fetch_catalog():
            with contextlib.suppress(FileNotFoundError):
                (self.folder / catalog.FILE).unlink()  # of a publication that did not arrive
            return self.folder
        shards = _shards(catalog.read(self.folder / catalog.FILE))
        for done, info in enumerate(shards, 1):
            try:
                self.fetch(info)
            except CorruptStoreError:
                self.damaged.add(info.file)
            if progress is not None:
                progress("fetching shards", done, len(shards))
        return self.folder

    def fetch(self, info: ShardInfo, *, again: bool = False) -> None:
        """Bring a shard here, unless it is here.

        Raises
        ------
        CorruptStoreError
            If it is missing at the URL, or is not what was published.
        StoreError
            If it cannot be reached.
        """
        path = self.folder / catalog.SHARDS / info.file
        with contextlib.suppress(FileNotFoundError):
            if not again and path.stat().st_size == info.bytes:
                return
        place = f"{catalog.SHARDS}/{info.file}"
        size = self._size(place)
        if size != info.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise CorruptStoreError(
                f"shard {self.url}/{place} {found}; expected {info.bytes} bytes; extract to "
                f"{self.url} again"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with _files.publishing(path) as temporary:
            with self._reaching():
                self._fs.get_file(self._at(place), str(temporary))
            if not _is(temporary, info):
                raise CorruptStoreError(
                    f"shard {self.url}/{place} is damaged; extract to {self.url} again"
                )

    def push(self, progress: Progress | None = None) -> int:
        """Send what is not there yet: shards, one by one, then the ledger, ``features.h5`` last.

        Whoever reads meanwhile sees the store as it was. What arrived before a failure is not
        sent again.

        Returns
        -------
        int
            How many shards were sent.

        Raises
        ------
        StoreError
            If something cannot be sent, or another run has published since `pull`.
        """
        shards, sent = _shards(catalog.read(self.folder / catalog.FILE)), 0
        for done, info in enumerate(shards, 1):
            sent += self._send(info)
            if progress is not None:
                progress("uploading shards", done, len(shards))
        if self._seal() != self._over:
            raise StoreError(
                f"another run has published {self.url} meanwhile; run the same command again, "
                "what was computed is kept"
            )
        data = (self.folder / catalog.FILE).read_bytes()
        if data[-_files.SEAL_BYTES :] == self._over:
            return sent
        with self._reaching():
            self._fs.pipe_file(self._at(_LEDGER), (self.folder / _LEDGER).read_bytes())
            self._fs.pipe_file(self._at(catalog.FILE), data)
        self._over = data[-_files.SEAL_BYTES :]
        return sent

    def _send(self, info: ShardInfo) -> bool:
        place = f"{catalog.SHARDS}/{info.file}"
        if info.file not in self.damaged and self._size(place) == info.bytes:
            return False
        with self._reaching():
            self._fs.makedirs(self._at(catalog.SHARDS), exist_ok=True)
            self._fs.put_file(str(self.folder / place), self._at(place))
        size = self._size(place)
        if size != info.bytes:
            raise StoreError(
                f"{self.url}/{place} has {size} bytes after it was sent, expected {info.bytes}; "
                "run the same command again"
            )
        self.damaged.discard(info.file)
        return True

    def _fetch_catalog(self) -> bool:
        """Bring ``features.h5`` and the ledger here if others are published; say if any are."""
        seal = self._seal()
        self._over = seal
        if not seal:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / catalog.SHARDS).mkdir(exist_ok=True)
        (self.folder / _ORIGIN).write_text(self.url, "utf-8")
        if _files.seal_at(self.folder / catalog.FILE) == seal:
            return True
        for name in (_LEDGER, catalog.FILE):
            with _files.publishing(self.folder / name) as temporary, self._reaching():
                self._fs.get_file(self._at(name), str(temporary))
        self._over = _files.seal_at(self.folder / catalog.FILE)
        return True

    def _seal(self) -> bytes:
        """Return the last bytes of the published ``features.h5``; empty if there is none."""
        size = self._size(catalog.FILE)
        if size is None:
            return b""
        with self._reaching():
            start = max(0, size - _files.SEAL_BYTES)
            return bytes(self._fs.cat_file(self._at(catalog.FILE), start=start, end=size))

    def _size(self, name: str) -> int | None:
        """Ask for one object, never for a listing: those may lag behind."""
        with self._reaching():
            self._fs.invalidate_cache()
            try:
                return int(self._fs.info(self._at(name))["size"])
            except FileNotFoundError:
                return None

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """Say in one typed line what a file system raises, which may be nearly anything."""
        try:
            yield
        except Exception as error:
            raise StoreError(
                f"{self.url} cannot be reached: {one_line(error)}; run the same command again"
            ) from error


def local_store(path: Any) -> Path:
    """Return the folder of a store: of one at a URL, its mirror's, brought up to date.

    Raises
    ------
    StoreNotFoundError, StoreError, CorruptStoreError
        If there is no store at the URL, or it cannot be had.
    """
    return Mirror(path).open() if is_url(path) else Path(path)


def require_folder(folder: Path) -> None:
    """Refuse to take a URL for a folder that could be made here.

    Raises
    ------
    StoreError
        If it is one.
    """
    if folder.parts and folder.parts[0].endswith(":") and len(folder.parts[0]) > 2:
        raise StoreError(
            f"{folder} is a URL; expected a folder on this machine. Stores at a URL can be "
            "extracted to, opened and verified"
        )


def _is(path: Path, info: ShardInfo) -> bool:
    try:
        return _files.check_seal(path) == info.sha256
    except CorruptStoreError:
        return False


def _shards(content: catalog.Catalog) -> list[ShardInfo]:
    return list(
        {info.file: info for index in content.layers.values() for info in index.shards}.values()
    )


def _root() -> Path:
    chosen = os.environ.get("HEADSTART_STORES")
    return (
        Path(chosen) if chosen else platformdirs.user_cache_path("headstart") / "stores"
    ).absolute()
