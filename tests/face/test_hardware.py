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


def test_a_process_has_every_core_unless_it_is_kept_from_some(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """By the system, a quota or its own share; then it must not choose cores for its threads."""
    request.addfinalizer(_hardware._has_quota.cache_clear)
    _hardware._has_quota.cache_clear()
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(_hardware, "_shares", [])
    monkeypatch.setattr(_hardware, "_QUOTAS", (tmp_path / "none", tmp_path / "quota"))
    assert _hardware.has_every_core()
    for text, every in (("max 100000", True), ("-1", True), ("400000 100000", False)):
        (tmp_path / "quota").write_text(text + "\n")
        _hardware._has_quota.cache_clear()
        assert _hardware.has_every_core() == every
    (tmp_path / "quota").unlink()
    _hardware._has_quota.cache_clear()
    _hardware.keep_to(3)
    assert not _hardware.has_every_core()
    monkeypatch.setattr(_hardware, "_shares", [])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    assert not _hardware.has_every_core()


def test_a_thread_keeps_to_one_core_of_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted over and over; where the system cannot, it goes where it will."""
    kept = list[set[int]]()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, own: kept.append(own), raising=False)
    for number in range(3):
        _hardware.keep_to_core(number)
    assert kept == [{1}, {5}, {1}]
    monkeypatch.delattr(os, "sched_setaffinity")
    _hardware.keep_to_core(0)
    assert len(kept) == 3


def test_a_thread_that_may_not_keep_to_a_core_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only speed is lost."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    _hardware.keep_to_core(0)
