"""Rows of a store in the containers of other libraries, each imported when it is asked for."""

from __future__ import annotations

import importlib
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import MissingExtraError, StoreError, install

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

    from headstart.cache.store import Pool, Store

_READ = 512  # rows read at once, about
_PIECE = 32  # neighbouring rows that stay together until they are read


def to_numpy(
    store: Store, layer: str | None, *, split: str | None, pool: Pool, dtype: DTypeLike
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return features and labels of the labelled rows; see `Store.to_numpy`."""
    rows = _labelled(store, split)
    return store.features(layer, rows=rows, pool=pool, dtype=dtype), store.labels()[rows]


def to_tf_dataset(
    store: Store,
    layer: str | None,
    *,
    split: str | None,
    pool: Pool,
    dtype: DTypeLike,
    batch_size: int,
    shuffle: bool,
    seed: int,
) -> Any:
    """Return a ``tf.data.Dataset`` of batches; see `Store.to_tf_dataset`."""
    if batch_size < 1:
        raise StoreError(f"batch_size must be 1 or more; found {batch_size}")
    rows, labels = _labelled(store, split), store.labels()
    kind, epochs = np.dtype(dtype), itertools.count(seed)
    shape = store.features(layer, rows=rows[:0], pool=pool).shape[1:]
    tensorflow = importlib.import_module("tensorflow")

    def batches() -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]:
        draw = np.random.default_rng(next(epochs)) if shuffle else None
        for part in parts(rows, batch_size * max(1, _READ // batch_size), draw):
            features = store.features(layer, rows=part, pool=pool, dtype=kind)
            for first in range(0, len(part), batch_size):
                some = slice(first, first + batch_size)
                yield features[some], labels[part[some]]

    spec = tensorflow.TensorSpec
    signature = (spec((None, *shape), kind.name), spec((None,), "int32"))
    found = tensorflow.data.Dataset.from_generator(batches, output_signature=signature)
    count = -(-len(rows) // batch_size)
    return found.apply(tensorflow.data.experimental.assert_cardinality(count))


def parts(
    rows: NDArray[np.int64], size: int, draw: np.random.Generator | None
) -> Iterator[NDArray[np.int64]]:
    """Yield rows in parts of `size`, the last one perhaps smaller, each row once.

    Where an order is drawn, neighbours in the store are read together, for speed: pieces of a few
    of them come in any order, and so do the rows of a part.
    """
    if draw is not None:
        pieces = [rows[first : first + _PIECE] for first in range(0, len(rows), _PIECE)]
        order = draw.permutation(len(pieces))
        rows = np.concatenate([pieces[i] for i in order]) if pieces else rows
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        yield part if draw is None else draw.permutation(part)


def to_frame(store: Store) -> Any:
    """Return a ``pandas.DataFrame`` of the rows; see `Store.to_frame`."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise MissingExtraError(f"a DataFrame needs pandas; {install('pandas')}") from error
    content = store.catalog
    label = pandas.Categorical.from_codes(store.labels(), categories=list(store.classes))
    columns: dict[str, Any] = {
        "path": store.paths(),
        "label": label,
        "split": store.splits(),
        "view": store.views(),
        "image_sha256": [digest.decode() for digest in store.image_sha256().tolist()],
    }
    further = {name: list(values) for name, values in content.columns.items()}
    frame = pandas.DataFrame({**further, **columns})
    return frame[[*columns, *(name for name in further if name not in columns)]]


def _labelled(store: Store, split: str | None) -> NDArray[np.int64]:
    rows = store.rows(split)
    return rows[store.labels()[rows] >= 0]
