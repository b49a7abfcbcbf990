"""Between the numbers that are stored and those that are computed with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INFINITE = 0x7C00
#: Bits of the least float32 number that float16 makes infinite, and of its least normal number.
_TOO_LARGE, _LEAST_NORMAL = 0x477F_F000, np.uint32(0x3880_0000)
_AT_ONCE = 1 << 15  # numbers: they stay in the processor's cache from one step to the next


def widened(block: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return `block` in float32, exactly; float64 stays float64.

    float16 is widened by shifting its bits, many times faster than numpy's own cast: exponent
    and mantissa move to their places in float32, and one product corrects the exponent's bias.

    Parameters
    ----------
    block
        Numbers of any shape.
    out
        Where to put them, contiguous, of the same shape and of the dtype that is returned.

    Examples
    --------
    >>> widened(np.array([0.5, -2.0, 6e-8], np.float16)).tolist() == [0.5, -2.0, 2.0**-24]
    True
    """
    if block.dtype != np.float16:
        if out is None:
            return block.astype(np.result_type(block, np.float32), copy=False)
        out[...] = block
        return out
    if out is None:
        out = np.empty(block.shape, np.float32)
    finite, signed = _signs(block)
    if not finite:
        out[...] = block
        return out
    numbers, result = np.ascontiguousarray(block).reshape(-1), out.reshape(-1)
    for first in range(0, numbers.size, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        _widen(numbers[part], result[part], signed=signed)
    return out


def _widen(numbers: NDArray[np.float16], result: NDArray[np.float32], *, signed: bool) -> None:
    bits = result.view(np.int32)
    np.copyto(bits, numbers.view(np.int16))
    bits <<= 13
    if signed:
        bits &= np.int32(-0x7000_2000)  # sign, exponent and mantissa; not the copies of the sign
    result *= np.float32(2.0**112)


def narrowed(block: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
    """Put `block` into `out`, of the same shape and contiguous, as numpy's cast to its dtype would.

    What is too large becomes infinite, without a warning. Float32 numbers from 0 to what float16
    holds, as behind an activation, are rounded to it by their bits: in half the time.

    Examples
    --------
    >>> narrowed(np.array([0.1, 1e6], np.float32), np.empty(2, np.float16)).tolist()
    [0.0999755859375, inf]
    """
    if block.shape != out.shape:
        raise ValueError(f"numbers of shape {block.shape} do not fit into {out.shape}")
    if block.dtype != np.float32 or out.dtype != np.float16:
        with np.errstate(over="ignore"):
            out[...] = block
        return out
    numbers, result = np.ascontiguousarray(block).reshape(-1), out.reshape(-1)
    for first in range(0, numbers.size, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        _narrow(numbers[part], result[part])
    return out


def _narrow(numbers: NDArray[np.float32], result: NDArray[np.float16]) -> None:
    bits = numbers.view(np.uint32)
    if int(bits.max()) >= _TOO_LARGE:  # or below 0, or NaN
        with np.errstate(over="ignore"):
            result[...] = numbers
        return
    short = bits >> np.uint32(13)
    if int(np.bitwise_or.reduce(bits)) & 0x1FFF:  # to nearest, halves to even
        short = (bits + np.uint32(0xFFF) + (short & np.uint32(1))) >> np.uint32(13)
    found = result.view(np.uint16)
    np.copyto(found, short, casting="unsafe")
    found -= np.uint16((112 << 10) & 0xFFFF)  # the exponents' biases differ by 112
    normal = bits >= _LEAST_NORMAL
    found *= normal
    if np.count_nonzero(bits) > np.count_nonzero(normal):
        small = np.flatnonzero(~normal & (bits != 0))
        result[small] = numbers[small]


def is_finite(numbers: NDArray[Any]) -> bool:
    """Tell whether there is neither an infinity nor a NaN among some numbers."""
    if numbers.dtype != np.float16:
        return bool(np.isfinite(numbers).all())
    return _signs(numbers)[0]


def _signs(numbers: NDArray[np.float16]) -> tuple[bool, bool]:
    """Tell whether all numbers are finite, and whether there may be one below 0, by their bits.

    Those of infinities and NaN are above all others of their sign.
    """
    if not numbers.size or int(numbers.view(np.uint16).max()) < _INFINITE:
        return True, False
    positive, negative = numbers.view(np.int16).max(), numbers.view(np.uint16).max()
    return bool(positive < _INFINITE and negative < 0x8000 + _INFINITE), True
