"""Bad pictures by the thousand in one run: each has its row or its reason, and none is touched."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fakes
from headstart.cache import Store
from headstart.errors import UnreadableImageError
from reliability import lab
from reliability.counts import share


def corpus() -> Any:
    """Import the maker of bad pictures, which lies beside other tests but in no package."""
    place = Path(__file__).parents[1] / "extract" / "corpus.py"
    spec = importlib.util.spec_from_file_location("bad_pictures", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ledger(store: Path) -> dict[str, str]:
    """Return the reason of each picture left out."""
    lines = (store / "ledger.jsonl").read_text("utf-8").splitlines()
    return {line["path"]: line["reason"] for line in map(json.loads, lines)}


def agrees(file: Path, size: int, found: Any) -> bool:
    """Tell whether what a run found in a picture is what decoding it alone gives.

    Features to a rounding: the sums are long, and BLAS has other threads here.
    """
    try:
        features = fakes.features_of(file, size=size)
    except UnreadableImageError as error:
        return bool(str(error) == found)
    return not isinstance(found, str) and bool(np.allclose(found, features, 2e-3, 1e-3))


@share("mutants")
def test_bad_pictures_end_no_run(
    count: int,
    forge: lab.Forge,
    chance: random.Random,
    seed: int,
    tmp_path: Path,
    figures: Callable[[str], None],
) -> None:
    """The corpus and so many mutants: the run goes on, within its memory, and deletes nothing."""
    maker, data, store, log = corpus(), tmp_path / "data", tmp_path / "store", tmp_path / "log"
    wanted: dict[str, str] = maker.write(data)
    (data / "mutants").mkdir()
    mutants: dict[str, bytes] = {
        f"mutants/{index:05d}.jpg": maker.mutant(seed, index) for index in range(count)
    }
    for path, content in mutants.items():
        (data / path).write_bytes(content)
    before = lab.snapshot(data)
    options = ("--size", str(maker.SIZE), "--batch-size", "32")
    ended = forge.extract(data, store, *options, log=str(log)).wait(1200)
    assert ended.code == 0, ended
    assert lab.snapshot(data) == before
    Store._checked.clear()
    opened, left = Store.open(store), ledger(store)
    row = {path: index for index, path in enumerate(opened.paths())}
    assert row.keys().isdisjoint(left)
    assert row.keys() | left.keys() == mutants.keys() | {
        path for path, reason in wanted.items() if reason != maker.GONE
    }
    assert {path for path, reason in wanted.items() if reason == maker.USED} == {
        path for path in row if path in wanted
    }
    assert all(wanted[path] in left[path] for path in wanted.keys() & left.keys())
    features = opened.features(dtype="float16")
    for path in chance.sample(sorted(mutants), 200):
        found = features[row[path]] if path in row else left[path]
        assert agrees(data / path, maker.SIZE, found), path
    used = len(mutants.keys() & row.keys())
    assert count / 10 < used < 9 * count / 10
    (peak,) = ended.values("peak")
    assert peak < 1.5 * (1 << 20)
    log.unlink()
    again = forge.extract(data, store, *options, log=str(log)).wait(1200)
    assert again.code == 0, again
    assert not log.exists(), "a picture was computed again"
    figures(
        f"{len(wanted)} bad pictures and {count} mutants, {used} of these used, "
        f"peak {peak >> 10} MiB"
    )
