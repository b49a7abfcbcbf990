"""Fine-tuning from the cache against fine-tuning end to end with the lower part frozen.

usage: uv run python benchmarks/finetune.py DATA [--cut mixed8] [--weights registry] [--json FILE]

Both sides train the same network above the cut, float32, batches of 32, on the same batches
without augmentation. One is given features that were extracted once, and is what `headstart bench`
runs: convolutions of small maps as products of matrices, Adam in one pass. The other is given
pixels, runs the frozen part in every step, and is Keras' own layers and Keras' own Adam, as one
writes it. First the losses of 20 steps are compared, then epochs are timed, the sides in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from headstart._keras import import_keras
from headstart.extract import Settings, fill_store
from headstart.extract._keras_engine import gpus
from headstart.extract.base import keras_base
from headstart.extract.pixels import decode_rows
from headstart.extract.weights import find_weights

BATCH, STEPS, EPOCHS, SIZE, RATE = 32, 20, 3, 150, 1e-4


def from_cache(base: Any, cut: str, classes: int) -> Any:
    """Return the network above the cut as `headstart bench` trains it."""
    from headstart.heads import networks

    model = networks.tail(base, cut, classes)
    networks.compile_for_training(model, RATE)
    return model


def end_to_end(base: Any, cut: str, classes: int) -> Any:
    """Return the whole network, frozen up to the cut, as it is usually trained with Keras."""
    keras = import_keras()
    from headstart.heads import networks

    model = networks.above(base, cut, classes)
    compiled = bool(gpus())  # on CPUs XLA is slower
    adam = keras.optimizers.Adam(RATE)
    model.compile(adam, "sparse_categorical_crossentropy", jit_compile=compiled)
    return model


def start(model: Any, classes: int) -> None:
    """Start the classifier from the same weights on both sides."""
    from headstart.heads import networks

    width = model.layers[-1].input.shape[-1]
    weights = np.random.default_rng(0).normal(size=(classes, width)) / width
    networks.start_classifier(model, weights, np.zeros(classes))


def losses(model: Any, batches: Any) -> list[float]:
    """Return the loss of each of the first steps."""
    found = []
    for step in range(STEPS):
        found.append(float(model.train_on_batch(*batches[step % len(batches)])))
        model.reset_metrics()
    return found


def epoch(model: Any, batches: Any) -> float:
    """Return the seconds of one epoch."""
    started = time.perf_counter()
    for number in range(len(batches)):
        model.train_on_batch(*batches[number])
    return time.perf_counter() - started


def measure(data: Path, cut: str, weights: str, folder: Path) -> dict[str, Any]:
    """Extract, compare losses, time epochs."""
    settings = Settings(
        layers=(cut,), size=SIZE, weights=weights, engine="keras", precision="float32"
    )
    store, summary = fill_store(data, folder / "features", settings)
    pixels = np.load(decode_rows(store, summary.source, folder), mmap_mode="r")
    import_keras()
    from headstart.heads import networks

    codes, features = store.labels().astype(np.int64), store.features(cut, dtype="float16")
    whole = len(codes) // BATCH * BATCH  # whole batches: a shorter one would compile anew
    rows = np.random.default_rng(1).permutation(len(codes))[:whole]
    sides = {"cache": (from_cache, features), "end to end": (end_to_end, np.array(pixels))}
    models, data_of = {}, {}
    for name, (make, X) in sides.items():
        base = keras_base(find_weights(weights), size=SIZE)
        models[name] = make(base, cut, len(store.classes))
        start(models[name], len(store.classes))
        data_of[name] = networks.Batches(X, codes, rows, BATCH, seed=2)
    first = {name: losses(model, data_of[name]) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(EPOCHS):
        for name, model in models.items():
            seconds[name].append(epoch(model, data_of[name]))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "cut": cut,
        "rows": whole,
        "losses": first,
        "largest_difference": float(np.abs(np.subtract(*first.values())).max()),
        "epoch_seconds": seconds,
        "median_epoch_seconds": median,
        "times_faster": median["end to end"] / median["cache"],
        "extract_seconds": store.extract_seconds,
    }


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cut", default="mixed8")
    parser.add_argument("--weights", default="registry")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.data, arguments.cut, arguments.weights, Path(folder))
    print(f"finetune:{found['cut']} on {found['rows']:,} pictures, {STEPS} steps:")
    print(f"  largest difference of the losses  {found['largest_difference']:.2g} (bar 1e-3)")
    for name, seconds in found["median_epoch_seconds"].items():
        print(f"  {name:<10} {seconds:8.2f} s an epoch (median of {EPOCHS})")
    print(f"  {found['times_faster']:.2f} times faster from the cache (bar 3)")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
