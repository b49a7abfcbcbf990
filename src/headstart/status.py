"""What is in a store, and what an extraction would add to it now."""

from __future__ import annotations

import collections
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cache import Filling, Store
from headstart.errors import StoreError
from headstart.extract import Speed
from headstart.extract.changes import changes
from headstart.extract.plan import Settings, make_plan, read_source, validation, views

if TYPE_CHECKING:
    import os

    from headstart.cache import LeftOut, Progress
    from headstart.heads.model import Model


@dataclass(frozen=True)
class Status:
    """What a store holds.

    Attributes
    ----------
    rows : int
        Pictures, and augmented views of them.
    pictures : int
    viewed : int
        Of how many pictures there are views.
    classes, splits : dict
        Of how many pictures.
    """

    store: str
    rows: int
    pictures: int
    viewed: int
    classes: dict[str, int]
    splits: dict[str, int]
    layers: dict[str, dict[str, Any]]
    bytes: int
    unused_bytes: int
    duplicates: int
    left_out: tuple[LeftOut, ...]
    extract_seconds: float
    created: str
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        left_out = [row._asdict() for row in self.left_out]
        return {**asdict(self), "left_out": left_out}


@dataclass(frozen=True)
class Staleness:
    """How a dataset differs from a store, and what `extract` would do about it."""

    data: str
    to_compute: int
    new: tuple[str, ...]
    changed: tuple[str, ...]
    moved: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[str, ...]
    resplit: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "left_out": [row._asdict() for row in self.left_out]}


def status(path: str | os.PathLike[str]) -> Status:
    """Say what is in a store, from its catalog alone.

    Raises
    ------
    StoreNotFoundError, StoreVersionError, CorruptStoreError
        If it cannot be opened.
    """
    store = Store.open(path)
    content = store.catalog
    itself = store.views() == 0
    labels = collections.Counter(store.labels()[itself].tolist())
    classes = {name: labels[number] for number, name in enumerate(store.classes)}
    if labels[-1]:
        classes["(unknown)"] = labels[-1]
    used, unused = _bytes(store)
    return Status(
        store=store.place,
        rows=len(store),
        pictures=int(itself.sum()),
        viewed=int((store.views() == 1).sum()),
        classes=classes,
        splits=dict(collections.Counter(store.splits()[itself].tolist())),
        layers={
            name: {"shape": list(index.shape), "spec": asdict(index.spec)}
            for name, index in content.layers.items()
        },
        bytes=used,
        unused_bytes=unused,
        duplicates=len(store) - len(set(zip(content.image_sha256, content.view, strict=True))),
        left_out=content.left_out,
        extract_seconds=content.extract_seconds,
        created=content.created,
        settings=content.settings,
    )


def model_status(path: str | os.PathLike[str]) -> Model | None:
    """Return a model, or None where the path is not that of a model.

    Raises
    ------
    ModelError
        If it is a model, and damaged.
    """
    place = Path(path)
    if not place.is_file():
        return None
    with place.open("rb") as file:
        if file.read(9)[8:] != b"{":  # a safetensors file: the length of its header, then JSON
            return None
    from headstart.heads.model import Model

    return Model.load(place)


def staleness(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Staleness:
    """Compare a store with a dataset, without computing anything.

    Parameters
    ----------
    path
        The store; not a packed one, which no dataset can be added to.
    data
        A dataset, as for `extract`.
    workers
        Threads that read files; as many as `extract` takes, by default.
    progress
        Called with stage, done, total.

    Raises
    ------
    DataError
        If the dataset cannot be used.
    StoreError
        If there is no store, or it is a packed file.
    """
    if Store.open(path).derived is None:  # the clear errors of opening come first
        raise StoreError(
            f"{path} is a packed file, to which nothing can be added; compare the data with the "
            "store's folder"
        )
    filling, settings = Filling(Path(path)), Settings()
    count = views(filling, settings)
    share = validation(filling, settings)
    threads = Speed(workers=workers).threads
    source = read_source(data, validation=share, views=count, workers=threads, progress=progress)
    plan = make_plan(source, filling, settings)
    source = source.usable(plan.unreadable, {})
    found = changes(filling, source.rows())
    return Staleness(
        data=str(data),
        to_compute=len(plan.to_compute),
        new=found.new,
        changed=found.changed,
        moved=found.moved,
        removed=found.removed,
        relabelled=found.relabelled,
        resplit=found.resplit,
        left_out=source.left_out,
    )


def _bytes(store: Store) -> tuple[int, int]:
    """Return the bytes of the store's files, and of the shards that no row needs."""
    if store.path.is_file():
        return store.path.stat().st_size, 0
    if store.place != str(store.path):  # at a URL: what is here is not what is there
        layers = store.catalog.layers.values()
        shards = {info.file: info.bytes for index in layers for info in index.shards}
        files = [store.path / name for name in ("features.h5", "ledger.jsonl")]
        return sum(shards.values()) + sum(file.stat().st_size for file in files), 0
    total = sum(p.stat().st_size for p in store.path.rglob("*") if p.is_file())
    needed = 0
    for index in store.catalog.layers.values():
        held = index.starts.searchsorted(index.position, "right") - 1
        needed += sum(index.shards[number].bytes for number in set(held.tolist()))
    listed = sum(p.stat().st_size for p in (store.path / "shards").glob("*.h5"))
    return total, listed - needed
