"""Independent work on all cores, each with single-threaded linear algebra."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

T = TypeVar("T")
R = TypeVar("R")


@cache
def cores() -> int:
    """Return the number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


@cache
def _libraries() -> ThreadpoolController:
    """Find the linear algebra libraries, once: it takes a few milliseconds."""
    return ThreadpoolController()


def single_threaded() -> AbstractContextManager[Any]:
    """Return a context in which linear algebra uses one thread."""
    context: AbstractContextManager[Any] = _libraries().limit(limits=1)
    return context


def parallel(function: Callable[[T], R], tasks: Iterable[T]) -> list[R]:
    """Return ``[function(task) for task in tasks]``, computed by as many threads as cores.

    numpy, BLAS and libsvm let other threads run. One thread per task waits for nobody, where
    one BLAS call on all cores ends with its slowest thread: on a busy machine, several times
    slower.

    Examples
    --------
    >>> parallel(abs, [-1, 2])
    [1, 2]
    """
    work = list(tasks)
    workers = min(cores(), len(work))
    if workers < 2:
        return [function(task) for task in work]
    with single_threaded(), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, work))
