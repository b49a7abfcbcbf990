"""Threads that work ahead of whoever takes the results, which come in order."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    _Task = tuple[concurrent.futures.Future[Any], Callable[[Any], Any], Any]

_AT_ONCE = 4  # items a thread takes: whoever waits for them is woken once for all
_MEMORY = 10.0  # about as many seconds back counts what threads were busy with

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Crew:
    """Threads that take the most urgent of what is to be done.

    Parameters
    ----------
    threads
        How many.
    name
        Of the threads.

    Attributes
    ----------
    threads
        As given.
    """

    def __init__(self, threads: int, name: str) -> None:
        self.threads = threads
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, name)
        #: What is to be done before all else, and what is to be done after it.
        self._first: collections.deque[_Task] = collections.deque()
        self._then: collections.deque[_Task] = collections.deque()
        self._lock = threading.Lock()
        #: Seconds spent lately on what is not `first`, and on what is.
        self._spent = [0.0, 0.0]

    @property
    def mostly_first(self) -> bool:
        """Whether the threads were busier with what is to be done first, lately.

        By the clock: to wait for a file or for a base counts, too.
        """
        then, first = self._spent
        return first > then

    def submit(
        self, work: Callable[[_Item], _Result], item: _Item, *, first: bool = False
    ) -> concurrent.futures.Future[_Result]:
        """Let a thread work on an item, before all that is not `first`."""
        future: concurrent.futures.Future[_Result] = concurrent.futures.Future()
        (self._first if first else self._then).append((future, work, item))
        self._pool.submit(self._take)  # one for each, whichever it then takes
        return future

    def close(self) -> None:
        """Let go of what is not begun, and wait for what is in hand."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self) -> None:
        with self._lock:
            first = bool(self._first)
            future, work, item = (self._first if first else self._then).popleft()
            begins = future.set_running_or_notify_cancel()  # none of its kind before the one before
        if begins:
            started = time.perf_counter()
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 - raised where the result is taken
                future.set_exception(error)
            self._note(first, time.perf_counter() - started)
        del future, item, work  # an error's traceback has this frame, which would hold the error

    def _note(self, first: bool, seconds: float) -> None:
        with self._lock:
            self._spent[first] += seconds
            if sum(self._spent) > _MEMORY * self.threads:
                self._spent = [spent / 2 for spent in self._spent]


class InOrder(Generic[_Item, _Result]):
    """Threads that do the same to each item, a bounded number ahead of whoever takes the results.

    These come in the order of the items, so that neither the number of threads nor their luck
    decides about anything. The threads begin at once.

    Parameters
    ----------
    work
        What to do to an item; an error that it raises is raised where its result is taken.
    items
        All there are.
    threads
        How many.
    ahead
        Of how many items the work may be begun before their results are taken.
    name
        Of the threads.

    Attributes
    ----------
    crew
        The threads.
    """

    def __init__(
        self,
        work: Callable[[_Item], _Result],
        items: Sequence[_Item],
        *,
        threads: int,
        ahead: int,
        name: str,
    ) -> None:
        self._work, self._items, self._ended = work, iter(items), threading.Event()
        self.crew = Crew(threads, name)
        self._at_once = max(1, min(_AT_ONCE, min(ahead, len(items)) // (2 * threads)))
        self._waiting: collections.deque[
            tuple[list[_Item], concurrent.futures.Future[list[_Result]]]
        ] = collections.deque()
        try:
            for _ in range(ahead // self._at_once):
                self._submit()
        except BaseException:  # interrupted: nobody will leave what nobody could enter
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        """Return self: the threads are at work already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the items not begun, and wait for those in hand."""
        self._ended.set()
        self.crew.close()

    def __iter__(self) -> Iterator[tuple[_Item, _Result]]:
        """Yield each item with its result."""
        while self._waiting:
            some, future = self._waiting.popleft()
            yield from zip(some, future.result(), strict=True)
            self._submit()

    def _submit(self) -> None:
        some = list(itertools.islice(self._items, self._at_once))
        if some:
            self._waiting.append((some, self.crew.submit(self._each, some)))

    def _each(self, some: list[_Item]) -> list[_Result]:
        return [self._work(item) for item in some if not self._ended.is_set()]
