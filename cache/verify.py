"""Read a whole store back and check it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headstart.cache import _files, catalog
from headstart.cache.mirror import local_store
from headstart.cache.shard import NAME, read_head, rows_sha256
from headstart.cache.store import Store
from headstart.errors import CorruptStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headstart.cache.catalog import LayerIndex
    from headstart.cache.progress import Progress
    from headstart.cache.shard import ShardInfo


class Problem(NamedTuple):
    """A file of a store that is not what it should be."""

    file: str
    what: str


@dataclass(frozen=True)
class Verification:
    """What `verify` found: nothing wrong if `problems` is empty."""

    store: str
    rows: int
    shards: int
    bytes: int
    problems: tuple[Problem, ...]
    #: Sound shards that no row needs: of an unfinished run, or of pictures since removed.
    unlisted: tuple[str, ...]
    #: Paths of the pictures whose features a repair computed again before this reading.
    repaired: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        problems = [problem._asdict() for problem in self.problems]
        return {**asdict(self), "problems": problems, "sound": self.sound}

    @property
    def sound(self) -> bool:
        """Tell whether every row can be trusted."""
        return not self.problems


def verify(path: str | os.PathLike[str], progress: Progress | None = None) -> Verification:
    """Read every file of a store and check it against its checksums and the catalog.

    Parameters
    ----------
    path
        A store, or a packed file.
    progress
        Called with "verifying", the bytes read and the bytes there are.

    Raises
    ------
    StoreNotFoundError, StoreVersionError, StoreError
        If there is no store, a newer one, or a file of another kind. Damage is reported, not
        raised.
    """
    folder = local_store(path)
    try:
        inside = folder / catalog.FILE  # whatever it is
        content = catalog.read(inside if os.path.lexists(inside) else catalog.file_of(folder))
    except CorruptStoreError as error:
        problem = Problem(catalog.FILE if folder.is_dir() else folder.name, str(error))
        return Verification(str(folder), 0, 0, 0, (problem,), ())
    store = Store(folder, content)
    problems: list[Problem] = []
    done, shards = 0, [info for index in content.layers.values() for info in index.shards]
    total = sum(info.bytes for info in shards)
    for index in content.layers.values():
        for number, info in enumerate(index.shards):
            problems += _shard_problems(store, index, number)
            done += info.bytes
            if progress is not None:
                progress("verifying", done, total)
    problems += _other_problems(store)
    unlisted = () if folder.is_file() else tuple(_unlisted(store, problems))
    return Verification(store.place, len(content), len(shards), total, tuple(problems), unlisted)


def _shard_problems(store: Store, index: LayerIndex, number: int) -> Iterator[Problem]:
    info = index.shards[number]
    name = f"{catalog.SHARDS}/{info.file}" if info.file else store.path.name
    try:
        store.check_shard(info, again=True)
        if info.file:
            _check_content(store.source(info), index, info, int(index.starts[number]))
        else:
            for _ in store.blocks(index.spec.name):
                pass
    except CorruptStoreError as error:
        yield Problem(name, str(error))


def _check_content(path: Path, index: LayerIndex, info: ShardInfo, start: int) -> None:
    """Read every row of a shard and compare with what the shard and the catalog say."""
    head = read_head(path)
    part = slice(start, start + info.rows)
    same = np.array_equal(head.image_sha256, index.image_sha256[part])
    same = same and np.array_equal(head.view, index.view[part])
    if head.spec.of(head.view) != index.spec.of(head.view) or not same:
        raise CorruptStoreError(f"{path} holds other rows than {catalog.FILE} says")
    found = rows_sha256(path, head)
    if found != head.rows_sha256:
        raise CorruptStoreError(f"{path}: the rows do not have the checksum they were written with")


def _other_problems(store: Store) -> Iterator[Problem]:
    if store.path.is_file():
        return
    ledger = store.path / "ledger.jsonl"
    if not ledger.is_file():
        yield Problem(ledger.name, f"{ledger} is missing")
    elif ledger.read_bytes() != catalog.ledger_text(store.catalog):
        yield Problem(ledger.name, f"{ledger} differs from the ledger in {catalog.FILE}")


def _unlisted(store: Store, problems: list[Problem]) -> Iterator[str]:
    """Yield sound shards beside the listed ones; add the damaged to `problems`."""
    listed = {info.file for index in store.catalog.layers.values() for info in index.shards}
    for path in sorted((store.path / catalog.SHARDS).glob("*.h5")):
        if path.name in listed or not NAME.fullmatch(path.name):
            continue
        name = f"{catalog.SHARDS}/{path.name}"
        try:
            _files.check_seal(path)
            yield name
        except CorruptStoreError as error:
            problems.append(Problem(name, str(error)))
