"""An extraction in workers of Ray: the same store as here, also when workers are lost."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import pytest
from reliability import hook
from reliability.lab import rows_on_disk

import fakes
from headstart.cache import Store, verify
from headstart.errors import ClusterError, DataError, MissingExtraError, SpecMismatchError
from headstart.extract import Settings, Speed, cluster, fill_store
from headstart.extract.pipeline import Job

SIZE = 24
HERE, THERE = Speed(batch_size=4, workers=2), Speed(batch_size=4, workers=2, on="ray")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start Ray, with the stand-in base in its workers, and give the log of what they do."""
    ray = cluster._import_ray()
    log = tmp_path_factory.mktemp("ray") / "log"
    with cluster._nothing_beside():
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=80 << 20,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=hook.environment(log, 0.05),
        )
    yield log
    ray.shutdown()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give 40 pictures, two of them the same, and one that is none."""
    root = fakes.draw_classes(tmp_path / "data", per_class=20)
    (root / "dog" / "copy.png").write_bytes((root / "cat" / "0003.png").read_bytes())
    (root / "cat" / "bad.png").write_bytes(b"\x89PNG, but not really")
    return root


def same(one: Store, other: Store, layer: str = "mixed7") -> bool:
    rows = [store.features(layer, dtype="float16").tobytes() for store in (one, other)]
    return (
        rows[0] == rows[1]
        and one.spec == other.spec
        and one.paths() == other.paths()
        and one.labels().tolist() == other.labels().tolist()
    )


@pytest.mark.cluster
@pytest.mark.usefixtures("fake_base")
class TestOnRay:
    def test_the_store_is_the_one_of_a_run_here(
        self, log: Path, data: Path, tmp_path: Path
    ) -> None:
        """Rows, order, ledger; a second run computes nothing, another spec is refused."""
        whole, local = fill_store(data, tmp_path / "here", Settings(size=SIZE, views=1), speed=HERE)
        told: list[tuple[str, int, int]] = []
        found, summary = fill_store(
            data,
            tmp_path / "there",
            Settings(size=SIZE, views=1),
            speed=THERE,
            progress=lambda *words: told.append(words),
        )
        assert same(found, whole)
        assert summary.left_out == local.left_out != ()
        assert (summary.computed, summary.duplicates) == (local.computed, local.duplicates)
        assert verify(tmp_path / "there").sound
        assert set(rows_on_disk(tmp_path / "there").values()) == {2}  # a picture and its view
        assert told[-1][0] == "extracting (1 worker)"
        _, again = fill_store(data, tmp_path / "there", Settings(), speed=THERE)
        assert (again.computed, again.changed) == (0, False)
        with pytest.raises(SpecMismatchError, match="size"):
            fill_store(data, tmp_path / "there", Settings(size=SIZE + 1), speed=THERE)

    def test_a_lost_worker_is_made_up_for(
        self, log: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed while it computes: the rows are there, each once, and the bar says so."""
        monkeypatch.setattr(cluster, "_CHUNK", 20)
        log.unlink(missing_ok=True)
        told: list[str] = []
        store = tmp_path / "store"

        def work() -> Any:
            speed, tell = THERE, lambda stage, *_: told.append(stage)
            return fill_store(data, store, Settings(size=SIZE), speed=speed, progress=tell)

        run = hook.beside(work)
        deadline = time.monotonic() + 60
        while len(log.read_text().splitlines() if log.exists() else []) < 4:
            assert not run.done(), f"it ended before it could be disturbed: {run.result()}"
            assert time.monotonic() < deadline, "no worker has begun"
            time.sleep(0.005)
        while not (busy := hook.at_work(log)):
            time.sleep(0.001)
        os.kill(busy.pop(), signal.SIGKILL)
        found, _ = run.result(120)
        whole, _ = fill_store(data, tmp_path / "here", Settings(size=SIZE), speed=HERE)
        assert same(found, whole)
        assert verify(store).sound
        assert set(rows_on_disk(store).values()) == {1}
        assert told[-1] == "extracting (1 worker, 1 lost and repeated)"

    def test_an_error_of_a_worker_is_the_error_of_the_run(
        self, log: Path, data: Path, tmp_path: Path
    ) -> None:
        """With its type and its words, as if it had been here."""
        with pytest.raises(DataError, match=r"bad\.png"):
            fill_store(data, tmp_path / "s", Settings(size=SIZE), speed=THERE, on_error="fail")


def accepts(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a process of this machine takes connections."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "it takes no connections"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)


@pytest.fixture
def head() -> Iterator[str]:
    """Start a head as on a cluster's first machine, and give the address for clients."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    words = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--num-cpus=1",
    ]
    words += [f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}"]
    words += ["--include-dashboard=false", "--object-store-memory=80000000"]
    # Ray's server of clients forks, which gRPC survives only without its own support for it.
    more = {"GRPC_ENABLE_FORK_SUPPORT": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="r") as folder:  # its sockets need a short name
        process = subprocess.Popen([*words, f"--temp-dir={folder}"], env=os.environ | more)
        try:
            accepts(process, ports[1])
            yield f"ray://127.0.0.1:{ports[1]}"
        finally:
            process.terminate()
            process.wait(60)


@pytest.mark.cluster
@pytest.mark.tensorflow
@pytest.mark.usefixtures("all_threads")
def test_a_client_of_a_cluster(head: str, pets: Path, tmp_path: Path) -> None:
    """By ``ray://``, with the real base: rows bit for bit those of a run here.

    So it is with a cluster on this machine, of which nothing is left; also where batches are
    others, and TensorFlow has all cores for each.
    """
    words = [sys.executable, "-m", "headstart", "extract", str(pets), "--weights=random"]
    words += ["--size=75", "--engine=keras", "--precision=float32", "--quiet"]
    places = (("here", ["--batch-size=4"]), ("there", ["--on", head]), ("alone", ["--on", "ray"]))
    for name, more in places:
        process = succeeds([*words, "-o", tmp_path / name, *more])
    assert left_of(process) == []
    stores = [Store.open(tmp_path / name) for name in ("here", "there", "alone")]
    assert same(stores[0], stores[1])
    assert same(stores[0], stores[2])


def succeeds(words: list[Any]) -> int:
    """Run a command that has nothing to say on stdout, and return what its process was."""
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = run.communicate(timeout=200)
    except BaseException:
        run.kill()
        run.wait()
        raise
    assert (run.returncode, out) == (0, ""), err
    return run.pid


def left_of(process: int) -> list[str]:
    """Return what a Ray that a process started has left: processes, and what is of its session."""
    session = f"session_.*_{process}(/|$)"
    paths = Path(tempfile.gettempdir(), "ray").glob("session_*")
    named = ((path, path.readlink() if path.is_symlink() else path) for path in paths)
    found = [str(path) for path, leads_to in named if re.search(session, str(leads_to))]
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (one / "cmdline").read_bytes().decode(errors="replace").split("\0")
            found += [one.name for word in words if re.search(session, word)]
    return found


@pytest.mark.usefixtures("fake_base")
class TestRefusals:
    def test_what_is_no_cluster_is_refused(self, data: Path, tmp_path: Path) -> None:
        """Before anything is started."""
        with pytest.raises(ClusterError, match=r"expected ray, or ray://HOST:10001"):
            fill_store(data, tmp_path / "s", Settings(size=SIZE), speed=Speed(on="spark"))

    def test_without_ray_the_extra_is_named(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As for every optional package."""
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(MissingExtraError, match=r"headstart\[ray\]"):
            fill_store(data, tmp_path / "s", Settings(size=SIZE), speed=THERE)


def test_chunks_end_where_batches_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a row's neighbours in its batch are those it has in a run here."""
    work = object.__new__(cluster.ClusterComputation)
    jobs = [Job((b"%064x" % n, 0), Path(str(n)), str(n)) for n in range(1000)]
    missing = {"mixed7": {job.row for job in jobs[::2]}}
    for batch, slots in ((32, 3), (7, 1), (999, 2), (2000, 2)):
        work._speed = Speed(batch_size=batch)
        work._cluster = type("Room", (), {"slots": slots})()
        chunks = list(work._chunks(jobs, missing))
        assert [job for chunk in chunks for job in chunk.jobs] == jobs
        assert all(len(chunk.jobs) % batch == 0 for chunk in chunks[:-1])
        rows = [row for chunk in chunks for row in chunk.missing["mixed7"]]
        assert rows == [job.row for job in jobs[::2]]


class Slow:
    """A stand-in for the cluster that notes what becomes of it, and starts when it is let."""

    cpus = 3

    def __init__(self, address: str) -> None:
        self.let.wait(30)
        self.told.append(f"starts {address}")

    def __enter__(self) -> Self:
        return self

    def begin(self, order: object) -> None:
        self.told.append(f"loads {order}")

    def __exit__(self, *_: object) -> None:
        self.told.append("ends")

    let = threading.Event()
    told: ClassVar[list[str]] = []


class TestAhead:
    """A cluster that starts while something else is done."""

    @pytest.fixture
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Slow]]:
        """Put the stand-in where the cluster is looked for."""
        monkeypatch.setattr(cluster, "Cluster", Slow)
        monkeypatch.setattr(Slow, "let", threading.Event())
        monkeypatch.setattr(Slow, "told", [])
        yield Slow
        Slow.let.set()

    def test_its_base_is_loaded_meanwhile(self, slow: type[Slow]) -> None:
        """It is there when it is asked for, and has ended when it is let go."""
        order: Any = "for {}".format
        with cluster.Ahead(order) as ahead:
            ahead.start()
            slow.let.set()
            with ahead.cluster():
                assert slow.told == ["starts ray", "loads for 3"]
            assert slow.told[2:] == ["ends"]

    def test_an_interrupt_waits_for_it_for_some_time_only(
        self, slow: type[Slow], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What starts then loads nothing, and ends."""
        monkeypatch.setattr(cluster, "_PATIENCE", 0.01)
        asked: list[int] = []
        order: Any = asked.append
        ahead = cluster.Ahead(order)
        ahead.start()
        ahead.__exit__(KeyboardInterrupt)
        assert slow.told == []
        slow.let.set()
        ahead._thread.join(30)
        assert slow.told == ["starts ray", "ends"]
        assert asked == []

    def test_what_goes_wrong_at_its_end_is_raised(
        self, slow: type[Slow], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once, and in place of no other error."""
        monkeypatch.setattr(Slow, "__exit__", lambda *_: 1 / 0)
        slow.let.set()
        order: Any = str
        ahead = cluster.Ahead(order)
        ahead.start()
        with pytest.raises(ZeroDivisionError), ahead, ahead.cluster():
            pass
        ahead = cluster.Ahead(order)
        ahead.start()
        with pytest.raises(KeyError), ahead.cluster():
            raise KeyError

    def test_what_keeps_it_from_starting_is_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where it is asked for; a run that is refused first never hears of it."""
        monkeypatch.setitem(sys.modules, "ray", None)
        order: Any = str
        with cluster.Ahead(order) as ahead:
            ahead.start()
        with pytest.raises(MissingExtraError), ahead.cluster():
            pass

    @pytest.mark.usefixtures("fake_base")
    def test_it_is_not_started_for_nothing(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not for a dataset that is none, nor where the store has all."""
        fill_store(data, tmp_path / "s", Settings(size=SIZE), speed=HERE)
        started: list[str] = []
        monkeypatch.setattr(cluster, "Cluster", started.append)
        _, again = fill_store(data, tmp_path / "s", Settings(), speed=THERE)
        assert again.computed == 0
        with pytest.raises(DataError):
            fill_store(tmp_path / "none", tmp_path / "t", Settings(size=SIZE), speed=THERE)
        assert started == []

    @pytest.mark.usefixtures("fake_base")
    def test_what_it_says_at_its_start_is_not_for_stdout(
        self,
        data: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """As that is for answers; afterwards it is again what it was."""

        def loud(address: str) -> None:
            sys.stdout.write(f"starting {address}")
            raise ClusterError("there is none")

        monkeypatch.setattr(cluster, "Cluster", loud)
        with pytest.raises(ClusterError, match="there is none"):
            fill_store(data, tmp_path / "s", Settings(size=SIZE), speed=THERE)
        sys.stdout.write("an answer")
        said = capsys.readouterr()
        assert (said.out, "starting ray" in said.err) == ("an answer", True)


class FakeRay:
    """A stand-in for Ray, with the methods of the real one's node; it starts when it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.told: list[str] = []
        self._open = False

    def is_initialized(self) -> bool:
        return self._open

    def init(self, **_: object) -> Any:
        self.told.append(f"init without {left_out()}")
        self._open = True
        self.let.wait(30)
        return SimpleNamespace(address_info={})

    def nodes(self) -> list[dict[str, Any]]:
        time.sleep(0.1)  # in which another run may connect, unless it is kept from it
        return [{"Resources": {"CPU": 2}, "Alive": True}]

    def remote(self, **_: object) -> Any:
        return lambda function: SimpleNamespace(remote=lambda *_: None)

    def cancel(self, *_: object, **__: object) -> None: ...

    def shutdown(self) -> None:
        self.told.append("shutdown")
        self._open = False


def left_out() -> int:
    """Return how many methods of Ray's node do nothing now."""
    from ray._private.node import Node

    return sum(getattr(Node, name).__name__ == "<lambda>" for name in cluster._BESIDE)


class TestConnecting:
    """Connections, of which a process has one."""

    @pytest.fixture
    def ray(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
        """Put the stand-in where Ray is looked for."""
        cluster._import_ray()
        ray = FakeRay()
        monkeypatch.setattr(cluster, "_import_ray", lambda *_: ray)
        yield ray
        ray.let.set()

    def test_a_run_after_an_interrupt_waits_for_what_that_left(
        self, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has a cluster of its own, and Ray's methods are again what they were."""
        monkeypatch.setattr(cluster, "_PATIENCE", 0.01)
        order: Any = str
        first, second = cluster.Ahead(order), cluster.Ahead(order)
        first.start()
        while not ray.told:
            time.sleep(0.001)
        first.__exit__(KeyboardInterrupt)
        second.start()
        second._thread.join(0.2)
        meanwhile = [*ray.told]
        ray.let.set()
        with second.cluster():
            assert meanwhile == ["init without 3"]
            assert ray.told == ["init without 3", "shutdown", "init without 3"]
        assert ray.told[3:] == ["shutdown"]
        assert left_out() == 0

    def test_a_run_within_another_uses_its_cluster(self, ray: FakeRay) -> None:
        """And leaves it open, as an extraction does that is part of a benchmark."""
        ray.let.set()
        order: Any = str
        with cluster.Cluster("ray"):
            ahead = cluster.Ahead(order)
            ahead.start()
            with ahead.cluster():
                pass
            assert ray.told == ["init without 3"]
        assert ray.told[1:] == ["shutdown"]

    @pytest.mark.parametrize("error", [AttributeError("_webui_url"), KeyError("webui")])
    def test_a_ray_that_needs_what_is_left_out_starts_with_it(
        self, ray: FakeRay, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        """What had started of it is ended before."""
        ray.let.set()
        start = ray.init

        def init(**options: object) -> Any:
            found = start(**options)
            if left_out():
                raise error
            return found

        monkeypatch.setattr(ray, "init", init)
        with cluster.Cluster("ray"):
            assert ray.told == ["init without 3", "shutdown", "init without 0"]
        assert ray.told[3:] == ["shutdown"]

    def test_a_ray_that_does_not_start_is_an_error_of_the_cluster(
        self, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever its own is."""
        monkeypatch.setattr(ray, "init", lambda **options: options["webui"])
        with pytest.raises(ClusterError, match=r"no cluster of Ray answers .*webui"):
            cluster.Cluster("ray")
        assert left_out() == 0


def test_only_the_link_to_its_own_session_is_removed(tmp_path: Path) -> None:
    """Another Ray of this machine may be the latest by now."""
    for name in ("session_1", "session_2"):
        (tmp_path / name / "logs").mkdir(parents=True)
    latest = tmp_path / "session_latest"
    latest.symlink_to(tmp_path / "session_2")
    cluster._forget(tmp_path / "session_1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["session_2", "session_latest"]
    cluster._forget(tmp_path / "session_2")
    assert list(tmp_path.iterdir()) == []
