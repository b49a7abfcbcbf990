"""Stored numbers become float32 ones, exactly."""

from __future__ import annotations

import numpy as np

from headstart.cache import widened


def test_every_float16_is_widened_exactly() -> None:
    """All 65,536 bit patterns: numbers, subnormal ones, infinities and NaN."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert np.array_equal(
        widened(finite).view(np.uint32), finite.astype(np.float32).view(np.uint32)
    )
    assert np.array_equal(widened(every), every.astype(np.float32), equal_nan=True)
