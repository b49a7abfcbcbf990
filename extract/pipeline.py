"""From a plan to rows in the store: decode threads, the base, and a writer behind it."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from headstart.cache import Draft
from headstart.errors import DataError, ImageMemoryError, UnreadableImageError
from headstart.extract._bases import Bases
from headstart.extract._inorder import InOrder
from headstart.extract.augment import Augmentation
from headstart.extract.decode import DECODING, decode
from headstart.extract.hashing import read_file
from headstart.extract.places import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from headstart.cache import RowId, Spec
    from headstart.extract._inorder import Crew
    from headstart.extract.base import Base
    from headstart.extract.places import Place

    _Batch = tuple[list[RowId], Mapping[str, NDArray[Any]]]
    _Result = tuple[NDArray[np.uint8] | Exception, dict[str, str]]

_SHARD_BYTES = 16 << 20
_SHARD_ROWS = (64, 1024)
_AHEAD_BYTES = 24 << 20  # of pixels, decoded ahead
_MOST_AHEAD = 512
_PATIENCE = 0.1  # seconds between looks at whether the other thread is done
_CHANGED = "changed while it was being read; run extract again"


def distance(size: int, *, views: int, batch_size: int, workers: int) -> int:
    """Return how many pictures to decode ahead of the base.

    At least two batches, so that the base never waits for its next one; else as many as fit into
    24 MiB, and no more than 512, since decoding has the cores to itself while the base is loaded.
    The line is as long throughout the run.
    """
    least = 2 * batch_size + workers
    return max(least, min(_MOST_AHEAD, _AHEAD_BYTES // (3 * size**2 * views)))


@dataclass(frozen=True)
class Job:
    """One picture to compute: its row, its file, its path for the ledger, copies and views.

    `copies` are the further files, with their paths, that had the same bytes: where one has
    changed since, the next will do. `views` are those to compute; 0 is the picture itself.
    """

    row: RowId
    file: Place
    path: str
    copies: tuple[tuple[Place, str], ...] = ()
    views: tuple[int, ...] = (0,)

    @property
    def places(self) -> tuple[tuple[Place, str], ...]:
        """Every file the picture may be read from, with its path."""
        return ((self.file, self.path), *self.copies)


@dataclass
class Outcome:
    """What came of the jobs."""

    computed: set[RowId] = field(default_factory=set)
    #: SHA-256 (hex) of files that cannot be decoded, and why.
    unreadable: dict[str, str] = field(default_factory=dict)
    #: Paths of files that were gone or changed since they were hashed, and which of the two.
    vanished: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoding:
    """How the bytes of a picture become pixels, and those of its views.

    Attributes
    ----------
    size, max_pixels, rule
        As for `decode`.
    augmentation
        What makes the views other than 0 of it; None where there are none.
    """

    size: int
    max_pixels: int
    rule: str = DECODING
    augmentation: Augmentation | None = None

    @classmethod
    def of(cls, spec: Spec, max_pixels: int) -> Self:
        """Return that of a spec, with a limit of pixels."""
        views = Augmentation.from_json(spec.augmentation) if spec.augmentation else None
        return cls(spec.size, max_pixels, spec.decoding, views)

    def __call__(self, data: bytes, digest: bytes, views: Sequence[int]) -> NDArray[np.uint8]:
        """Return the pixels ``(views, size, size, 3)`` of a picture with this SHA-256 (hex).

        Raises
        ------
        UnreadableImageError
            If it cannot be decoded.
        """
        pixels = decode(data, self.size, max_pixels=self.max_pixels, rule=self.rule)
        if self.augmentation is None:
            return pixels[None]
        return np.stack([self.augmentation.view(pixels, digest, view) for view in views])


class Decoded(Protocol):
    """Pictures on their way to the base.

    Attributes
    ----------
    vanished
        Paths that were gone or changed since they were hashed, and which of the two: for one
        thread, the one that takes the results.
    crew
        The threads that decode them.
    """

    vanished: dict[str, str]
    crew: Crew

    def __iter__(self) -> Iterator[tuple[Job, NDArray[np.uint8] | Exception]]:
        """Yield each job with its pixels ``(views, size, size, 3)``, or why there are none."""
        ...


class Decoder:
    """Threads that read and decode pictures that were hashed, some ahead of whoever takes them.

    The results come in the order of the jobs, so that neither the number of threads nor
    their luck decides which row a picture becomes.

    Parameters
    ----------
    ahead
        How many pictures at most.

    Attributes
    ----------
    vanished, crew
        As for `Decoded`.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        decoding: Decoding,
        *,
        workers: int,
        ahead: int,
    ) -> None:
        self._decoding = decoding
        self.vanished: dict[str, str] = {}
        count = threads([job.file for job in jobs], workers)
        self._line = InOrder(self._decode, jobs, threads=count, ahead=ahead, name="decode")
        self.crew = self._line.crew

    def __enter__(self) -> Self:
        """Return self: the threads are at work already."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the jobs not begun, and wait for those in hand."""
        self._line.__exit__(*error)

    def __iter__(self) -> Iterator[tuple[Job, NDArray[np.uint8] | Exception]]:
        """Yield each job with its pixels ``(views, size, size, 3)``, or why there are none."""
        for job, (result, vanished) in self._line:
            self.vanished |= vanished
            yield job, result

    def _decode(self, job: Job) -> _Result:
        """Return the picture, or why there is none, and the places where it is no more."""
        vanished: dict[str, str] = {}
        for file, path in job.places:
            try:
                data = _read(file, job.row)
            except OSError as error:
                vanished[path] = str(error)
                continue
            try:
                return self._decoding(data, job.row[0], job.views), vanished
            except UnreadableImageError as error:
                return error, vanished
        return OSError(vanished[job.path]), vanished


def _read(file: Place, row: RowId) -> bytes:
    """Return the bytes that were hashed, or raise OSError: they are there no more."""
    try:
        data = read_file(file)
    except UnreadableImageError as error:  # it was readable a moment ago
        raise OSError(str(error)) from error
    if hashlib.sha256(data).hexdigest().encode() != row[0]:
        raise OSError(_CHANGED)
    return data


class Sink(Protocol):
    """Where full shards go: a store, or a folder of one that somebody else will publish."""

    def add(
        self,
        spec: Spec,
        rows: Sequence[RowId],
        features: NDArray[Any],
        run: Mapping[str, Any],
        packed: Sequence[bytes] = (),
    ) -> None:
        """Write one shard; `features` are changed afterwards, `packed` is as for a `Draft`."""
        ...


class Writer:
    """A thread that turns activations into shards, off the path of the base.

    Of each layer only the rows it misses are kept. Features are packed as they come, and wait until
    a shard is full; leaving the context writes the rest. An error in the thread is raised by the
    next call.
    """

    def __init__(
        self,
        sink: Sink,
        specs: Mapping[str, Spec],
        missing: Mapping[str, Container[RowId]],
        run: Mapping[str, Any],
    ) -> None:
        self._sink, self._specs, self._missing, self._run = sink, specs, missing, run
        #: By layer, and whether they are augmented views, which have shards of their own.
        self._held: dict[tuple[str, bool], Draft] = {}
        self._queue: queue.Queue[_Batch | None] = queue.Queue(maxsize=2)
        self._error: BaseException | None = None
        self._ended, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="write")

    def __enter__(self) -> Self:
        """Start the thread."""
        try:
            self._thread.start()
        except BaseException:
            self._ended.set()  # interrupted while it started: it must still end
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is held, also when the run was stopped or failed: it is computed."""
        self._ended.set()  # before all else: a second interrupt finds a thread that ends
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)  # to look at once
        try:
            self._done.wait()  # an interrupted Thread.join() takes the thread for dead
        except KeyboardInterrupt:  # only now that all is computed: its rows are kept, too
            self._done.wait()
            raise
        finally:
            self._thread.join()
        if kind is None:
            self._raise()

    def put(self, rows: list[RowId], features: Mapping[str, NDArray[Any]]) -> None:
        """Hand over a batch; waits while two others are waiting."""
        while True:
            self._raise()
            try:
                self._queue.put((rows, features), timeout=_PATIENCE)
            except queue.Full:
                continue
            return

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            for rows, features in self._batches():
                for name in self._specs:
                    self._take(name, rows, features[name])
            for (name, _), draft in self._held.items():
                self._write(name, draft)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asks
            self._error = error
        finally:
            self._done.set()

    def _batches(self) -> Iterator[_Batch]:
        """Yield what is put, until there is nothing left after the end."""
        while True:
            last = self._ended.is_set() or not threading.main_thread().is_alive()
            try:
                batch = self._queue.get(block=not last, timeout=_PATIENCE)
            except queue.Empty:
                if last:
                    return
                continue
            if batch is not None:
                yield batch

    def _take(self, name: str, rows: list[RowId], features: NDArray[Any]) -> None:
        if len(features) != len(rows):
            raise ValueError(f"{name}: features of {len(features)} rows for {len(rows)} pictures")
        missing = self._missing[name]
        for views in (False, True):
            wanted = [n for n, row in enumerate(rows) if row in missing and (row[1] > 0) == views]
            chosen = features if len(wanted) == len(rows) else features[wanted]
            self._hold((name, views), [rows[n] for n in wanted], chosen)

    def _hold(self, kind: tuple[str, bool], rows: list[RowId], features: NDArray[Any]) -> None:
        done = 0
        while done < len(rows):
            if kind not in self._held:
                dtype = self._specs[kind[0]].dtype
                row_bytes = features[0].size * np.dtype(dtype).itemsize
                self._held[kind] = Draft(dtype, shard_rows(row_bytes))
            draft = self._held[kind]
            done += draft.add(rows[done:], features[done:])
            if draft.full:
                self._write(kind[0], draft)

    def _write(self, name: str, draft: Draft) -> None:
        if draft.rows:
            spec = self._specs[name].of(np.array([row[1] for row in draft.rows], np.uint8))
            self._sink.add(spec, draft.rows, draft.features, self._run, draft.packed)
            draft.clear()


def shard_rows(row_bytes: int) -> int:
    """Return how many rows make a shard: about 16 MB, so that a kill costs about a second."""
    least, most = _SHARD_ROWS
    return min(most, max(least, _SHARD_BYTES // max(1, row_bytes)))


def run_jobs(
    decoded: Decoded,
    bases: Sequence[Base],
    writer: Writer,
    names: Mapping[str, str],
    *,
    outcome: Outcome,
    on_error: str,
    progress: Callable[[int, str], None],
) -> None:
    """Push every picture through a base, whichever is free.

    Parameters
    ----------
    bases
        One for each device, all with the same layers and weights.
    names
        Name of each dataset in the store to the base's layer.
    outcome
        Filled in as pictures are done, so that it is right also when the run is stopped.
    on_error
        ``"ledger"`` notes pictures that cannot be used; ``"fail"`` raises DataError.
    progress
        Called with the number of pictures done since the last call, and with the stage that limits
        the run: ``decoding``, ``the base``, ``writing``, or ``""`` as long as that is not known.
    """
    line: Bases[RowId] = Bases(bases, decoded.crew)

    def usable() -> Iterator[tuple[RowId, NDArray[np.uint8]]]:
        for job, result in line.waits.on_each("decoding", decoded):
            if on_error == "fail":
                _stop(decoded.vanished, job, result)
            if isinstance(result, Exception):
                _note(outcome, job, result)
                progress(len(job.views), line.limit)
            else:
                for view, pixels in zip(job.views, result, strict=True):
                    yield (job.row[0], view), pixels

    def keep(rows: list[RowId], features: Mapping[str, NDArray[Any]]) -> None:
        with line.waits.on("writing"):
            writer.put(rows, {name: features[layer] for name, layer in names.items()})
        outcome.computed.update(rows)

    try:
        with line:
            for rows, features in line.compute(usable()):
                keep(rows, features)
                progress(len(rows), line.limit)
    except BaseException:
        for rows, features in line.left():  # computed is computed
            keep(rows, features)
        raise
    outcome.vanished |= decoded.vanished


def _stop(vanished: Mapping[str, str], job: Job, result: object) -> None:
    """Raise DataError, naming the picture, if there is one that cannot be used."""
    for path, reason in vanished.items():
        raise DataError(useless(path, reason))
    if isinstance(result, Exception):
        raise DataError(useless(job.path, str(result))) from result


def useless(path: str, reason: str) -> str:
    """Say that a picture cannot be used where none may be left out, and what to do."""
    remedy = "mend or remove it, or let --on-error ledger note it and go on"
    return f"{path}: {reason}; {remedy}"


def _note(outcome: Outcome, job: Job, error: Exception) -> None:
    if isinstance(error, ImageMemoryError):  # the next run tries it again
        outcome.vanished |= dict.fromkeys((path for _, path in job.places), str(error))
    elif isinstance(error, UnreadableImageError):
        outcome.unreadable[job.row[0].decode()] = str(error)
