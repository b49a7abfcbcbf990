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
from typing import Any, ClassVar, Self

import pytest
from reliability import hook
from reliability.lab import rows_on_disk

import fakes
from headstart.cache import Store, verify
from headstart.errors import ClusterError, DataError, MissingExtraError, SpecMismatchError
from headstart.extract import Settings, Speed, cluster, fill_store
from headstart.extract.pipeline import Job
from headstart.extract.worker import Order

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
def test_a_client_of_a_cluster(head: str, pets: Path, tmp_path: Path) -> None:
    """By ``ray://``, with the real base: rows bit for bit those of a run here.

    So it is with a cluster on this machine, of which nothing is left.
    """
    words = [sys.executable, "-m", "headstart", "extract", str(pets), "--weights=random"]
    words += ["--size=75", "--engine=keras", "--precision=float32", "--quiet"]
    for name, more in (("here", []), ("there", ["--on", head]), ("alone", ["--on", "ray"])):
        run = subprocess.Popen(
            [*words, "-o", tmp_path / name, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        out, err = run.communicate(timeout=200)
        assert (run.returncode, out) == (0, ""), err
    assert left_of(run.pid) == []
    stores = [Store.open(tmp_path / name) for name in ("here", "there", "alone")]
    assert same(stores[0], stores[1])
    assert same(stores[0], stores[2])


def left_of(process: int) -> list[str]:
    """Return what a Ray that a process started has left: processes and folders of its session."""
    session = f"session_.*_{process}(/|$)"
    found = [str(path) for path in Path(tempfile.gettempdir(), "ray").glob(f"session_*_{process}")]
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


def never(cpus: int) -> Order:
    """Give no order."""
    pytest.fail(f"it was asked for, for {cpus}")


class TestAhead:
    """A cluster that starts while something else is done."""

    @pytest.fixture
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> type[Slow]:
        """Put the stand-in where the cluster is looked for."""
        monkeypatch.setattr(cluster, "Cluster", Slow)
        monkeypatch.setattr(Slow, "let", threading.Event())
        monkeypatch.setattr(Slow, "told", [])
        return Slow

    def test_its_base_is_loaded_meanwhile(self, slow: type[Slow]) -> None:
        """It is there when it is asked for, and has ended when it is let go."""
        order: Any = "for {}".format
        with cluster.Ahead(order) as ahead:
            ahead.start()
            slow.let.set()
            with ahead.cluster():
                assert slow.told == ["starts ray", "loads for 3"]
            assert slow.told[2:] == ["ends"]

    def test_an_interrupt_does_not_wait_for_it(self, slow: type[Slow]) -> None:
        """What starts then loads nothing, and ends."""
        ahead = cluster.Ahead(never)
        ahead.start()
        ahead.__exit__(KeyboardInterrupt)
        assert slow.told == []
        slow.let.set()
        ahead._thread.join(30)
        assert slow.told == ["starts ray", "ends"]

    def test_what_keeps_it_from_starting_is_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where it is asked for; a run that is refused first never hears of it."""
        monkeypatch.setitem(sys.modules, "ray", None)
        with cluster.Ahead(never) as ahead:
            ahead.start()
        with pytest.raises(MissingExtraError), ahead.cluster():
            pass

    @pytest.mark.usefixtures("fake_base")
    def test_it_is_not_started_for_nothing(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not for a dataset that is none, nor where the store has all."""
        fill_store(data, tmp_path / "s", Settings(size=SIZE), speed=HERE)
        monkeypatch.setattr(cluster, "Cluster", lambda _: pytest.fail("it was started"))
        _, again = fill_store(data, tmp_path / "s", Settings(), speed=THERE)
        assert again.computed == 0
        with pytest.raises(DataError):
            fill_store(tmp_path / "none", tmp_path / "t", Settings(size=SIZE), speed=THERE)
