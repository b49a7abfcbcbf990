"""Keep one base or several busy, and know which stage a run waits for."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import queue
import time
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import numpy as np

from headstart.extract._inorder import Crew

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from headstart.extract.base import Base

    _Features = dict[str, NDArray[np.float32]]

_T = TypeVar("_T")
_Row = TypeVar("_Row")
_TELLING = 1.0  # seconds of waiting that tell something
_MEMORY = 10.0  # about as many seconds back counts what was waited for


class Bases(Generic[_Row]):
    """Bases, each on a device of its own, that take their batches from one line.

    Whichever is free takes the next batch, and as many at once as it says. Results are taken in the
    order in which batches were put, so that no base's luck decides which row a picture becomes. A
    batch more than they take at once may be under way, so that none has to wait for its next one.

    Parameters
    ----------
    bases
        At least one, all with the same layers and weights.
    waits
        Where the time is noted that its results were waited for.
    crew
        Threads that have other work. They compute the batches, before all else, where each keeps to
        a core; otherwise others do.
    """

    def __init__(self, bases: Sequence[Base], waits: Waits, crew: Crew) -> None:
        self._bases, self._waits = tuple(bases), waits
        self._free: queue.SimpleQueue[Base] = queue.SimpleQueue()
        self._places = [base for base in bases for _ in range(base.at_once)]
        for base in self._places:
            self._free.put(base)
        shared = all(base.per_core for base in bases) and crew.threads >= len(self._places)
        self._own = None if shared else Crew(len(self._places), "base")
        self._crew = self._own or crew
        self._line: collections.deque[tuple[list[_Row], concurrent.futures.Future[_Features]]] = (
            collections.deque()
        )

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the batches not begun, and wait for those in hand."""
        concurrent.futures.wait([future for _, future in self._line if not future.cancel()])
        if self._own is not None:
            self._own.close()

    def compute(
        self, pictures: Iterable[tuple[_Row, NDArray[np.uint8]]]
    ) -> Iterator[tuple[list[_Row], _Features]]:
        r"""Yield (rows, features) for batch after batch; features: layer to (b, \*shape).

        `pictures` are rows, by whatever name, with pixels (size, size, 3).
        """
        for batch in self._batches(pictures):
            rows, pixels = [row for row, _ in batch], [pixels for _, pixels in batch]
            self._line.append((rows, self._crew.submit(self._run, pixels, first=True)))
            if len(self._line) > len(self._places):
                yield self._take()
        while self._line:
            yield self._take()

    def left(self) -> Iterator[tuple[list[_Row], _Features]]:
        """Yield, after a failure, what was computed and not yielded."""
        for rows, future in self._line:
            if future.done() and not future.cancelled() and future.exception() is None:
                yield rows, future.result()

    def _batches(
        self, pictures: Iterable[tuple[_Row, NDArray[np.uint8]]]
    ) -> Iterator[list[tuple[_Row, NDArray[np.uint8]]]]:
        """Fill batches of the size that every device takes at once; it may shrink meanwhile."""
        batch: list[tuple[_Row, NDArray[np.uint8]]] = []
        for picture in pictures:
            batch.append(picture)
            if len(batch) >= min(base.batch_size for base in self._bases):
                yield batch
                batch = []
        if batch:
            yield batch

    def _take(self) -> tuple[list[_Row], _Features]:
        rows, future = self._line[0]
        with self._waits.on("the base"):
            features = future.result()
        self._line.popleft()
        return rows, features

    def _run(self, pixels: Sequence[NDArray[np.uint8]]) -> _Features:
        base = self._free.get()
        try:
            return base(np.stack(pixels))
        finally:
            self._free.put(base)


class Waits:
    """How long a run has waited for each stage, lately: the longest wait is for what limits it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @property
    def limit(self) -> str:
        """The stage that limits the run; ``""`` as long as nothing was worth waiting for."""
        stage = max(self._seconds, key=self._seconds.__getitem__, default="")
        return stage if self._seconds.get(stage, 0.0) > _TELLING else ""

    @contextlib.contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Note the time that the block takes as waiting for a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            waited = self._seconds.get(stage, 0.0) + time.perf_counter() - started
            self._seconds[stage] = waited
            if waited > _MEMORY:
                self._seconds = {name: seconds / 2 for name, seconds in self._seconds.items()}

    def on_each(self, stage: str, items: Iterable[_T]) -> Iterator[_T]:
        """Yield the items, and note how long each was waited for."""
        iterator = iter(items)
        with contextlib.suppress(StopIteration):
            while True:
                with self.on(stage):
                    item = next(iterator)
                yield item
