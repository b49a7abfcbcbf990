"""Where a benchmark's tasks run: the same records from a cluster as from here."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import generators
import pytest
from reliability import hook

import fakes
from headstart import _hardware
from headstart import bench as module
from headstart._tasks import Here, Task, There, runner
from headstart.bench import bench
from headstart.errors import ClusterError, HeadError, HeadstartError
from headstart.extract import Settings, cluster
from headstart.heads import modes
from headstart.heads.modes import Record

SETTINGS = Settings(size=75, weights="random")
LIGHT: dict[str, Any] = {
    "heads": ["ridge"],
    "finetune": [],
    "scratch": False,
    "seeds": 2,
}


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start Ray, with the stand-in base in its workers: room for two tasks at a time."""
    ray = cluster._import_ray()
    with cluster._nothing_beside():
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=80 << 20,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=hook.environment(tmp_path_factory.mktemp("ray") / "log", 0.0),
        )
    yield
    ray.shutdown()


def plain(record: Record) -> dict[str, Any]:
    """Return what a record says but for times and memory."""
    told = record.to_dict()
    for name in ("train_seconds", "form_seconds", "predict_ms_per_image", "peak_mb"):
        del told[name]
    return told | {"extract_seconds": told["extract_seconds"] > 0}


def by_place(records: Sequence[Record]) -> list[dict[str, Any]]:
    found = [plain(record) for record in records]
    return sorted(found, key=lambda one: (one["mode"], one["head"], one["seed"], one["share"]))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray")
class TestOnRay:
    def test_records_are_those_of_a_run_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Accuracies, losses and every single answer; what is there is not run again."""
        fakes.install(monkeypatch)
        monkeypatch.setattr(module, "_cost", generators.cost)
        monkeypatch.setattr(module, "_COST", {"frozen": 2})  # then each seed is a task
        pets = fakes.draw_classes(tmp_path / "pets")
        here = bench(pets, tmp_path / "here", SETTINGS, **LIGHT)
        there = bench(pets, tmp_path / "there", SETTINGS, **LIGHT, on="ray")
        assert by_place(there.records) == by_place(here.records)
        assert len(there.records) == 8
        assert "Some results are of tasks of Ray" in str(there)
        assert "of Ray" not in str(here)
        monkeypatch.setattr(modes, "run_mode", None)
        again = bench(pets, tmp_path / "there", SETTINGS, **LIGHT, on="ray")
        assert again.records == there.records

    def test_a_task_is_lost_fails_or_breaks(self, tmp_path: Path) -> None:
        """What it yielded before an error is kept; a lost one is repeated, but not for ever."""
        once = Task(generators.dies_once, (str(tmp_path / "mark"),))
        fails = Task(generators.fails_as_a_head, (7,))
        with runner("ray") as there:
            found: dict[Task, list[Any]] = {once: [], fails: []}
            for task, value in there.run([once, fails]):
                found[task].append(value)
            assert found[once] == [1, None]
            seven, error, end = found[fails]
            assert (seven, str(error), end) == (7, "of no use", None)
            assert isinstance(error, HeadError)
            with pytest.raises(HeadstartError, match="KeyError: 'mixed99'"):
                list(there.run([Task(generators.breaks, (1,))]))
            with pytest.raises(ClusterError, match="failed"):
                list(there.run([Task(generators.dies, (1,))]))

    def test_what_nobody_waits_for_is_let_go(self) -> None:
        """After the first of several, the next calls get answers of their own only."""
        with cluster.Cluster("ray") as ray:
            some = ray.each([(pow, (2, number)) for number in range(3)])
            assert next(some)[1] in (1, 2, 4)
            some.close()
            assert list(ray.each([(pow, (3, 3))])) == [(0, 27)]


def test_a_task_there_keeps_to_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads train on as many cores as its share has, whatever the machine has."""
    monkeypatch.setattr(_hardware, "_available", lambda: 8)
    monkeypatch.setattr(_hardware, "_shares", [])
    monkeypatch.setattr(cluster._import_ray(), "get_gpu_ids", list)

    class Room:
        cpus, gpus, slots = 2, 0, 4

        def each(self, calls: list[Any]) -> Iterator[tuple[int, Any]]:
            for number, (function, arguments) in enumerate(calls):
                yield number, cluster._call(self.cpus, function, arguments)

    assert _hardware.cores() == 8
    there = There(cast("cluster.Cluster", Room()))
    assert [value for _, value in there.run([Task(generators.cores, ())])] == [2, None]
    assert there.where == "tasks of Ray, up to 4 side by side, each with 2 processor cores"


def test_here_a_task_follows_another() -> None:
    """Its values come as they are there, its end is told, and an error of a head ends it alone."""
    fails, counts = Task(generators.fails_as_a_head, (7,)), Task(generators.counts, (2,))
    found = list(Here().run([fails, counts]))
    assert [task for task, _ in found] == [fails] * 3 + [counts] * 3
    assert [str(value) for _, value in found] == ["7", "of no use", "None", "0", "1", "None"]


def test_no_cluster_is_refused_at_once(tmp_path: Path) -> None:
    """Before a picture is read."""
    with pytest.raises(ClusterError, match="expected ray"):
        bench(tmp_path / "none", tmp_path / "out", SETTINGS, **LIGHT, on="spark")
