"""Threads that work ahead of whoever takes the results, which come in order."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import threading
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from headstart._hardware import keep_to_core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_AT_ONCE = 4  # items a thread takes: whoever waits for them is woken once for all

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
    pinned
        Whether each thread keeps to a core of its own.
    """

    def __init__(
        self,
        work: Callable[[_Item], _Result],
        items: Sequence[_Item],
        *,
        threads: int,
        ahead: int,
        name: str,
        pinned: bool = False,
    ) -> None:
        self._work, self._items, self._ended = work, iter(items), threading.Event()
        core = itertools.count()
        begin = (lambda: keep_to_core(next(core))) if pinned else None
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, name, begin)
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
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[_Item, _Result]]:
        """Yield each item with its result."""
        while self._waiting:
            some, future = self._waiting.popleft()
            yield from zip(some, future.result(), strict=True)
            self._submit()

    def _submit(self) -> None:
        some = list(itertools.islice(self._items, self._at_once))
        if some:
            self._waiting.append((some, self._pool.submit(self._each, some)))

    def _each(self, some: list[_Item]) -> list[_Result]:
        return [self._work(item) for item in some if not self._ended.is_set()]
