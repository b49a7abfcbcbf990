"""A base kept between runs: the same one, to one run at a time, and none that failed."""

from __future__ import annotations

import os
from typing import Any

import pytest

import fakes
from headstart.extract import _kept
from headstart.extract import base as base_module

RANDOM = fakes.fake_find_weights("random")
OPTIONS: dict[str, Any] = {"size": 16, "layers": ("mixed7",), "pool": "none", "engine": "openvino"}

pytestmark = pytest.mark.usefixtures("fake_base")


def test_the_next_run_has_the_same_base() -> None:
    """A run that wants what the last one wanted loads nothing."""
    with _kept.ready(RANDOM, **OPTIONS) as first:
        pass
    with _kept.ready(RANDOM, **OPTIONS) as second:
        assert second is first


@pytest.mark.parametrize(
    ("weights", "changed"),
    [("random:1", {}), ("random", {"layers": ("mixed5",)}), ("random", {"pool": "avg"})],
)
def test_another_base_takes_its_place(weights: str, changed: dict[str, Any]) -> None:
    """What differs in anything is loaded, and one base is kept, not two."""
    with _kept.ready(RANDOM, **OPTIONS) as first:
        pass
    with _kept.ready(fakes.fake_find_weights(weights), **OPTIONS | changed) as other:
        assert other is not first
        assert other[0].digest == fakes.FakeBase(fakes.fake_find_weights(weights), **OPTIONS).digest
    with _kept.ready(RANDOM, **OPTIONS) as again:
        assert again is not first


def test_a_run_has_its_base_to_itself() -> None:
    """Two runs at once, such as of two threads, have a base each."""
    with _kept.ready(RANDOM, **OPTIONS) as first, _kept.ready(RANDOM, **OPTIONS) as second:
        assert second is not first


def test_a_base_that_failed_is_not_kept() -> None:
    """An engine in an unknown state serves no second run."""
    with pytest.raises(RuntimeError, match="broken"), _kept.ready(RANDOM, **OPTIONS) as first:
        raise RuntimeError("broken")
    with _kept.ready(RANDOM, **OPTIONS) as second:
        assert second is not first


def test_a_forked_process_loads_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has its parent's memory and none of its threads, on which a base would wait."""
    with _kept.ready(RANDOM, **OPTIONS) as first:
        pass
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    with _kept.ready(RANDOM, **OPTIONS) as second:
        assert second is not first


def test_every_device_has_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies on other devices are kept with the base."""
    monkeypatch.setattr(
        base_module, "spread", lambda base: [base, fakes.FakeBase(RANDOM, **OPTIONS)]
    )
    with _kept.ready(RANDOM, **OPTIONS) as bases:
        assert len(bases) == 2
    with _kept.ready(RANDOM, **OPTIONS) as again:
        assert again is bases
