"""A cluster of three machines that loses workers and machines all the time."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest

import fakes
from headstart.cache import Store, verify
from headstart.extract import Settings, Speed, cluster, fill_store
from reliability import hook
from reliability.lab import SIZE, rows_on_disk, temporaries

PICTURES, KILLS, MACHINES, BATCH = 2000, 30, 3, 4
#: Batches that may end for each loss: what the last one sets free is a share of its own, and more
#: than the workers at the gate let slip.
SHARE = PICTURES // BATCH // (KILLS + 1)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Give the place where workers note what they do."""
    return tmp_path / "log"


@pytest.fixture
def machines(log: Path) -> Iterator[Machines]:
    """Start three machines of one processor each."""
    machines = Machines(log)
    yield machines
    machines.close()


class Machines:
    """A simulated cluster; the driver is on a machine of its own, without processors."""

    def __init__(self, log: Path) -> None:
        ray = cluster._import_ray()
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20},
        )
        self.nodes: list[Any] = []
        for _ in range(MACHINES):
            self.start()
        ray.init(
            address=self._cluster.address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=hook.environment(log, 0.1),
        )

    def start(self) -> None:
        """Add a machine."""
        node = self._cluster.add_node(num_cpus=1, object_store_memory=80 << 20, wait=False)
        self.nodes.append(node)

    def lose(self, node: Any) -> None:
        """Kill all of a machine at once."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End what is left."""
        import ray

        ray.shutdown()
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.campaign
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("fake_base")
def test_thirty_losses_lose_nothing(
    machines: Machines,
    log: Path,
    tmp_path: Path,
    chance: random.Random,
    figures: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every row is there once, equal to a run here, though work was in flight at each loss.

    Each loss lets a share of the batches end, so that the run cannot end before the last one.
    """
    monkeypatch.setattr(cluster, "_CHUNK", 16)
    data = fakes.draw_classes(tmp_path / "data", per_class=PICTURES // 2)
    here, store = tmp_path / "here", tmp_path / "store"
    speed = Speed(batch_size=BATCH, workers=2)
    whole, _ = fill_store(data, here, Settings(size=SIZE), speed=speed)
    told: list[tuple[str, int, int]] = []

    def work() -> Any:
        there = Speed(batch_size=BATCH, workers=2, on="ray")
        tell = lambda *words: told.append(words)  # noqa: E731
        return fill_store(data, store, Settings(size=SIZE), speed=there, progress=tell)

    hook.let_through(log, SHARE)
    run = hook.beside(work)
    lost = {"worker": 0, "machine": 0}
    dead: set[int] = set()
    try:
        while sum(lost.values()) < KILLS:
            time.sleep(chance.uniform(0.1, 1.5))
            victim = _wait_for_work(log, dead, run)
            if chance.random() < 0.25:
                machines.lose(chance.choice(machines.nodes))
                machines.start()
                lost["machine"] += 1
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    lost["worker"] += 1
                dead.add(victim)
            hook.let_through(log, SHARE * (1 + sum(lost.values())))
    finally:  # nothing is to wait at the gate once the machines are gone
        hook.let_all_through(log)
        wait([run], 600)
    found, summary = run.result(0)
    assert summary.computed == summary.rows == PICTURES
    assert found.paths() == whole.paths()
    assert found.features("mixed7", dtype="float16").tobytes() == (
        whole.features("mixed7", dtype="float16").tobytes()
    )
    assert verify(store).sound
    assert set(rows_on_disk(store).values()) == {1}, "a row is in two shards"
    assert len(rows_on_disk(store)) == PICTURES
    assert found.spec == Store.open(here).spec
    assert [t for t in temporaries(store) if _of_a_living_process(t)] == []
    cut_short = len(hook.at_work(log))
    assert cut_short >= KILLS // 2, "work was hardly ever in flight"
    figures(
        f"{lost['worker']} workers and {lost['machine']} machines lost, "
        f"{cut_short} in the middle of a batch; the bar said {told[-1][0]}"
    )


def _wait_for_work(log: Path, dead: set[int], run: Future[Any]) -> int:
    """Return a process that is in the middle of a batch."""
    while True:
        assert not run.done(), f"it ended before all losses: {run.result()[1]}"
        alive = [one for one in hook.at_work(log) - dead if _alive(one)]
        if alive:
            return alive[0]
        time.sleep(0.005)


def _alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def _of_a_living_process(path: Path) -> bool:
    return _alive(int(path.name.split("-")[2]))
