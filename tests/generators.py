"""Generators that a process of its own can import."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import DataError, HeadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headstart.heads.modes import Bench


def counts(upto: int) -> Iterator[int]:
    """Yield numbers."""
    yield from range(upto)


def fails(number: int) -> Iterator[int]:
    """Yield one number, then raise an error of ours."""
    yield number
    raise DataError("of no use")


def breaks(number: int) -> Iterator[int]:
    """Yield one number, then raise an error that nobody expects."""
    yield number
    raise KeyError("mixed99")


def leaves(number: int) -> Iterator[int]:
    """Yield one number, then end without a word."""
    yield number
    os._exit(3)


def dies(number: int) -> Iterator[int]:
    """Yield one number, then end as for lack of memory."""
    yield number
    os.kill(os.getpid(), signal.SIGKILL)


def cost(_: Bench, layers: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield what a base costs that is not there."""
    yield {"base_ms": dict.fromkeys(layers, 1.0), "usual_ms": 2.0}


def peak(_: int) -> Iterator[float]:
    """Yield the most memory that this process has had."""
    from headstart.heads.modes import peak_mb

    yield peak_mb()


def fails_as_a_head(number: int) -> Iterator[int]:
    """Yield one number, then raise the error that is noted and does not end a benchmark."""
    yield number
    raise HeadError("of no use")


def dies_once(mark: str) -> Iterator[int]:
    """Die the first time; yield one the second."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield 1


def cores() -> Iterator[int]:
    """Yield how many cores heads train on."""
    from headstart import _hardware

    yield _hardware.cores()
