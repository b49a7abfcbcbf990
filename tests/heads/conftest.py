"""Stores with features that are drawn, not extracted: classes overlap, most numbers are zero."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart.cache import Filling, Rows, Spec, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    MakeStore = Callable[..., Store]

SHAPE = (3, 3, 40)


def _draw(
    n: int, *, classes: int = 3, shape: Sequence[int] = SHAPE, seed: int = 0, signal: float = 0.12
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return features ``(n, *shape)`` and labels: relu of noise around a mean of each class."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % classes
    means = rng.normal(size=(classes, *shape)) * signal
    noise = rng.normal(size=(n, *shape))
    return np.maximum(means[label] + noise - 0.6, 0).astype(np.float16), label


@pytest.fixture(scope="session", name="draw")
def _draw_fixture() -> Callable[..., Any]:
    """Return a function that draws features and labels."""
    return _draw


def identity(row: NDArray[Any]) -> bytes:
    """Return the hash of the picture that would have these features."""
    return hashlib.sha256(row.tobytes()).hexdigest().encode()


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Return a function that publishes a store."""

    def make(
        features: NDArray[Any],
        label: Sequence[int] | NDArray[Any],
        *,
        split: Sequence[str] | None = None,
        view: Sequence[int] | None = None,
        picture: Sequence[bytes] | None = None,
        classes: Sequence[str] | None = None,
        columns: dict[str, list[str]] | None = None,
        shard_rows: int = 64,
        name: str = "drawn.features",
    ) -> Store:
        n = len(features)
        rows = Rows(
            classes=tuple(classes or [f"class {i}" for i in range(int(max(label)) + 1)]),
            path=[f"{i:05}.png" for i in range(n)],
            split=list(split or [""] * n),
            label=[int(x) for x in label],
            image_sha256=list(picture or map(identity, features)),
            view=list(view or [0] * n),
            columns=columns or {},
        )
        spec = Spec(weights="0" * 64, dtype=str(features.dtype))
        filling = Filling(tmp_path / name)
        new = {row: i for i, row in reversed(list(enumerate(rows.ids())))}
        chosen = sorted(new.values())
        for first in range(0, len(chosen), shard_rows):
            part = chosen[first : first + shard_rows]
            filling.add(spec, [rows.ids()[i] for i in part], features[part], {})
        filling.publish(rows, [spec.name], left_out=[], unreadable={}, settings={}, seconds=1.5)
        return Store.open(tmp_path / name)

    return make
