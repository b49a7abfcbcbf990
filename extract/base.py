"""The frozen base: pixels in, activations at the cut out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import HeadstartError
from headstart.extract._arrays import CONVOLUTIONS, Arrays, read_arrays
from headstart.extract._keras import import_keras
from headstart.extract.layers import LayerInfo, Network, build_network, layer_table
from headstart.extract.weights import WeightsFile, random_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Base", "LayerInfo", "import_keras", "layer_table", "load_base"]


@dataclass(frozen=True)
class Base:
    """The pretrained network, frozen and cut.

    Attributes
    ----------
    layers
        The layers it is cut at.
    digest
        SHA-256 in hex of the weights as loaded; the same whatever file they came in.
    engine
        What runs it: ``keras``.
    precision
        What it computes in: ``float32``.
    batch_size
        The number of pictures in every batch that reaches the device; shorter ones are padded, so
        that one program is compiled and a picture's features do not depend on its company.
    shapes
        Layer to the shape of one picture's features.
    """

    layers: tuple[str, ...]
    digest: str
    engine: str
    precision: str
    batch_size: int
    shapes: dict[str, tuple[int, ...]]
    _model: Any = field(repr=False)

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        r"""Compute the features of a batch of pictures.

        Parameters
        ----------
        pixels
            (b, size, size, 3) uint8, b from 1 to `batch_size`.

        Returns
        -------
        dict
            Layer to (b, \*shape) float32.
        """
        count = len(pixels)
        assert 0 < count <= self.batch_size, "a batch holds 1 to batch_size pictures"
        if count < self.batch_size:
            padding = np.zeros((self.batch_size - count, *pixels.shape[1:]), np.uint8)
            pixels = np.concatenate([pixels, padding])
        outputs = self._model.predict_on_batch(pixels)
        return {layer: np.asarray(outputs[layer][:count], np.float32) for layer in self.layers}


def load_base(
    weights: WeightsFile,
    *,
    size: int,
    layers: Sequence[str],
    pool: str = "none",
    precision: str = "float32",
    batch_size: int = 32,
) -> Base:
    """Build the base, load its weights and cut it.

    Parameters
    ----------
    weights
        What `find_weights` found.
    size
        Input height and width, in pixels.
    layers
        Layers to cut at, all computed in one pass.
    pool
        ``none`` keeps the map; ``avg`` and ``max`` reduce it to one number a channel, on the
        device.
    precision
        ``float32``.
    batch_size
        Pictures in one batch.

    Raises
    ------
    LayerError
        When a layer is unknown or `size` is below 75.
    WeightsError
        When the file holds other weights than this network's.
    """
    network = build_network(size)
    network.check_layers(layers)
    arrays = _load(network, weights)
    layers = tuple(dict.fromkeys(layers))
    model = _cut(network, layers, pool)
    shapes = {name: tuple(model.output[name].shape[1:]) for name in layers}
    return Base(layers, arrays.digest(), "keras", precision, batch_size, shapes, model)


def _load(network: Network, weights: WeightsFile) -> Arrays:
    """Read the arrays, see that they fit the network, and give them to it."""
    convolutions, norms = network.of_kind("conv2d"), network.of_kind("batch_normalization")
    assert len(convolutions) == len(norms) == CONVOLUTIONS
    shapes = [tuple(layer.kernel.shape) for layer in convolutions]
    if weights.path is None:
        arrays = random_arrays(shapes, random_seed(weights.name))
    else:
        order = network.model_order("conv2d"), network.model_order("batch_normalization")
        arrays = read_arrays(weights.path, order)
        arrays.check_shapes(weights.path, shapes)
    for convolution, norm, kernel, values in zip(
        convolutions, norms, arrays.kernels, arrays.norms, strict=True
    ):
        convolution.set_weights([kernel])
        norm.set_weights(list(values))
    return arrays


def random_arrays(shapes: Sequence[tuple[int, ...]], seed: int) -> Arrays:
    """Draw weights under which activations keep their scale from the input to the last layer.

    Kernels are normal with variance 2 / fan-in (He), which keeps a rectified signal's power;
    batch normalisation is near the identity, each of its numbers a little off so that mixing
    them up shows.
    """
    draw = np.random.default_rng(seed)
    kernels, norms = [], []
    for shape in shapes:
        scale = math.sqrt(2 / math.prod(shape[:3]))
        kernels.append(draw.standard_normal(shape, np.float32) * np.float32(scale))
        norm = draw.standard_normal((3, shape[3]), np.float32) * np.float32(0.1)
        norm[2] = 1 + np.abs(norm[2])
        norms.append(norm)
    return Arrays(tuple(kernels), tuple(norms))


def _cut(network: Network, layers: Sequence[str], pool: str) -> Any:
    """Make a Keras model from uint8 pixels to a dictionary of (pooled) activations."""
    keras = import_keras()
    cut = keras.Model(network.model.input, {name: network.cuts[name].output for name in layers})
    pixels = keras.Input(network.model.input.shape[1:], dtype="uint8")
    outputs = cut(keras.ops.cast(pixels, "float32") / 127.5 - 1)
    return keras.Model(pixels, {name: _pooled(outputs[name], pool) for name in layers})


def _pooled(activations: Any, pool: str) -> Any:
    ops = import_keras().ops
    if pool == "none":
        return activations
    if pool == "avg":
        return ops.mean(activations, axis=(1, 2))
    if pool == "max":
        return ops.max(activations, axis=(1, 2))
    raise HeadstartError(f"--pool {pool}: expected none, avg or max.")
