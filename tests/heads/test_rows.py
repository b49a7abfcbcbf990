"""Rows of a store as a matrix: read in blocks, or held in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headstart.cache import Store
from headstart.heads.rows import FeatureRows, Maps
from headstart.heads.rowspace import RowSpace

Make = Callable[..., Any]
NUMBERS = np.array([70, 3, 4, 5, 90, 0, 41])


@pytest.mark.parametrize("pool", ["none", "avg", "max"])
def test_rows_from_memory_are_those_of_the_store(make_store: Make, draw: Make, pool: Any) -> None:
    """All of them, some of them and in blocks, flat or pooled, in the same order."""
    store = make_store(*draw(100))
    source, held = FeatureRows(store, "mixed7", NUMBERS, pool), Maps(store, "mixed7", NUMBERS)
    rows = held.rows(pool)
    assert (rows.shape, rows.fingerprint()) == (source.shape, source.fingerprint())
    np.testing.assert_array_equal(rows.load(), source.load())
    np.testing.assert_array_equal(rows.take(slice(2, 5)).load(), source.load()[2:5])
    found = np.zeros(rows.shape)
    for positions, block in rows.take(np.array([6, 0, 1])).blocks(2):
        assert len(block) <= 2
        found[positions] = block
    np.testing.assert_array_equal(found[:3], source.load()[[6, 0, 1]])


def test_pooled_rows_that_will_be_summed_have_double_precision(
    make_store: Make, draw: Make
) -> None:
    """More rows than channels: their covariance does not depend on the order of the rows."""
    store = make_store(*draw(100))
    assert Maps(store, "mixed7", np.arange(100)).rows("avg").load().dtype == np.float64
    assert Maps(store, "mixed7", np.arange(30)).rows("avg").load().dtype == np.float32


def test_maps_are_read_once_and_only_when_needed(
    make_store: Make, draw: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flat and pooled row spaces share one reading; kept ones need none."""
    store = make_store(*draw(100))
    read: list[str] = []
    blocks = Store.blocks

    def counted(self: Store, layer: Any = None, **options: Any) -> Any:
        read.append(options["pool"])
        return blocks(self, layer, **options)

    monkeypatch.setattr(Store, "blocks", counted)
    for _ in range(2):
        maps = Maps(store, "mixed7", np.arange(100))
        for pool in ("none", "avg", "max"):
            RowSpace().fit_rows(maps.rows(pool))
    assert read == ["none"]
