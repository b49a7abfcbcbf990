"""Processes to break, seeds to replay, and the figures at the end."""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING

import pytest

import fakes
from reliability.counts import new_seed
from reliability.lab import Forge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_FIGURES: list[str] = []


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Start processes that have all but the heads loaded."""
    forge = Forge(tmp_path_factory.mktemp("forge"))
    yield forge
    forge.close()


@pytest.fixture(scope="session")
def heads_forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Start processes that have the row space loaded too."""
    forge = Forge(tmp_path_factory.mktemp("heads"), "headstart.heads.rowspace")
    yield forge
    forge.close()


@pytest.fixture(scope="session")
def lockless_forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Start processes whose file locks lock nothing, those of HDF5 included."""
    forge = Forge(tmp_path_factory.mktemp("lockless"), HDF5_USE_FILE_LOCKING="FALSE")
    yield forge
    forge.close()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Give the seed of this test, and print it."""
    found = new_seed(campaign=request.node.get_closest_marker("campaign") is not None)
    sys.stdout.write(f"HEADSTART_SEED={found}\n")
    return found


@pytest.fixture
def chance(seed: int) -> random.Random:
    """Give a source of chance that can be replayed."""
    return random.Random(seed)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """Keep a line of figures for the end of the session."""
    begun = time.monotonic()
    lines: list[str] = []
    yield lines.append
    seconds = time.monotonic() - begun
    for line in lines:
        shown = request.node.funcargs.get("seed", "-")
        _FIGURES.append(f"{request.node.name}: {line}; seed {shown}; {seconds:.0f} s")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    for line in _FIGURES:
        terminalreporter.write_line(f"figures: {line}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give 40 small pictures of two classes."""
    return fakes.draw_classes(tmp_path / "data", per_class=20)
