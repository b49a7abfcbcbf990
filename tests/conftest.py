"""What every test may use."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

import fakes
from headstart.extract import _kept

if TYPE_CHECKING:
    from pathlib import Path

# Shells let what they run in the background ignore Ctrl-C, and so would all it starts. It is to be
# tested nevertheless.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_base_kept() -> None:
    """Start every test with no base of another's ready."""
    _kept.forget()


@pytest.fixture
def fake_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the Keras base by a fast one that is a real function of the pixels."""
    fakes.install(monkeypatch)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Give a folder of two classes with ten small pictures each."""
    return fakes.draw_classes(tmp_path / "pets")
