"""Convolutions over small maps as products of matrices.

A CPU's convolutions are made for maps much larger than their kernels. Where a kernel is one pixel,
or reaches over the whole map, plain products of the same weights are faster, and need none where a
kernel meets padding alone. This module imports Keras: import it inside functions.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

#: Maps up to this size, in both directions, have larger kernels as products, too. Training a 3x3
#: kernel took on 3x3 maps 0.4 of a convolution's time, on 5x5 0.7, on 7x7 as much, on 8x8 more.
_SMALL = 5


def with_products(model: Any) -> Any:
    """Return the same network, its layers and weights shared, with products where they are faster.

    Parameters
    ----------
    model : keras.Model
        Made of layers as by ``keras.Model(inputs, outputs)``.
    """
    return keras.models.clone_model(
        model, clone_function=lambda layer: Products(layer) if _is_small(layer) else layer
    )


class Products(layers.Layer):  # type: ignore[misc]
    """What a convolution does, with its weights, by products of matrices.

    Parameters
    ----------
    convolution : keras.layers.Conv2D
        One that only multiplies and adds: of stride 1, without bias and activation.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__(name=convolution.name)
        self.convolution = convolution

    def call(self, maps: Any) -> Any:
        """Return the convolution of maps ``(b, h, w, channels)``."""
        return convolved(maps, self.convolution.kernel)


def convolved(maps: Any, kernel: Any) -> Any:
    """Return a convolution of stride 1 in the size of the maps, each of its taps as one product.

    Parameters
    ----------
    maps : tensor of shape (b, h, w, channels)
    kernel : tensor of shape (kh, kw, channels, filters)
        Both sides odd.
    """
    height, width = maps.shape[1:3]
    high, wide, channels, filters = kernel.shape
    # Unstacked, not sliced: the gradient of slices is as many kernels of zeros, added.
    taps = ops.unstack(ops.reshape(kernel, (high * wide, channels, filters)), axis=0)
    found = []
    for number, tap in enumerate(taps):
        down, right = number // wide - high // 2, number % wide - wide // 2
        if abs(down) >= height or abs(right) >= width:
            continue  # meets padding alone
        size = (height - abs(down), width - abs(right))
        start = (0, max(down, 0), max(right, 0), 0)
        # Not maps[...]: TensorFlow's gradient of that took a quarter of a step.
        met = ops.slice(maps, start, (ops.shape(maps)[0], *size, channels))
        rows = ops.matmul(ops.reshape(met, (-1, channels)), tap)
        part = ops.reshape(rows, (-1, *size, filters))
        found.append(ops.pad(part, ((0, 0), _room(down), _room(right), (0, 0))))
    return sum(found[1:], found[0])


def _room(shift: int) -> tuple[int, int]:
    """Return the padding before and after what a tap at this distance from the centre gives."""
    return max(-shift, 0), max(shift, 0)


def _is_small(layer: Any) -> bool:
    """Return whether a layer is a convolution that is faster as products."""
    if type(layer) is not layers.Conv2D or layer.data_format != "channels_last":
        return False
    plain = not layer.use_bias and layer.activation is keras.activations.linear
    dense = layer.strides == layer.dilation_rate == (1, 1) and layer.groups == 1
    if layer.kernel_size == (1, 1):
        return plain and dense
    odd = all(side % 2 for side in layer.kernel_size)
    small = max(layer.input.shape[1:3]) <= _SMALL
    return plain and dense and odd and small and layer.padding == "same"
