"""Killed at random moments, a run resumes; nothing committed is lost or computed again."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from headstart.cache import Store
from headstart.errors import StoreNotFoundError
from reliability import lab
from reliability.counts import share


def half(data: Path, folder: Path) -> Path:
    """Return a dataset with every second picture of `data`."""
    for path in sorted(data.rglob("*.png"))[::2]:
        target = folder / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def when(ended: lab.Ended, store: Path) -> str:
    """Say in which part of its run a process was killed."""
    if not ended.values("base"):
        return "before the base ran"
    rows = sum(lab.rows_on_disk(store).values())
    return "while rows were computed" if rows < 40 else "after the last shard"


def check_served(store: Path, *datasets: Path) -> None:
    """Assert that a store serves one of these datasets, or is not there yet."""
    try:
        served = len(Store.open(store))
    except StoreNotFoundError:
        return
    sizes = {len(lab.expected(data)[0]): data for data in datasets}
    lab.check(store, sizes[served])


@share("kills")
def test_killed_runs_resume(
    count: int,
    forge: lab.Forge,
    chance: random.Random,
    data: Path,
    tmp_path: Path,
    figures: Callable[[str], None],
) -> None:
    """SIGKILL at a random moment, again and again, then a run to the end.

    Rows, their order and values equal those of an uninterrupted run; each committed row is
    there once, and is never computed again.
    """
    less, log = half(data, tmp_path / "half"), lab.Log(tmp_path / "log")
    moments: Counter[str] = Counter()
    round_ = 0
    while sum(moments.values()) < count:
        round_ += 1
        store = tmp_path / f"store{round_}"
        slow = {"root": store.parent, "slow": 0.003}
        if round_ % 2:
            forge.extract(less, store).wait()
        log.take(data)
        code = -9
        for attempt in range(4):
            before = lab.rows_on_disk(store)
            running = forge.extract(data, store, delay=0.02, log=str(log.path), fault=slow)
            running.until("begin")
            if attempt < 3:  # the last one may end
                time.sleep(chance.uniform(0, 0.3))
                running.kill()
            ended = running.wait()
            committed, computed = lab.rows_on_disk(store), log.take(data)
            again = {row.decode() for _, row in before} & set(computed)
            assert not again, f"{len(again)} committed rows were computed again"
            assert not before - committed, "a committed row is gone"
            assert set(committed.values()) <= {1}, "a row was committed twice"
            check_served(store, less, data)
            code = ended.code
            if code == 0:
                break
            assert code == -9, ended
            moments[when(ended, store)] += 1
        assert code == 0, ended
        lab.check(store, data)
        lab.check_clean(store)
        assert len(committed) == 40
        shutil.rmtree(store)
    assert moments["while rows were computed"] > count / 10, moments
    figures(f"{sum(moments.values())} kills of {round_} runs to the end: {dict(moments)}")


def test_unfinished_store_tells_what_to_do(forge: lab.Forge, data: Path, tmp_path: Path) -> None:
    """A store whose first run was killed is no store yet, and says how to finish it."""
    store = tmp_path / "store"
    running = forge.extract(data, store, delay=0.03)
    assert running.until("base") is not None
    deadline = time.monotonic() + 10
    while not list(store.rglob("*.h5")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.kill()
    assert running.wait().code == -9
    ended = forge.run("status", store)
    assert ended.code == 1
    assert "not finished; run the same headstart extract" in ended.err
