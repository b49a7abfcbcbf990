"""Run an extraction's chunks as tasks of Ray, which places, watches and repeats them."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from headstart._hardware import keep_to
from headstart.errors import ClusterError, DataError, HeadstartError, MissingExtraError, install
from headstart.extract import worker
from headstart.extract.computation import Computation
from headstart.extract.worker import Chunk, Done, Order

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from headstart.cache import Filling, Spec
    from headstart.extract.pipeline import Job
    from headstart.extract.run import Speed

LOCAL = "ray"
_CLIENT = "ray://"
_MEMORY = 80 << 20  # bytes of Ray's object store: features go to disk, not through it
_CPUS = 8  # of one worker at most: the base gains little from more
_CHUNK = 2048  # pictures, so that a worker lost costs seconds
_CHUNKS_EACH = 4  # at least for every worker, so that none waits long at the end
_LOOK = 1.0  # seconds
_PATIENCE = 10.0  # seconds, for a Ray that starts to end: else its processes and files stay behind
_RETRIES = 3  # of a call, which may take long
#: What Ray starts beside a cluster: to make it larger, to show it, to gather what workers print.
_BESIDE = ("start_monitor", "start_api_server", "start_log_monitor")
#: Held while a connection is made, and as long as one lives that may outlive the run it is for: a
#: process has one connection only, which the next run must not find half open or about to end.
_CONNECTING = threading.RLock()


class Cluster:
    """A connection to Ray: tasks go in, results come out as they are ready.

    Parameters
    ----------
    address
        ``"ray"`` for workers on this machine, or ``ray://host:port``. A connection that this
        process has already is used, and left open.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    ClusterError
        If there is no cluster at the address, or no processor in it.
    """

    def __init__(self, address: str) -> None:
        if address != LOCAL and not address.startswith(_CLIENT):
            raise ClusterError(f"--on {address}: expected ray, or ray://HOST:10001")
        self._ray = _import_ray(address)
        self._logs = ""
        with _CONNECTING:
            self._ours = not self._ray.is_initialized()
            if self._ours:
                self._connect(address)
        self.cpus, self.gpus, self.slots = self._share(address)
        self._waiting: dict[Any, Any] = {}
        self._settling: tuple[Order, Any] | None = None
        #: How often a chunk was begun again, as its worker or that one's machine was lost.
        self.lost = 0

    def _connect(self, address: str) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address == LOCAL:
            options |= {"include_dashboard": False, "object_store_memory": _MEMORY}
        try:
            with _own_signals():
                found = self._start(options) if address == LOCAL else self._init(address, options)
        except Exception as error:
            raise ClusterError(
                f"--on {address}: no cluster of Ray answers ({error}); should it "
                "ask for a token, give RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
            ) from error
        if address == LOCAL:
            self._logs = found.address_info.get("session_dir", "")

    def _init(self, address: str, options: dict[str, Any]) -> Any:
        return self._ray.init(address=address, **options)

    def _start(self, options: dict[str, Any]) -> Any:
        """Start Ray here without what it does not need; with all of it if that does not go well."""
        try:
            with _nothing_beside():
                return self._init("local", options)
        except Exception:  # noqa: BLE001 - whatever another Ray makes of it
            self._ray.shutdown()
        return self._init("local", options)

    def _share(self, address: str) -> tuple[int, int, int]:
        """Return processors and GPUs of a worker, and how many workers there is room for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
        if not nodes:
            raise ClusterError(f"--on {address}: no machine of the cluster offers a processor")
        with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
        if with_gpu:
            cpus = min(int(node["CPU"] // node["GPU"]) for node in with_gpu)
            return max(1, min(_CPUS, cpus)), 1, sum(int(node["GPU"]) for node in with_gpu)
        cpus = min(_CPUS, *(int(node["CPU"]) for node in nodes))
        return cpus, 0, sum(int(node["CPU"]) // cpus for node in nodes)

    def __enter__(self) -> Self:
        """Give the cluster."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the tasks that are waiting or at work; close a connection of our own.

        What a cluster that this one has started has noted goes with it.
        """
        self._let_go()
        try:
            if self._ours:
                self._ray.shutdown()
        finally:
            if self._logs:
                _forget(Path(self._logs))

    def _let_go(self) -> None:
        begun = (self._settling[1],) if self._settling else ()
        for reference in (*self._waiting, *begun):
            with contextlib.suppress(Exception):  # the cluster may be what failed
                self._ray.cancel(reference, force=True)
        self._waiting, self._settling = {}, None

    def _task(self, function: Any) -> Any:
        # Tasks and not actors: those hold their place also while their machine is lost. A process
        # that has loaded the base takes the next task too: so no limit of calls, not with GPUs.
        return self._ray.remote(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=-1,
            max_calls=0,
        )(function)

    def begin(self, order: Order) -> None:
        """Let a worker load the base; `settle` gives what it says."""
        self._settling = order, self._task(_settle).remote(order, self.cpus)

    def settle(self, order: Order) -> Order:
        """Let a worker load the base, unless one has begun to, and say what only it can tell."""
        if self._settling is None or self._settling[0] != order:
            self.begin(order)
        assert self._settling is not None
        found: Order = self._get(self._settling[1])
        return found

    def compute(self, order: Order, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, Done]]:
        """Yield each chunk with what came of it, in the order in which they are done."""
        task, shared = self._task(_compute), self._ray.put(order)
        for chunk in chunks:
            self._waiting[task.remote(shared, chunk, self.cpus)] = chunk
            while len(self._waiting) >= 2 * self.slots + 2:
                yield from self._ready()
        while self._waiting:
            yield from self._ready()

    def _ready(self) -> Iterator[tuple[Chunk, Done]]:
        ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=_LOOK)
        for reference in ready:
            done, again = self._get(reference)
            self.lost += again
            yield self._waiting.pop(reference), done

    def each(
        self, calls: Sequence[tuple[Any, tuple[Any, ...]]]
    ) -> Generator[tuple[int, Any], None, None]:
        """Yield the number of each call and what it returned, in the order in which they are done.

        Each has a process of its own, which ends with it. A call whose process is lost is made
        again, a few times: it may be its own need of memory that ends it. After an error, or where
        nobody asks for the rest, the others are let go.

        Raises
        ------
        ClusterError
            If a call was lost too often.
        """
        task = self._ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=_RETRIES, max_calls=1
        )(_call)
        try:
            for number, (function, arguments) in enumerate(calls):
                self._waiting[task.remote(self.cpus, function, arguments)] = number
            while self._waiting:
                ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=_LOOK)
                for reference in ready:
                    found = self._get(reference)
                    yield self._waiting.pop(reference), found
        finally:
            self._let_go()

    def _get(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HeadstartError | OSError | MemoryError):
                raise error.cause from error
            raise
        except self._ray.exceptions.RayError as error:
            raise ClusterError(f"the cluster has failed: {error}") from error


class Ahead:
    """A cluster on this machine that starts while something else is done.

    Its first worker loads the base meanwhile. Ray is started, and ended, in a thread that lives as
    long: on Linux its processes end with the thread that started them.

    Parameters
    ----------
    order
        Of a worker with so many processors: which base to load.
    """

    def __init__(self, order: Callable[[int], Order]) -> None:
        self._order = order
        self._found: Future[Cluster] = Future()
        self._late: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="headstart-ray")

    def __enter__(self) -> Self:
        """Do nothing yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let go of the cluster; an interrupt waits some seconds for one that has not yet started.

        What goes wrong at its end is raised, unless there is an error already.
        """
        self._over.set()
        if self._thread.ident:
            starting = kind is KeyboardInterrupt and not self._found.done()
            self._thread.join(_PATIENCE if starting else None)
        if kind is None and self._late is not None:
            raise self._late

    def start(self) -> None:
        """Start the cluster, in its own time."""
        self._thread.start()

    @contextlib.contextmanager
    def cluster(self) -> Iterator[Cluster]:
        """Wait for the cluster, or raise what kept it from starting; end it afterwards."""
        with self:
            yield self._found.result()

    def _keep(self) -> None:
        try:
            with _CONNECTING, Cluster(LOCAL) as cluster:
                if not self._over.is_set():
                    cluster.begin(self._order(cluster.cpus))
                self._found.set_result(cluster)
                self._over.wait()
        except BaseException as error:  # noqa: BLE001 - raised where the cluster is asked for
            if self._found.done():
                self._late = error
            else:
                self._found.set_exception(error)


def _import_ray(address: str = LOCAL) -> Any:
    # A driver under `uv run` would else have every worker build an environment of its own.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL:  # its workers would else give way (nice 15) to all that runs beside them
        os.environ.setdefault("RAY_worker_niceness", "0")
    elif _has_token():
        # A head asks for the token where its user has one; a client shows it only where told to.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(f"--on needs Ray; {install('ray')}") from error
    return ray


def _has_token() -> bool:
    """Tell whether the user has a token for clusters of Ray; it is not read."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or Path("~/.ray/auth_token").expanduser().exists()


def _forget(session: Path) -> None:
    """Remove what a Ray that has ended noted, and the link to the latest session if it is that."""
    latest = session.with_name("session_latest")
    with contextlib.suppress(OSError):
        if latest.readlink() == session:
            latest.unlink()
    shutil.rmtree(session, ignore_errors=True)


@contextlib.contextmanager
def _nothing_beside() -> Iterator[None]:
    """Keep Ray from starting what a cluster that one run has for itself makes no use of.

    That is three of its eight processes, half a second of a core each, and two seconds of
    waiting for them. Ray has no option for it; without such methods, it starts what it will.
    """
    from ray._private.node import Node

    methods = {name: getattr(Node, name) for name in _BESIDE if hasattr(Node, name)}
    for name in methods:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(Node, name, method)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of signals: Ray sets its own when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_devices: list[Any] = []


def _prepare(cpus: int) -> None:
    """Keep the base to its share of the machine, before it is loaded."""
    import ray

    given = ray.get_gpu_ids()
    if _devices and given != _devices:
        os._exit(1)  # the base is on another GPU: a fresh process shall take the task
    _devices[:] = given
    keep_to(cpus)
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(cpus))


def _settle(order: Order, cpus: int) -> Order:
    _prepare(cpus)
    return worker.settle(order)


def _compute(order: Order, chunk: Chunk, cpus: int) -> tuple[Done, int]:
    """Return what came of a chunk, and how often it had been begun before."""
    _prepare(cpus)
    return worker.compute(order, chunk), _attempts()


def _attempts() -> int:
    """Return how often Ray has repeated this task; 0 where it does not say."""
    from ray._private.worker import global_worker

    core = getattr(global_worker, "core_worker", None)
    return int(getattr(core, "get_current_task_attempt_number", lambda: 0)())


def _call(cpus: int, function: Any, arguments: tuple[Any, ...]) -> Any:
    _prepare(cpus)
    return function(*arguments)


def ahead(
    filling: Filling,
    cuts: Mapping[str, tuple[str, str]],
    *,
    spec: Spec,
    remembered: dict[str, Any],
    speed: Speed,
    on_error: str,
) -> Ahead:
    """Return a cluster for a computation whose layers are known, but not yet its pictures."""
    pool = next(pool for _, pool in cuts.values())
    options: dict[str, Any] = {
        "spec": spec,
        "remembered": dict(remembered),
        "speed": speed,
        "on_error": on_error,
    }
    return Ahead(lambda cpus: _order(filling, cuts, pool, cpus, **options))


def _order(
    filling: Filling,
    cuts: Mapping[str, tuple[str, str]],
    pool: str,
    cpus: int,
    *,
    spec: Spec,
    remembered: dict[str, Any],
    speed: Speed,
    on_error: str,
) -> Order:
    """Return what every worker, with so many processors, is to know for the layers of a pooling."""
    return Order(
        shards=filling.shards.absolute(),
        spec=spec,
        cuts={name: layer for name, (layer, kind) in cuts.items() if kind == pool},
        pool=pool,
        remembered=remembered,
        batch_size=speed.batch_size,
        threads=speed.workers or max(2, cpus),
        on_error=on_error,
    )


class ClusterComputation(Computation):
    """Pictures that lack features, computed by the workers of a cluster.

    This process has listed and hashed them, sends them out chunk by chunk, takes the shards
    that come of it into the store, and publishes. The boundaries of batches are those of a run
    without workers, as long as every picture decodes.
    """

    #: The cluster, where it was started before it was clear what to compute.
    ahead: Ahead | None = None

    def compute(self) -> None:
        """Compute what is missing; what is done stays done."""
        connection = self.ahead.cluster() if self.ahead else Cluster(self._speed.on)
        # Ray prints on stdout which workers were lost; that is for answers.
        with contextlib.redirect_stdout(sys.stderr), connection as self._cluster:
            super().compute()

    def _one_pass(self, pool: str) -> None:
        cuts = self._cuts(pool)
        self._filling.make_folder()
        cluster = self._cluster
        order = cluster.settle(
            _order(
                self._filling,
                self.plan.cuts,
                pool,
                cluster.cpus,
                spec=self._spec,
                remembered=self.remembered,
                speed=self._speed,
                on_error=self._on_error,
            )
        )
        self.remembered |= order.remembered
        self._filling.require(order.spec, weights=self.remembered["weights"])
        missing = {name: set(self.plan.missing[name]) for name in cuts}
        workers: set[tuple[str, int]] = set()
        for chunk, done in cluster.compute(order, self._chunks(self._jobs(cuts), missing)):
            self._take(done)
            workers.add((done.host, done.process))
            self._say(sum(len(job.views) for job in chunk.jobs), min(len(workers), cluster.slots))

    def _chunks(self, jobs: Sequence[Job], missing: dict[str, set[Any]]) -> Iterator[Chunk]:
        batch = self._speed.batch_size
        even = len(jobs) // (_CHUNKS_EACH * self._cluster.slots)
        count = -(-min(max(1, even), _CHUNK) // batch) * batch
        for start in range(0, len(jobs), count):
            part = tuple(jobs[start : start + count])
            rows = [(job.row[0], view) for job in part for view in job.views]
            yield Chunk(part, {n: [row for row in rows if row in m] for n, m in missing.items()})

    def _take(self, done: Done) -> None:
        for head in done.heads:
            self._filling.take(head)
        self.outcome.computed |= done.outcome.computed
        self.outcome.unreadable |= done.outcome.unreadable
        self.outcome.vanished |= done.outcome.vanished
        for path, reason in done.outcome.vanished.items():
            file = self._files.get(path)
            if file is not None and file.is_file() and "No such file" in reason:
                raise DataError(
                    f"{file} is here, but not for the worker on {done.host}; the dataset must be "
                    "in a folder that every machine sees under the same path"
                )

    @functools.cached_property
    def _files(self) -> dict[str, Path]:
        pictures = self.plan.source.dataset.pictures
        return {one.path: one.file for one in pictures if isinstance(one.file, Path)}

    def _say(self, count: int, workers: int) -> None:
        self._done += count
        if self._progress is not None:
            words = f"{workers} worker{'s' if workers > 1 else ''}"
            lost = f", {self._cluster.lost} lost and repeated" if self._cluster.lost else ""
            self._progress(f"extracting ({words}{lost})", self._done, self._steps)
