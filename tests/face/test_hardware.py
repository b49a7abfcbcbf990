"""What this machine is, in words."""

from __future__ import annotations

import os
import platform
import shutil
from typing import TYPE_CHECKING

import pytest

from headstart import _hardware

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test see what another one found."""
    for name in ("machine", "_available"):
        monkeypatch.setattr(_hardware, name, getattr(_hardware, name).__wrapped__)


def test_cores_processor_and_gpu_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux and the driver name them."""
    flags = tmp_path / "cpuinfo"
    flags.write_text("processor\t: 0\nmodel name\t: Example 9 CPU\nflags\t\t: fpu\n" * 2)
    monkeypatch.setattr(_hardware, "_FLAGS", flags)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    monkeypatch.setattr(_hardware, "_first_gpu", {"name": "Example A1"}.__getitem__)
    assert _hardware.machine() == "2 cores of Example 9 CPU, Example A1"


def test_elsewhere_the_kind_of_processor_has_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing tells its name, and there is no driver."""
    monkeypatch.setattr(_hardware, "_FLAGS", tmp_path / "nowhere")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert _hardware.machine() == f"1 core of {platform.machine()}, no GPU"
