"""Stored numbers become float32 ones, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.cache import widened
from headstart.cache.widening import is_finite, narrowed


def test_every_float16_is_widened_exactly() -> None:
    """All 65,536 bit patterns: numbers, subnormal ones, infinities and NaN."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert np.array_equal(
        widened(finite).view(np.uint32), finite.astype(np.float32).view(np.uint32)
    )
    assert np.array_equal(widened(every), every.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("shape", [(0,), (5,), (3, 40_000)])
def test_it_can_be_told_where_to(shape: tuple[int, ...]) -> None:
    """The place it is given holds the same numbers, whatever their signs and dtype."""
    draw = np.random.default_rng(0).normal(size=shape)
    for block in (draw.astype(np.float16), abs(draw).astype(np.float16), draw.astype(np.float32)):
        out = np.full(shape, np.nan, np.float32)
        assert widened(block, out) is out
        np.testing.assert_array_equal(out, block.astype(np.float32))


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_not_finite_is_seen(odd: float, dtype: type) -> None:
    """Of either sign, among the largest numbers there are."""
    most = np.finfo(dtype).max
    numbers: np.ndarray = np.array([most, -most, 0, -0.0], dtype)
    assert is_finite(numbers)
    assert is_finite(numbers[:0])
    assert not is_finite(np.append(numbers, dtype(odd)))
    assert not is_finite(np.append(abs(numbers), dtype(odd)))


def test_numbers_are_rounded_as_numpy_rounds_them() -> None:
    """To nearest, halves to even, also where float16 has fewer digits; the sign of 0 is kept."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    bits = every.view(np.uint32)
    halves = np.sort(every[np.isfinite(every) & (every >= 0)])
    between = (halves[1:] + halves[:-1]) / 2
    near = [np.nextafter(between, np.float32(to)) for to in (0, np.inf)]
    draw = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32)
    kinds: list[np.ndarray] = [
        every,
        halves,
        between,
        *near,
        bits[::7].view(np.float32),
        draw.view(np.float32),
    ]
    kinds += [(draw & np.uint32(0x7FFF_0000)).view(np.float32), np.zeros(0, np.float32)]
    for numbers in kinds:
        for some in (numbers, numbers[abs(numbers) < 6e4]):
            with np.errstate(all="ignore"):
                expected = some.astype(np.float16)
            found = narrowed(some, np.empty(some.shape, np.float16))
            odd = np.isnan(expected)
            assert np.array_equal(np.isnan(found), odd)
            assert np.array_equal(found[~odd].view(np.uint16), expected[~odd].view(np.uint16))
