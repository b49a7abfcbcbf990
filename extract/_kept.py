"""A base kept ready for the next run: making one ready takes as long as many pictures."""

from __future__ import annotations

import contextlib
import gc
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headstart.extract.base import Base
    from headstart.extract.weights import WeightsFile

    _Bases = tuple[Base, ...]

_kept: dict[tuple[object, ...], _Bases] = {}


@contextlib.contextmanager
def ready(weights: WeightsFile, *, batch_size: int, **options: Any) -> Iterator[_Bases]:
    """Give the base, a copy for every device, and keep it for the next run that wants the same.

    One base is kept at most, and none that failed or halved its batch for lack of memory, of which
    the next run may have more. A run has it to itself: that of another thread, or of a forked
    process, gets its own.

    Parameters
    ----------
    weights, batch_size, options
        As for `load_base`.
    """
    # A process that was forked has the memory of its parent's base, and none of its threads.
    key = (os.getpid(), weights.name, weights.sha256, batch_size, *sorted(options.items()))
    bases = _kept.pop(key, None)
    forget()
    if bases is None:
        from headstart.extract.base import load_base, spread

        bases = tuple(spread(load_base(weights, batch_size=batch_size, **options)))
    yield bases
    forget()
    if all(base.batch_size == batch_size for base in bases):
        _kept[key] = bases


def forget() -> None:
    """Let go of what is kept, and of its memory.

    A program of TensorFlow is in cycles, which Python finds when it likes: until then another base
    would take a further half gigabyte, and seconds to get it from the system.
    """
    if _kept:
        _kept.clear()
        gc.collect()
