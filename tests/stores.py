"""Small stores made directly, without pictures."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache import Filling, Rows, Spec, Store

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SPEC = Spec(weights="f" * 64)


def picture_id(name: object) -> bytes:
    """Return the identity of a picture with this content."""
    return hashlib.sha256(str(name).encode()).hexdigest().encode()


def values(row: tuple[bytes, int], shape: tuple[int, ...] = (3, 3, 4)) -> NDArray[np.float16]:
    """Return the features of a row: any row, always the same."""
    seed = int(row[0][:12], 16) + row[1]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float16)


def rows_of(names: list[str], label: int = 0) -> Rows:
    """Return rows of pictures whose content is their name."""
    ids = [picture_id(name) for name in names]
    count = len(names)
    return Rows(("a", "b"), list(names), [""] * count, [label] * count, ids, [0] * count)


def with_views(names: list[str], count: int) -> Rows:
    """Return rows of pictures, each followed by so many views of it."""
    every = [name for name in names for _ in range(count + 1)]
    rows = rows_of(every)
    rows.view[:] = [view for _ in names for view in range(count + 1)]
    return rows


def fill(folder: Path, rows: Rows, *, spec: Spec = SPEC, shard: int = 4, **publish: Any) -> Filling:
    """Write what is missing in shards of `shard` rows, and publish."""
    filling = Filling(folder)
    filling.require(spec)
    missing = filling.missing(spec.name, rows.ids())
    for kind in (False, True):
        some = [row for row in missing if bool(row[1]) == kind]
        for first in range(0, len(some), shard):
            part = some[first : first + shard]
            own = spec.of(np.array([row[1] for row in part], np.uint8))
            filling.add(own, part, np.stack([values(row) for row in part]), {"weights": "w"})
    options: dict[str, Any] = {"left_out": [], "unreadable": {}, "settings": {}, "seconds": 1.0}
    layers = tuple(dict.fromkeys((*filling.layers, spec.name)))
    filling.publish(rows, layers, **(options | publish))
    return filling


def make_store(
    folder: Path, names: list[str], labels: list[int] | None = None, **options: Any
) -> Store:
    """Return a published store of these pictures."""
    rows = rows_of(names)
    if labels is not None:
        rows.label[:] = labels
    fill(folder, rows, **options)
    return Store.open(folder)
