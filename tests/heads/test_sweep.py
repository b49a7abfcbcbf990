"""Which layer to cut at, on features whose worth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart.cache import Filling, Rows, Spec, Store
from headstart.heads import sweep as module
from headstart.heads.sweep import sweep

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {"mixed0": (4, 4, 6), "mixed5": (3, 3, 8), "mixed9": (1, 1, 16)}


@pytest.fixture
def layered(tmp_path: Path) -> Store:
    """Return a store of three layers: noise; the class in full; the class under noise."""
    draw = np.random.default_rng(0)
    label = np.arange(60) % 3
    ids = [f"{number:064x}".encode() for number in range(60)]
    rows = Rows(tuple("abc"), [f"{n:02}" for n in range(60)], [""] * 60, list(label), ids, [0] * 60)
    filling, spec = Filling(tmp_path / "layered"), Spec(weights="0" * 64)
    for name, signal in (("mixed0", 0.0), ("mixed5", 9.0), ("mixed9", 0.5)):
        means = draw.normal(size=(3, *SHAPES[name])) * signal
        features = means[label] + draw.normal(size=(60, *SHAPES[name]))
        filling.add(replace(spec, layer=name), rows.ids(), features.astype(np.float16), {})
    filling.publish(rows, list(SHAPES), left_out=[], unreadable={}, settings={}, seconds=2.0)
    return Store.open(tmp_path / "layered")


def test_the_layer_that_holds_the_class_wins(layered: Store) -> None:
    """Accuracy, bytes and marks are those the features were drawn with; noise is at chance."""
    told: list[tuple[str, int, int]] = []
    found = sweep(layered, progress=lambda *step: told.append(step))
    cuts = {(cut.layer, cut.pool): cut for cut in found.cuts}
    assert list(cuts) == [(layer, pool) for layer in SHAPES for pool in ("none", "avg")]
    assert cuts["mixed5", "none"].accuracy == 1.0
    assert cuts["mixed5", "none"].ridge == 1.0
    assert cuts["mixed0", "none"].accuracy < 0.6 > cuts["mixed0", "avg"].accuracy
    assert [cut.bytes_per_image for cut in found.cuts] == [192, 12, 144, 16, 32, 32]
    assert (found.best.layer, found.rows) == ("mixed5", 60)
    assert told == [("judging layers", number, 6) for number in range(7)]


def test_a_cut_is_worth_its_bytes_where_nothing_smaller_is_as_accurate(layered: Store) -> None:
    """The marks are the trade-off front, and the table shows them."""
    found = sweep(layered)
    for cut in found.cuts:
        smaller = [other for other in found.cuts if other.bytes_per_image < cut.bytes_per_image]
        if cut.worth:
            assert all(other.accuracy < cut.accuracy for other in smaller)
        else:
            assert any(
                other.accuracy >= cut.accuracy
                for other in found.cuts
                if other.bytes_per_image <= cut.bytes_per_image and other is not cut
            )
    assert found.best.worth
    lines = str(found).splitlines()
    assert sum(line.startswith(">") and "mixed" in line for line in lines) == 1
    assert json.loads(json.dumps(found.to_dict()))["best"]["layer"] == "mixed5"


def test_folds_can_be_fewer(layered: Store) -> None:
    assert sweep(layered, cv=3).protocol.startswith("3 stratified folds")


def test_layers_can_be_chosen(layered: Store) -> None:
    """Only those are judged, in the order they are named."""
    found = sweep(layered, layers=["mixed9", "mixed5"], pools=["avg"])
    assert [(cut.layer, cut.pool) for cut in found.cuts] == [("mixed9", "avg"), ("mixed5", "avg")]


def test_layers_are_judged_side_by_side_where_memory_allows(
    layered: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one after another, with the same answer."""
    beside: list[int] = []

    def parallel(function: Any, layers: Any) -> Any:
        beside.append(len(layers))
        return list(map(function, layers))

    monkeypatch.setattr(module, "parallel", parallel)
    found = [replace(cut, seconds=0.0) for cut in sweep(layered).cuts]
    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    assert [replace(cut, seconds=0.0) for cut in sweep(layered).cuts] == found
    assert beside == [3]
