"""What 10^5 to 10^9 pictures would take, computed from what each stage costs on this machine.

    python benchmarks/scaling.py PICTURES --page docs/scaling.md

Costs are core-seconds (user and system), so that a busy machine changes them little; of the
driver also bytes of memory a row. No GPU is measured: its rate is a parameter, and an assumption.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart._hardware import machine
from headstart.cache import Filling, Rows, write_rows
from headstart.cache.spec import Spec
from headstart.extract.dataset import list_dataset
from headstart.extract.decode import MAX_PIXELS, decode
from headstart.extract.hashing import hash_files, read_file
from headstart.extract.picture import Entry, make_dataset
from headstart.extract.plan import Source, jobs
from headstart.heads.modes import peak_mb

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURES = [10**power for power in range(5, 10)]
GPUS = (1, 4, 16, 64, 256)
SHARD = 213  # rows of 16 MB
_KEPT: list[Any] = []  # what a driver would hold, too


@dataclass(frozen=True)
class Costs:
    """Of one picture: core-seconds of each stage, bytes, and what the driver needs for a row."""

    hashing: float
    decoding: float
    base: float
    writing: float
    listing: float
    taking: float
    publishing: float
    row_memory: float
    picture_bytes: float
    stored_bytes: float


def core_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    before = time.process_time()
    found = work()
    return time.process_time() - before, found


def measure(data: Path, weights: str, count: int, rows: int) -> Costs:
    seconds, dataset = core_seconds(lambda: list_dataset(data))
    listing = seconds / len(dataset.pictures)
    files = [picture.file for picture in dataset.pictures][:count]
    hashing, _ = core_seconds(lambda: hash_files(files, workers=2))
    content = [read_file(file) for file in files]
    decoding, pixels = core_seconds(
        lambda: np.stack([decode(one, 150, max_pixels=MAX_PIXELS) for one in content])
    )
    features, base = _base(pixels, weights)
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder)
        ids = [(hashlib.sha256(one).hexdigest().encode(), 0) for one in content]
        parts = range(0, len(ids), SHARD)
        writing, _ = core_seconds(
            lambda: [
                write_rows(
                    shards, Spec(weights="0" * 64), ids[p : p + SHARD], features[p : p + SHARD], {}
                )
                for p in parts
            ]
        )
        stored = sum(file.stat().st_size for file in shards.iterdir())
    n = len(files)
    return Costs(
        hashing=hashing / n,
        decoding=decoding / n,
        base=base / n,
        writing=writing / n,
        listing=listing,
        picture_bytes=sum(map(len, content)) / n,
        stored_bytes=stored / n,
        **_driver(rows),
    )


def _base(pixels: np.ndarray, weights: str) -> tuple[np.ndarray, float]:
    from headstart.extract.base import load_base
    from headstart.extract.weights import find_weights

    base = load_base(
        find_weights(weights), size=150, layers=["mixed7"], engine="auto", precision="auto"
    )
    batches = [pixels[start : start + 32] for start in range(0, len(pixels), 32)]
    base(batches[0])
    seconds, found = core_seconds(lambda: [base(batch)["mixed7"] for batch in batches])
    return np.concatenate(found).astype(np.float16), seconds


def _driver(rows: int) -> dict[str, float]:
    """Return what taking and publishing rows costs the driver, in a process of its own."""
    found = subprocess.run(
        [sys.executable, __file__, "--driver", str(rows)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return dict(zip(("taking", "publishing", "row_memory"), map(float, found), strict=True))


def driver(rows: int) -> None:
    """Fill a store with rows of 4 numbers: the driver never sees what features are made of."""
    spec = Spec(weights="0" * 64)
    ids = [(hashlib.sha256(str(n).encode()).hexdigest().encode(), 0) for n in range(rows)]
    features = np.zeros((SHARD, 1, 1, 4), np.float16)
    with tempfile.TemporaryDirectory() as folder:
        filling = Filling(Path(folder))
        filling.make_folder()
        start = peak_mb()
        heads = []
        for first in range(0, rows, SHARD):
            part = ids[first : first + SHARD]
            heads.append(write_rows(filling.shards, spec, part, features[: len(part)], {}))
        taking, _ = core_seconds(lambda: [filling.take(head) for head in heads])
        listed = _planned(ids)
        publishing, _ = core_seconds(
            lambda: filling.publish(
                listed, ("mixed7",), left_out=(), unreadable={}, settings={}, seconds=0.0
            )
        )
        memory = (peak_mb() - start) * 1e6
    sys.stdout.write(f"{taking / rows} {publishing / rows} {memory / rows}\n")


def _planned(ids: list[tuple[bytes, int]]) -> Rows:
    """Return the rows of pictures, which are listed and made into jobs as in a run."""
    root = Path("/somewhere/pictures")
    paths = [f"class{n % 2}/{n:012d}.jpg" for n in range(len(ids))]
    entries = [Entry(path, root / path, path[:6], "") for path in paths]
    dataset = make_dataset(root, entries, [], 0)
    source = Source(dataset, tuple(row[0].decode() for row in ids), ())
    _KEPT.append(jobs(source))
    return source.rows()


def check(data: Path, weights: str, workers: int) -> float:
    """Return the core-seconds of filling a store with `workers` processes, publication included."""
    before = os.times()
    with tempfile.TemporaryDirectory() as folder:
        words = [
            sys.executable,
            "-m",
            "headstart",
            "extract",
            str(data),
            "-o",
            f"{folder}/store",
            "--weights",
            weights,
            "--quiet",
        ]
        more = [[]] if workers == 1 else [["--part", f"{n + 1}/{workers}"] for n in range(workers)]
        for one in [subprocess.Popen([*words, *part]) for part in more]:
            if one.wait():
                raise SystemExit("a worker failed")
        if workers > 1:
            subprocess.run(words, check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def seconds(costs: Costs, pictures: int, gpus: int, rate: float, cores: int) -> dict[str, float]:
    """Return the time of each stage where it has the cluster, or the driver, to itself."""
    driver_row = costs.hashing + costs.listing + costs.taking + costs.publishing
    return {
        "driver": driver_row * pictures,
        "GPU": pictures / (rate * gpus),
        "cores": (costs.hashing + costs.decoding + costs.writing) * pictures / (cores * gpus),
    }


def in_units(value: float, units: dict[str, float]) -> str:
    """Return a number in the largest unit of which it has one or more, else the smallest."""
    unit = next((name for name, size in units.items() if value >= size), [*units][-1])
    value /= units[unit]
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"


TIME = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
BYTES = {"PB": 1e15, "TB": 1e12, "GB": 1e9}


def page(costs: Costs, options: argparse.Namespace, checked: dict[int, tuple[float, float]]) -> str:
    lines = []
    for pictures in PICTURES:
        for gpus in GPUS:
            told = seconds(costs, pictures, gpus, options.gpu_rate, options.cores)
            limit = max(told, key=lambda name: told[name])
            cells = [f"{pictures:,}", f"{gpus}", *(in_units(part, TIME) for part in told.values())]
            cells += [limit, in_units(costs.stored_bytes * pictures, BYTES)]
            cells += [in_units(costs.row_memory * pictures, BYTES)]
            lines.append(f"| {' | '.join(cells)} |")
    stage = [
        ("reading and hashing, by the driver and again by a worker", costs.hashing),
        ("decoding", costs.decoding),
        ("the base, on a processor", costs.base),
        ("compressing and writing", costs.writing),
        ("listing (driver)", costs.listing),
        ("taking a shard (driver)", costs.taking),
        ("publishing (driver)", costs.publishing),
    ]
    measured = "\n".join(f"| {name} | {1e6 * value:,.1f} |" for name, value in stage)
    runs = "\n".join(
        f"| {n} | {predicted:.1f} | {found:.1f} | {found / predicted:.2f} |"
        for n, (predicted, found) in checked.items()
    )
    return TEXT.format(
        command=f"python benchmarks/scaling.py PICTURES --count {options.count} "
        f"--rows {options.rows} --gpu-rate {options.gpu_rate:g} --cores {options.cores}",
        date=time.strftime("%Y-%m-%d"),
        machine=machine(),
        stages=measured,
        runs=runs,
        table="\n".join(lines),
        rate=options.gpu_rate,
        cores=options.cores,
        picture=costs.picture_bytes / 1e3,
        stored=costs.stored_bytes / 1e3,
        memory=costs.row_memory,
        rows64=64e3 / costs.row_memory,
        count=options.count,
        rows=options.rows,
        total=options.total,
    )


TEXT = """\
# How far it goes

Written by `{command}`,
{date}, on {machine}.
Costs are core-seconds (user and system) of {count} pictures at 150x150 to `mixed7`; those of the
driver are of {rows:,} rows of a stand-in store, in the order of its shards, and taken to grow in
proportion.

| stage | core-microseconds a picture |
|---|---|
{stages}

A picture has {picture:.1f} KB, its row {stored:.1f} KB in a shard; the driver holds {memory:.0f}
bytes of memory a row, in its listing, plan and index.

## Checked
Predicted from the stages, and measured on runs over {total:,} such pictures, in core-seconds. The
measured ones include the start of each program, which the prediction leaves out: with two parts
there are three, the last of which publishes. Waiting is not in either.

| workers (`--part`) | predicted | measured | ratio |
|---|---|---|---|
{runs}

## Computed
**Assumed, not measured: a GPU runs the base at {rate:g} pictures/s and has {cores} processor cores
beside it; storage and network keep up; stages overlap perfectly.** The time that each part would
need; the largest is the bottleneck. The driver is one process on one core, with `--on`; `--part`
shares computing, but each part hashes everything.

| pictures | GPUs | driver | GPUs' time | cores' time | bottleneck | store | driver's memory |
|---|---|---|---|---|---|---|---|
{table}

## Where the design stops
- **One driver reads and hashes every picture**, whatever the number of GPUs. Hashing runs in
  threads, so that several cores divide the time, if the disk keeps up; the table takes one core.
- **The driver's memory**: 64 GB hold about {rows64:.0f} million rows.
- **One `features.h5`**: a virtual dataset over all shards, written as a whole at each publication,
  with a mapping for each run of rows of a shard that lie together: renaming pictures at random
  leaves more and shorter runs than were measured.
- **Features are large**: see the column of the store; pooled ones (`--pool`) have 49 times fewer
  numbers.

What would come next: hashing by the workers, with the driver merging digests; then a store of
stores, one per range of digests, each published by itself, and readers that chain them.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--weights", default="registry")
    parser.add_argument("--count", type=int, default=500, help="pictures to measure stages on")
    parser.add_argument("--rows", type=int, default=50_000, help="of the stand-in store")
    parser.add_argument("--gpu-rate", type=float, default=2000, help="assumed, pictures/s")
    parser.add_argument("--cores", type=int, default=8, help="beside each GPU, assumed")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--driver", type=int)
    options = parser.parse_args()
    if options.driver:
        driver(options.driver)
        return
    costs = measure(options.data, options.weights, options.count, options.rows)
    total = len(list_dataset(options.data).pictures)
    shared = costs.decoding + costs.base + costs.writing + costs.hashing
    checked = {
        n: (
            total
            * (
                shared
                + costs.taking
                + costs.publishing
                + (n + (n > 1)) * (costs.hashing + costs.listing)
            ),
            check(options.data, options.weights, n),
        )
        for n in (1, 2)
    }
    options.total = total
    text = page(costs, options, checked)
    sys.stdout.write(text)
    if options.page:
        options.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
