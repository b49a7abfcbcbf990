"""Independent work on all cores, each with single-threaded linear algebra."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import ThreadpoolController

from headstart._hardware import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

T = TypeVar("T")
R = TypeVar("R")


_inside = threading.local()


def _mark() -> None:
    """Remember that this is one of our threads."""
    _inside.thread = True


@cache
def _libraries() -> ThreadpoolController:
    """Find the linear algebra libraries, once: it takes a few milliseconds."""
    return ThreadpoolController()


def free_cores() -> int:
    """Return how many threads `parallel` would use here."""
    return 1 if getattr(_inside, "thread", False) else cores()


def single_threaded() -> AbstractContextManager[Any]:
    """Return a context in which linear algebra uses one thread."""
    if getattr(_inside, "thread", False):  # it is so already
        return nullcontext()
    context: AbstractContextManager[Any] = _libraries().limit(limits=1)
    return context


def parallel(function: Callable[[T], R], tasks: Iterable[T]) -> list[R]:
    """Return ``[function(task) for task in tasks]``, computed by as many threads as cores.

    Inside such a thread it computes one task after another.

    numpy, BLAS and libsvm let other threads run. One thread per task waits for nobody, where
    one BLAS call on all cores ends with its slowest thread: on a busy machine, several times
    slower.

    Examples
    --------
    >>> parallel(abs, [-1, 2])
    [1, 2]
    """
    work = list(tasks)
    workers = min(free_cores(), len(work))
    if workers < 2:
        return [function(task) for task in work]
    with single_threaded(), ThreadPoolExecutor(workers, initializer=_mark) as pool:
        return list(pool.map(function, work))
