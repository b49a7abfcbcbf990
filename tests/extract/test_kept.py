"""A base kept between runs: the same one, to one run at a time, and none that failed."""

from __future__ import annotations

import gc
import hashlib
import os
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import fakes
from headstart.extract import _kept
from headstart.extract import base as base_module
from headstart.extract.plan import Settings
from headstart.extract.run import fill_store

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.extract.weights import WeightsFile

RANDOM = fakes.fake_find_weights("random")
OPTIONS: dict[str, Any] = {
    "size": 16,
    "layers": ("mixed7",),
    "pool": "none",
    "engine": "openvino",
    "precision": "float32",
    "batch_size": 32,
}

pytestmark = pytest.mark.usefixtures("fake_base")


def test_the_next_run_has_the_same_base() -> None:
    """A run that wants what the last one wanted loads nothing."""
    with _kept.ready(RANDOM, **OPTIONS) as first:
        pass
    with _kept.ready(RANDOM, **OPTIONS) as second:
        assert second is first


@pytest.mark.parametrize(
    ("weights", "changed"),
    [
        ("random:1", {}),
        ("random", {"layers": ("mixed5",)}),
        ("random", {"pool": "avg"}),
        ("random", {"size": 17}),
        ("random", {"engine": "keras"}),
        ("random", {"precision": "bfloat16"}),
        ("random", {"batch_size": 8}),
    ],
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


def test_a_base_that_is_replaced_gives_its_memory_back() -> None:
    """At once, also where it refers to itself, as TensorFlow's programs do."""
    gc.disable()
    try:
        with _kept.ready(RANDOM, **OPTIONS) as bases:
            bases[0].itself = bases  # type: ignore[attr-defined]
            gone = weakref.ref(bases[0])
        del bases
        with _kept.ready(RANDOM, **OPTIONS | {"pool": "avg"}):
            assert gone() is None
    finally:
        gc.enable()


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


def test_a_base_whose_batch_was_halved_is_not_kept() -> None:
    """A run that asks for a batch size does not get what an earlier one had to make of it."""
    with _kept.ready(RANDOM, **OPTIONS) as first:
        first[0].batch_size //= 2  # type: ignore[misc]
    with _kept.ready(RANDOM, **OPTIONS) as second:
        assert second is not first
        assert second[0].batch_size == 32


def test_runs_of_one_process_load_the_base_once(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second store is filled with the base of the first, until the weights' file changes."""
    loaded = []

    class Base(fakes.FakeBase):
        def __init__(self, weights: WeightsFile, **options: Any) -> None:
            super().__init__(weights, **options)
            self.digest = weights.sha256
            loaded.append(self)

    monkeypatch.setattr(base_module, "load_base", Base)
    file = tmp_path / "own.h5"
    settings = Settings(size=16, weights=str(file))

    def filled(name: str) -> str:
        store, _ = fill_store(pets, tmp_path / name, settings)
        return store.spec.weights

    file.write_bytes(b"some")
    assert filled("one") == filled("two") == hashlib.sha256(b"some").hexdigest()
    assert len(loaded) == 1
    file.write_bytes(b"others")
    assert filled("three") == hashlib.sha256(b"others").hexdigest()
    assert len(loaded) == 2


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
