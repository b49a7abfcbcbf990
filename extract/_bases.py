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
        At least one, all with the same layers and weights. Nothing is asked of them before there
        is a batch: to answer, they may have to load a framework.
    crew
        The threads that decode. They compute the batches, before all else, where each keeps to a
        core; otherwise others do.

    Attributes
    ----------
    waits
        The time that its results were waited for, for others to add what else is waited for.
    """

    def __init__(self, bases: Sequence[Base], crew: Crew) -> None:
        self._bases, self._decoders, self.waits = tuple(bases), crew, Waits()
        self._free: queue.SimpleQueue[Base] = queue.SimpleQueue()
        self._places = 0
        #: Who computes, as soon as there is something to compute.
        self._crew: Crew | None = None
        self._line: collections.deque[tuple[list[_Row], concurrent.futures.Future[_Features]]] = (
            collections.deque()
        )

    @property
    def limit(self) -> str:
        """The stage that limits the run: ``decoding``, ``the base`` or another of the `waits`."""
        stage = self.waits.limit
        if stage != "decoding" or self._crew is not self._decoders:
            return stage
        return "the base" if self._decoders.mostly_first else stage  # the same threads do both

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the batches not begun, and wait for those in hand."""
        try:
            # The last first: what is computed has no gaps, as batches are begun in order.
            begun = [future for _, future in reversed(self._line) if not future.cancel()]
            concurrent.futures.wait(begun)
        finally:
            if self._crew is not None and self._crew is not self._decoders:
                self._crew.close()

    def compute(
        self, pictures: Iterable[tuple[_Row, NDArray[np.uint8]]]
    ) -> Iterator[tuple[list[_Row], _Features]]:
        r"""Yield (rows, features) for batch after batch; features: layer to (b, \*shape).

        `pictures` are rows, by whatever name, with pixels (size, size, 3).
        """
        for batch in self._batches(pictures):
            crew = self._crew or self._begin()
            rows, pixels = [row for row, _ in batch], [pixels for _, pixels in batch]
            self._line.append((rows, crew.submit(self._run, pixels, first=True)))
            if len(self._line) > self._places:
                yield self._take()
        while self._line:
            yield self._take()

    def left(self) -> Iterator[tuple[list[_Row], _Features]]:
        """Yield, after a failure, what was computed and not yielded."""
        for rows, future in self._line:
            if future.done() and not future.cancelled() and future.exception() is None:
                yield rows, future.result()

    def _begin(self) -> Crew:
        places = [base for base in self._bases for _ in range(base.at_once)]
        for base in places:
            self._free.put(base)
        shared = all(base.per_core for base in self._bases)
        enough = self._decoders.threads >= len(places)
        self._places = len(places)
        self._crew = self._decoders if shared and enough else Crew(len(places), "base")
        return self._crew

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
        with self.waits.on("decoding" if self._crew is self._decoders else "the base"):
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
