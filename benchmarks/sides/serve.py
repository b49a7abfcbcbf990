"""What all sides share: warm up once, then run when told, and answer in JSON.

A side is a script of its own, so that each lives in its own environment and process. It prints one
line when it is warm; then, for every path it reads from standard input, it extracts the features of
all pictures into a closed HDF5 file or store at that path, and prints a line with the wall and the
processor seconds that took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def serve(run: Callable[[str, str], int], pictures: str, warm: str, scratch: str) -> None:
    """Run `run(folder, out)`, which returns the number of pictures, on request."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    run(warm, f"{scratch}/warmed-{os.getpid()}")
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        wall, core = time.perf_counter(), _core_seconds()
        count = run(pictures, line.strip())
        taken = {"seconds": time.perf_counter() - wall, "core": _core_seconds() - core}
        print(json.dumps({"images": count, **taken}), file=answers)


def _core_seconds() -> float:
    """Processor seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
