"""Extraction on a GPU: the base alone against the card's own rate, and end to end against decoding.

    python benchmarks/gpu.py --json FILE             # Keras on JAX; needs jax with CUDA
    python benchmarks/gpu.py --quick                 # a look whether it works, on any device

The share of the card is that of its own measured bfloat16 rate, multiplying large matrices. The
decode bound is how many pictures a second the decoding threads alone deliver on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jpegs import draw

if TYPE_CHECKING:
    from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "jax")
LAYER, SIZE = "mixed7", 150


def main() -> None:
    options = _options()
    import jax

    from headstart.extract.weights import find_weights

    device = jax.devices()[0]
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{device.device_kind} ({device.platform}), {jax.local_device_count()} of them",
        "jax": jax.__version__,
        "cores": len(os.sched_getaffinity(0)),
    }
    if device.platform != "gpu":
        print("No GPU: these figures say that the script works, and nothing else.")
    rate = report["bfloat16 matmul, TFLOP/s"] = matmul(options.matrix)
    weights = find_weights(options.weights)
    report["base alone"] = [
        alone(weights, precision, batch_size, rate)
        for precision in ("bfloat16", "float32")
        for batch_size in options.batch_sizes
    ]
    best = max(report["base alone"][: len(options.batch_sizes)], key=lambda row: row["images/s"])
    with tempfile.TemporaryDirectory(prefix="headstart-gpu-") as scratch:
        draw(Path(scratch) / "pictures", options.images)
        report["end to end"] = end_to_end(Path(scratch), options.weights, best["batch_size"])
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--matrix", type=int, default=8192, help="rows of the matrices multiplied")
    parser.add_argument("--weights", default="random", help="as for headstart extract")
    parser.add_argument("--quick", action="store_true", help="64 images, small matrices")
    parser.add_argument("--json", type=Path, help="where to write the report")
    options = parser.parse_args()
    if options.quick:
        options.images, options.batch_sizes, options.matrix = 64, [32], 1024
    return options


def seconds(work: Callable[[], Any], repeats: int = 10) -> float:
    """Median of what `work` takes, after it has run twice unmeasured."""
    taken = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[2:])


def matmul(size: int) -> float:
    """Measure the rate at which the device multiplies bfloat16 matrices, in TFLOP/s."""
    import jax
    import jax.numpy as jnp

    left = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    chain = jax.jit(lambda x: x @ left @ left @ left @ left)
    taken = seconds(lambda: chain(left).block_until_ready())
    return float(f"{4 * 2 * size**3 / taken / 1e12:.4g}")


def alone(weights: Any, precision: str, batch_size: int, rate: float) -> dict[str, Any]:
    """Measure the base on pictures that are on the device, and with their way there and back."""
    import jax

    from headstart.extract.base import layer_table, load_base

    base = load_base(weights, size=SIZE, layers=[LAYER], precision=precision, batch_size=batch_size)
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, SIZE, SIZE, 3), np.uint8)
    there_and_back = seconds(lambda: base(pixels))
    held, program = jax.device_put(pixels), base._engine._run  # noqa: SLF001 - without its way there
    on_device = seconds(lambda: jax.block_until_ready(program(held)))
    (gflop,) = (info.gflop for info in layer_table(SIZE) if info.name == LAYER)
    tflops = gflop * batch_size / on_device / 1000
    return {
        "precision": precision,
        "batch_size": batch_size,
        "images/s": round(batch_size / on_device, 1),
        "TFLOP/s": float(f"{tflops:.4g}"),
        "share of the card's bfloat16 rate": round(tflops / rate, 3),
        "images/s, with copying there and back": round(batch_size / there_and_back, 1),
    }


def end_to_end(scratch: Path, weights: str, batch_size: int) -> dict[str, Any]:
    """Measure files to a closed store, and what decoding alone would allow."""
    import headstart

    pictures = scratch / "pictures"
    count = len(list(pictures.rglob("*.jpg")))
    limits: list[str] = []
    headstart.extract(pictures, scratch / "warm", weights=weights, batch_size=batch_size)
    started = time.perf_counter()
    headstart.extract(
        pictures,
        scratch / "store",
        weights=weights,
        batch_size=batch_size,
        progress=lambda stage, *_: limits.append(stage),
    )
    whole = time.perf_counter() - started
    decoding = decode_alone(pictures)
    return {
        "images/s": round(count / whole, 1),
        "decode bound, images/s": round(count / decoding, 1),
        "share of the decode bound": round(decoding / whole, 3),
        "the run's own words": limits[-1],
    }


def decode_alone(pictures: Path) -> float:
    """Return the seconds that the decoding threads take when nothing else runs."""
    import hashlib

    from headstart.extract.decode import MAX_PIXELS
    from headstart.extract.pipeline import Decoder, Decoding, Job
    from headstart.extract.run import Speed

    jobs = []
    for file in sorted(pictures.rglob("*.jpg")):
        digest = hashlib.sha256(file.read_bytes()).hexdigest().encode()
        jobs.append(Job((digest, 0), file, file.name))
    threads = Speed().threads
    started = time.perf_counter()
    decoding = Decoding(SIZE, MAX_PIXELS)
    with Decoder(jobs, decoding, workers=threads, ahead=4 * threads) as decoder:
        for _ in decoder:
            pass
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
