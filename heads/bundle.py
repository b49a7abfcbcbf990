"""The base's weights inside a model's file: arrays by name, and what they must be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from headstart.extract.weights import WeightsFile

#: What the name of every array of a base begins with; no head's does.
PREFIX = "base."
#: What weights are called that lie in the model's own file.
NAME = "bundle"


def arrays_in(weights: WeightsFile) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a base's weights by the names they have in a file."""
    from headstart.extract.base import load_arrays

    arrays = load_arrays(weights)
    kinds = {"kernel": arrays.kernels, "norm": arrays.norms}
    return {
        _name(kind, number): array
        for kind, several in kinds.items()
        for number, array in enumerate(several)
    }


def check_layout(found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Refuse dtypes and shapes that are not those of a base, before an array is read.

    Raises
    ------
    ModelError
        If an array is missing, unknown, or another one's.
    """
    expected = _layout()
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())
        raise ModelError(f"of a base's arrays it holds {len(odd)} too many or too few: {odd[:3]}")
    for name, shape in expected.items():
        if found[name] != ("float32", shape):
            dtype, other = found[name]
            raise ModelError(f"{name} has shape {other} of {dtype}; expected {shape} of float32")


def weights_of(arrays: Mapping[str, NDArray[Any]]) -> WeightsFile:
    """Return a base's weights, whose arrays came from a file.

    Raises
    ------
    ModelError
        If there is a number that is not finite.
    """
    from headstart.extract._arrays import Arrays
    from headstart.extract.weights import WeightsFile

    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ModelError(f"{name} has numbers that are not finite")
    kinds = ("kernel", "norm")
    kernels, norms = (
        tuple(arrays[_name(kind, number)] for number in range(len(arrays) // 2)) for kind in kinds
    )
    return WeightsFile(NAME, None, "", Arrays(kernels, norms))


def _layout() -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of the base, by name."""
    from headstart.extract.base import kernel_shapes

    result: dict[str, tuple[int, ...]] = {}
    for number, shape in enumerate(kernel_shapes()):
        result[_name("kernel", number)] = shape
        result[_name("norm", number)] = (3, shape[3])
    return result


def _name(kind: str, number: int) -> str:
    return f"{PREFIX}{kind}.{number:02}"
