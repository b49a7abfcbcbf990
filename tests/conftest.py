"""What every test may use."""

from __future__ import annotations

import functools
import gc
import os
import signal
from typing import TYPE_CHECKING

import pytest
from threadpoolctl import threadpool_limits

import fakes
from headstart.extract import _kept
from headstart.extract import base as base_module

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headstart.extract._arrays import Arrays

# Shells let what they run in the background ignore Ctrl-C, and so would all it starts. It is to be
# tested nevertheless.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Marks of tests that take long, the longest last.
_LONG = ("tensorflow", "cluster")


#: How many threads libraries take for themselves, when they start.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


#: Objects until garbage is looked for among the new ones, and how often before the older ones are.
_GARBAGE = (50_000, 20, 20)


def pytest_configure(config: pytest.Config) -> None:
    """Give a process one thread where several run the tests: they have all cores together.

    It looks for garbage among all that TensorFlow is made of a few times, not hundreds.
    """
    gc.set_threshold(*_GARBAGE)
    if config.getoption("numprocesses", None):
        for name in _THREADS:
            os.environ.setdefault(name, "1")


@pytest.fixture
def all_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Give linear algebra, and all processes that a test starts, several threads again.

    TensorFlow keeps in this process to what it had when it started.
    """
    for name in _THREADS:
        monkeypatch.delenv(name, raising=False)
    several = max(2, os.cpu_count() or 1)
    with threadpool_limits(limits=several):
        yield several


def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: those that start Ray mostly wait for it."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take long, so that none of them is left over at the end."""
    long = {
        item.path: place
        for place, name in enumerate(_LONG)
        for item in items
        if item.get_closest_marker(name)
    }
    items.sort(key=lambda item: -long.get(item.path, -1))


@pytest.fixture(autouse=True)
def no_base_kept() -> None:
    """Start every test with no base of another's ready; only a real one's memory is looked for."""
    kept = [base for bases in _kept._kept.values() for base in bases]
    if all(isinstance(base, fakes.FakeBase) for base in kept):
        _kept._kept.clear()
    _kept.forget()


@pytest.fixture(scope="session", autouse=True)
def weights_drawn_once() -> Iterator[None]:
    """Draw the 22 million numbers of a random base once a process; nobody may write to them."""
    draw = base_module.random_arrays

    @functools.lru_cache(maxsize=4)
    def drawn(shapes: tuple[tuple[int, ...], ...], seed: int) -> Arrays:
        found = draw(shapes, seed)
        for array in (*found.kernels, *found.norms):
            array.flags.writeable = False
        return found

    @functools.wraps(draw)
    def random_arrays(shapes: Sequence[tuple[int, ...]], seed: int) -> Arrays:
        return drawn(tuple(shapes), seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_module, "random_arrays", random_arrays)
        yield


@pytest.fixture
def fake_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the Keras base by a fast one that is a real function of the pixels."""
    fakes.install(monkeypatch)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Give a folder of two classes with ten small pictures each."""
    return fakes.draw_classes(tmp_path / "pets")
