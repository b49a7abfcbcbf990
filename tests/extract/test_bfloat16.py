"""Averages of bfloat16 maps are sums in float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from headstart.extract import _bfloat16
from headstart.extract._bfloat16 import means


def draw(*shape: int) -> np.ndarray:
    found: np.ndarray = np.random.default_rng(0).normal(size=shape).astype(ml_dtypes.bfloat16)
    return found


@pytest.mark.parametrize("shape", [(3, 16, 16, 288), (5, 7, 7, 6), (1, 1, 1, 2), (2, 3, 4, 5)])
def test_they_are_those_of_float32(shape: tuple[int, ...]) -> None:
    """Up to the rounding of a float32 sum, also of an odd number of channels."""
    maps = draw(*shape)
    expected = maps.astype(np.float64).mean(axis=(1, 2))
    found = means(maps)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_pictures_own_numbers_alone_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, whatever its company and however many are taken at once."""
    maps = draw(6, 7, 7, 768)
    found = means(maps)
    np.testing.assert_array_equal(means(maps[4:5]), found[4:5])
    monkeypatch.setattr(_bfloat16, "_AT_ONCE", 1 << 30)
    np.testing.assert_array_equal(means(maps), found)


def test_what_is_not_finite_stays_so() -> None:
    """It is refused where it would be written."""
    maps = draw(1, 2, 2, 4)
    maps[0, 0, 0, 1] = np.inf
    maps[0, 1, 1, 2] = np.nan
    maps[0, 0, 0, 2], maps[0, 0, 1, 2] = np.inf, -np.inf
    assert np.isfinite(means(maps)).tolist() == [[True, False, False, True]]
