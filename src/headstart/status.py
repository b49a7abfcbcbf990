"""What is in a store, and what an extraction would add to it now."""

from __future__ import annotations

import collections
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cache import Filling, Store
from headstart.extract.plan import Settings, make_plan, read_source, validation

if TYPE_CHECKING:
    import os

    from headstart.cache import LeftOut
    from headstart.extract.plan import Progress


@dataclass(frozen=True)
class Status:
    """What a store holds."""

    store: str
    rows: int
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
    labels = collections.Counter(store.labels().tolist())
    classes = {name: labels[number] for number, name in enumerate(store.classes)}
    if labels[-1]:
        classes["(unknown)"] = labels[-1]
    used, unused = _bytes(store)
    return Status(
        store=str(store.path),
        rows=len(store),
        classes=classes,
        splits=dict(collections.Counter(content.split)),
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


def staleness(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    workers: int = 4,
    progress: Progress | None = None,
) -> Staleness:
    """Compare a store with a dataset, without computing anything.

    Raises
    ------
    DataError
        If the dataset cannot be used.
    """
    Store.open(path)  # the clear errors of opening come first
    filling, settings = Filling(Path(path)), Settings()
    share = validation(filling, settings)
    source = read_source(data, validation=share, workers=workers, progress=progress)
    plan = make_plan(source, filling, settings)
    rows, left_out = plan.rows(plan.unreadable)
    before = filling.before
    assert before is not None
    held = dict(zip(before.path, zip(before.image_sha256, before.label, strict=True), strict=True))
    known = set(before.image_sha256.tolist())
    names = dict(zip(rows.path, zip(rows.image_sha256, rows.label, strict=True), strict=True))
    classes = (before.classes, source.dataset.classes)
    return Staleness(
        data=str(data),
        to_compute=len(plan.to_compute),
        new=tuple(p for p, (digest, _) in names.items() if p not in held and digest not in known),
        changed=tuple(p for p, (d, _) in names.items() if p in held and held[p][0] != d),
        moved=tuple(p for p, (digest, _) in names.items() if p not in held and digest in known),
        removed=tuple(p for p in held if p not in names),
        relabelled=tuple(
            p
            for p, (_, label) in names.items()
            if p in held and _class(classes[0], held[p][1]) != _class(classes[1], label)
        ),
        left_out=tuple(left_out),
    )


def _class(classes: tuple[str, ...], label: int) -> str:
    return classes[label] if label >= 0 else ""


def _bytes(store: Store) -> tuple[int, int]:
    """Return the bytes of the store's files, and of the shards that no row needs."""
    if store.path.is_file():
        return store.path.stat().st_size, 0
    total = sum(p.stat().st_size for p in store.path.rglob("*") if p.is_file())
    needed = 0
    for index in store.catalog.layers.values():
        held = index.starts.searchsorted(index.position, "right") - 1
        needed += sum(index.shards[number].bytes for number in set(held.tolist()))
    listed = sum(p.stat().st_size for p in (store.path / "shards").glob("*.h5"))
    return total, listed - needed
