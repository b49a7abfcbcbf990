"""Headstart, through its public function; also its stages, alone."""

from __future__ import annotations

import itertools
import json
import resource
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from serve import serve

STARTED = time.perf_counter()


def side(arguments: list[str]) -> None:
    pictures, warm, scratch, engine, weights = arguments

    def run(folder: str, out: str) -> int:
        import headstart

        shutil.rmtree(out, ignore_errors=True)
        return len(headstart.extract(folder, out, engine=engine, weights=weights))

    serve(run, pictures, warm, scratch)


def once(arguments: list[str]) -> None:
    """One run in a fresh process: seconds to the first batch and to the end, peak of memory."""
    import headstart

    pictures, out, engine, weights = arguments
    first: list[float] = []

    def progress(stage: str, done: int, _: int) -> None:
        if stage.startswith("extracting") and done and not first:
            first.append(time.perf_counter() - STARTED)

    headstart.extract(pictures, out, engine=engine, weights=weights, progress=progress)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds, core = time.perf_counter() - STARTED, time.process_time()
    print(json.dumps({"first": first[0], "peak": peak, "seconds": seconds, "core": core}))


def pooled(arguments: list[str]) -> None:
    """All mixed layers, averaged, in one pass; times what the deepest alone takes."""
    import headstart

    pictures, scratch, engine, weights, rounds = arguments
    layers = {"all": [f"mixed{i}" for i in range(11)], "deepest": ["mixed10"]}
    wall: dict[str, list[float]] = {name: [] for name in layers}
    core: dict[str, list[float]] = {name: [] for name in layers}
    for turn in range(int(rounds) + 1):  # the first warms up
        for name, chosen in layers.items():
            out = Path(scratch) / f"pooled-{engine}-{name}-{turn}"
            starts = time.perf_counter(), time.process_time()
            headstart.extract(
                pictures, out, layer=chosen, pool="avg", engine=engine, weights=weights
            )
            wall[name].append(time.perf_counter() - starts[0])
            core[name].append(time.process_time() - starts[1])
    found = {}
    for kind, taken in {"wall": wall, "core": core}.items():
        pairs = zip(taken["all"][1:], taken["deepest"][1:], strict=True)
        found[kind] = round(statistics.median(one / other for one, other in pairs), 3)
    print(json.dumps(found))


def stages(arguments: list[str]) -> None:
    """Core-seconds per picture of each stage, run alone."""
    from headstart.extract.base import load_base
    from headstart.extract.weights import find_weights

    pictures, scratch, engine, weights = arguments
    files = sorted(Path(pictures).rglob("*.jpg"))[:256]
    core, pixels = _timed(lambda: [_read(file) for file in files])
    found = {"read, hash, decode": core / len(files)}
    base = load_base(
        find_weights(weights), size=150, layers=["mixed7"], engine=engine, precision="auto"
    )
    batches = [np.stack(pixels[i : i + 32]) for i in range(0, len(pixels), 32)]
    base(batches[0])
    core, features = _timed(lambda: [base(batch)["mixed7"] for batch in batches])
    found["base"] = core / len(files)
    core, _ = _timed(lambda: _write(Path(scratch), base, features))
    found["convert, compress, write"] = core / len(files)
    print(json.dumps(found))


def _read(file: Path) -> Any:
    import hashlib

    from headstart.extract.decode import decode

    data = file.read_bytes()
    hashlib.sha256(data).hexdigest()
    return decode(data, 150)


def _write(folder: Path, base: Any, batches: Any) -> None:
    from headstart.cache import Draft, Spec, write_rows
    from headstart.extract.decode import DECODING, RESAMPLING

    spec = Spec(
        weights=base.digest,
        size=150,
        layer="mixed7",
        decoding=DECODING,
        resampling=RESAMPLING,
        engine=base.engine,
        precision=base.precision,
    )
    draft, ids = Draft(spec.dtype, sum(map(len, batches))), itertools.count()
    for batch in batches:
        draft.add([(b"%064x" % next(ids), 0) for _ in batch], batch)
    write_rows(folder, spec, draft.rows, draft.features, {}, packed=draft.packed)


def _timed(work: Any) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


if __name__ == "__main__":
    {"side": side, "once": once, "pooled": pooled, "stages": stages}[sys.argv[1]](sys.argv[2:])
