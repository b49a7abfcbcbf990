"""What Ray costs: the same extraction with `--on ray` and without, alternating, on these cores.

    python benchmarks/cluster.py PICTURES --weights registry --rounds 5 --json FILE

Each run is a process of its own that fills a new store; the seconds are those that the command
tells, so that the start of Ray and of its worker counts, and so does that of TensorFlow here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def run(data: Path, weights: str, *more: str) -> float:
    folder = Path(tempfile.mkdtemp(prefix="headstart-ray-"))
    words = ["extract", str(data), "-o", str(folder / "store"), "--weights", weights, *more]
    try:
        found = subprocess.run(
            [sys.executable, "-m", "headstart", *words, "--json", "-"],
            check=True,
            capture_output=True,
            text=True,
        )
        return float(json.loads(found.stdout)["seconds"])
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="registry")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"here": [], "ray": []}
    for _ in range(options.rounds):
        seconds["here"].append(run(options.data, options.weights))
        seconds["ray"].append(run(options.data, options.weights, "--on", "ray"))
    ratios = [ray / here for here, ray in zip(seconds["here"], seconds["ray"], strict=True)]
    found = {"seconds": seconds, "ratio": statistics.median(ratios), "ratios": ratios}
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
