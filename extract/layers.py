"""The base's layers: their names, where it can be cut, and what each cut costs."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.errors import LayerError
from headstart.extract._keras import import_keras

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["MIN_SIZE", "LayerInfo", "Network", "build_network", "check_size", "layer_table"]

MIN_SIZE = 75  # below this InceptionV3 runs out of pixels


@dataclass(frozen=True)
class LayerInfo:
    """What cutting the base at one layer costs.

    Attributes
    ----------
    name
        The layer's name, ``mixed7``.
    shape
        Of one picture's activations, (height, width, channels).
    bytes_per_image
        Of one picture's activations at float16, uncompressed.
    gflop
        Arithmetic for one picture from the input to this layer, in 10^9 floating-point operations
        of the convolutions; a multiply-add counts as two.
    """

    name: str
    shape: tuple[int, ...]
    bytes_per_image: int
    gflop: float


@dataclass(frozen=True)
class Network:
    """InceptionV3 as Keras builds it, with names that do not depend on what was built before.

    Keras numbers unnamed layers with counters that run through the whole process. Here a layer's
    name is the one it has in a process that builds nothing else, in the order of creation:
    ``conv2d``, ``conv2d_1``, ... ``conv2d_93``. The named ones (``mixed7``) keep their names.

    Attributes
    ----------
    model
        The ``keras.Model``, from float32 pixels in [-1, 1].
    layers
        Name to Keras layer, in the order of ``model.layers``; the input is left out.
    """

    model: Any
    layers: dict[str, Any]

    @property
    def cuts(self) -> dict[str, Any]:
        """The layers with a map, (batch, height, width, channels), as their output."""
        return {name: layer for name, layer in self.layers.items() if len(layer.output.shape) == 4}

    def of_kind(self, prefix: str) -> list[Any]:
        """Keras layers named `prefix` and a number, in the order of creation."""
        return [self.layers[name] for name in _numbered(self.layers, prefix)]

    def model_order(self, prefix: str) -> list[int]:
        """Where each layer of `of_kind` stands among its kind in ``model.layers``."""
        names = [name for name in self.layers if _number(name, prefix) is not None]
        return [names.index(name) for name in _numbered(self.layers, prefix)]

    def check_layers(self, names: Sequence[str]) -> None:
        """Raise LayerError, with what is near, unless the network can be cut at every name."""
        cuts = self.cuts
        if not names:
            raise LayerError("No layer is given; the usual one is mixed7.")
        for name in names:
            if name not in cuts:
                near = difflib.get_close_matches(name, cuts, n=3) or ["mixed0 ... mixed10"]
                raise LayerError(
                    f"InceptionV3 has no layer {name!r} to cut at. Near it: {', '.join(near)}; "
                    "headstart inspect lists them all."
                )


def _number(name: str, prefix: str) -> int | None:
    match = re.fullmatch(rf"{prefix}(?:_(\d+))?", name)
    return int(match[1] or 0) if match else None


def _numbered(names: Iterable[str], prefix: str) -> list[str]:
    found = [(number, name) for name in names if (number := _number(name, prefix)) is not None]
    return [name for _, name in sorted(found)]


def check_size(size: int) -> None:
    """Raise LayerError unless the base can take pictures of `size` by `size` pixels."""
    if size < MIN_SIZE:
        raise LayerError(
            f"--size {size}: InceptionV3 takes pictures of {MIN_SIZE}x{MIN_SIZE} pixels or more."
        )


def build_network(size: int) -> Network:
    """Build InceptionV3 without its top for pictures of `size` by `size` pixels, weights unset.

    Raises
    ------
    LayerError
        When `size` is below 75.
    """
    check_size(size)
    keras = import_keras()
    with _plain_settings(keras.config):
        model = keras.applications.InceptionV3(
            weights=None, include_top=False, input_shape=(size, size, 3)
        )
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    return Network(model, dict(zip(_stable_names(layers), layers, strict=True)))


@contextlib.contextmanager
def _plain_settings(config: Any) -> Iterator[None]:
    """Build float32, channels-last layers, whatever the user's Keras settings are."""
    policy, layout = config.dtype_policy(), config.image_data_format()
    config.set_dtype_policy("float32")
    config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        config.set_dtype_policy(policy)
        config.set_image_data_format(layout)


def _stable_names(layers: Sequence[Any]) -> list[str]:
    """Give Keras' automatic names numbers from 0 within each kind; keep the given names."""
    first: dict[str, int] = {}
    split = [_split(layer) for layer in layers]
    for kind, number in split:
        if number is not None:
            first[kind] = min(number, first.get(kind, number))
    return [_join(kind, number, first.get(kind, 0)) for kind, number in split]


def _split(layer: Any) -> tuple[str, int | None]:
    """Split an automatic name into kind and number; keep a given one (``mixed7``)."""
    name: str = layer.name
    kind, _, number = name.rpartition("_")
    if name.startswith("mixed"):
        return name, None
    return (kind, int(number)) if number.isdigit() else (name, 0)


def _join(kind: str, number: int | None, first: int) -> str:
    if number is None or number == first:
        return kind
    return f"{kind}_{number - first}"


def layer_table(size: int) -> list[LayerInfo]:
    """List the layers the base can be cut at, in the order of their arithmetic.

    Parameters
    ----------
    size
        Input height and width, in pixels.

    Raises
    ------
    LayerError
        When `size` is below 75.
    """
    network = build_network(size)
    table = []
    for name, layer in network.cuts.items():
        shape = tuple(layer.output.shape[1:])
        flop = sum(_flop(operation) for operation in _ancestors(layer))
        table.append(LayerInfo(name, shape, 2 * math.prod(shape), flop / 1e9))
    return sorted(table, key=lambda info: info.gflop)


def _ancestors(layer: Any) -> set[Any]:
    """Collect the layer and everything it is computed from."""
    found: set[Any] = set()
    waiting = [layer]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            inputs = operation.input if isinstance(operation.input, list) else [operation.input]
            waiting += [tensor._keras_history.operation for tensor in inputs]  # noqa: SLF001
    return found


def _flop(operation: Any) -> int:
    kernel = getattr(operation, "kernel", None)
    if kernel is None:
        return 0
    _, height, width, _ = operation.output.shape
    return int(2 * math.prod(kernel.shape) * height * width)
