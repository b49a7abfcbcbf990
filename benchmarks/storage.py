"""What a store takes on the disk, and how fast its rows are read back.

    python benchmarks/storage.py STORE [LAYER]

Headstart and h5py alone read all rows, as they are stored, in turns; medians of core-seconds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

import h5py
import numpy as np

import headstart

if TYPE_CHECKING:
    from headstart import Store

READ = "read, images/core-s"
_ROUNDS = 5


def storage(store: Store, layer: str = "mixed7") -> dict[str, float]:
    """KB a picture in the shards, and rows a core-second read back: ours, h5py's, in float32."""
    size = sum(path.stat().st_size for path in (store.path / "shards").glob(f"{layer}-*"))

    def alone() -> None:
        with h5py.File(store.path / "features.h5") as file:
            file[layer][:]

    ways = {
        READ: lambda: store.features(layer, dtype="float16"),
        f"{READ}, in float32": lambda: store.features(layer),
        f"{READ}, by h5py alone": alone,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, read in ways.items():
            started = time.process_time()
            read()
            seconds[name].append(time.process_time() - started)
    distinct = len(np.unique(store.image_sha256()))
    return {
        "KB/image": round(size / distinct / 1000, 1),
        **{name: round(len(store) / statistics.median(taken)) for name, taken in seconds.items()},
    }


if __name__ == "__main__":
    print(json.dumps(storage(headstart.Store.open(sys.argv[1]), *sys.argv[2:3]), indent=2))
