"""Base and head as one network of standard Keras layers: uint8 pictures in, probabilities out."""

from __future__ import annotations

import re
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers, ops

from headstart.heads.portable import Kernels, Layers, Linear, Machines, Neighbours, pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.heads.card import Card
    from headstart.heads.portable import Portable

_NUMBERED = re.compile(
    r"(conv2d|batch_normalization|activation|(?:max|average)_pooling2d|concatenate)(?:_(\d+))?"
)


def joined(base: Any, card: Card, classifier: Portable) -> Any:
    """Return base and head as one network.

    Parameters
    ----------
    base : keras.Model
        What `headstart.extract.base.keras_base` returns; its layers are shared, and frozen.
    card : Card
        Of the model: where the base is cut, and how it is pooled there.
    classifier : Portable

    Returns
    -------
    keras.Model
        From ``pictures`` (batch, size, size, 3) uint8 to ``probabilities`` (batch, k) float32.
    """
    size = card.spec.size
    pictures = keras.Input((size, size, 3), dtype="uint8", name="pictures")
    scaled = layers.Rescaling(1 / 127.5, offset=-1, name="scaled")(pictures)
    frozen = keras.Model(base.input, _output(base, card.spec.layer), name="base")
    frozen.trainable = False
    pool = card.pool if card.spec.pool == "none" else card.spec.pool
    features = _POOLS[pool](name="features")(frozen(scaled))
    found = layers.Activation("linear", name="probabilities")(head(classifier, features))
    return keras.Model(pictures, found, name="headstart")


_POOLS = {
    "none": layers.Flatten,
    "avg": layers.GlobalAveragePooling2D,
    "max": layers.GlobalMaxPooling2D,
}


def _output(base: Any, name: str) -> Any:
    """Return the output of a layer by the name it has in a process that builds nothing else."""
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return base.get_layer(name).output
    numbers = {}
    for layer in base.layers:
        found = _NUMBERED.fullmatch(layer.name)
        if found is not None and found[1] == match[1]:
            numbers[int(found[2] or 0)] = layer
    return numbers[sorted(numbers)[int(match[2] or 0)]].output


@singledispatch
def head(classifier: Any, features: Any) -> Any:
    """Return the probabilities ``(batch, k)`` of features ``(batch, d)``."""
    del features
    raise TypeError(classifier)


@head.register
def _(classifier: Linear, features: Any) -> Any:
    return layers.Softmax()(_dense(features, classifier.weights, classifier.bias))


@head.register
def _(classifier: Layers, features: Any) -> Any:
    inner = _dense(features, classifier.inner, classifier.inner_bias, activation="relu")
    return layers.Softmax()(_dense(inner, classifier.outer, classifier.outer_bias))


@head.register
def _(classifier: Machines, features: Any) -> Any:
    machines = _dense(features, classifier.weights, classifier.bias)
    return _calibrated(machines, classifier)


@head.register
def _(classifier: Kernels, features: Any) -> Any:
    """Take |x - v|² as |x|² - 2 x·v + |v|², which rounding may bring below 0."""
    vectors = classifier.vectors.astype(np.float32)
    own = ops.sum(ops.square(features), axis=-1, keepdims=True)
    theirs = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    distance = layers.ReLU()(ops.add(_dense(features, -2 * vectors, theirs), own))
    kernel = layers.Activation("exponential")(
        layers.Rescaling(-float(classifier.width[0]))(distance)
    )
    return _calibrated(_dense(kernel, classifier.dual, classifier.bias), classifier)


@head.register
def _(classifier: Neighbours, features: Any) -> Any:
    rows = classifier.rows.astype(np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    length = np.where(length > 0, length, 1)
    near = ops.top_k(_dense(features, rows / length[:, None]), int(classifier.count[0]))[1]
    n, k = classifier.votes.shape
    ballot = layers.Embedding(n, k)
    votes = ops.sum(ballot(near), axis=1)
    ballot.set_weights([classifier.votes])
    more = layers.Rescaling(1.0, offset=float(classifier.votes.max()) / k)(votes)
    return ops.divide(more, ops.sum(more, axis=-1, keepdims=True))


def _dense(x: Any, weights: NDArray[Any], bias: NDArray[Any] | None = None, **options: Any) -> Any:
    """Return ``x @ weights.T + bias``."""
    layer = layers.Dense(len(weights), use_bias=bias is not None, **options)
    found = layer(x)
    arrays = [weights.T] if bias is None else [weights.T, bias]
    layer.set_weights([np.asarray(array, np.float32) for array in arrays])
    return found


def _calibrated(machines: Any, classifier: Machines | Kernels) -> Any:
    """Return the probabilities of the values of pairwise machines; see `portable`."""
    slope, offset = classifier.slope, classifier.offset
    k = len(slope)
    if k == 2:
        factor, shift = (slope[1], offset[1]) if slope.any() else (1.0, 0.0)
        logits = _dense(machines, np.array([[0.0], [-factor]]), np.array([0.0, shift]))
        return layers.Softmax()(logits)
    values = _against_rest(machines, k)
    if not slope.any():
        return layers.Softmax()(values)
    return layers.Softmax()(_log_sigmoid(_dense(values, np.diag(slope), offset)))


def _log_sigmoid(x: Any) -> Any:
    """Return log(1 / (1 + exp(-x))) in steps that every format has, and that 8 bits can hold.

    A softmax of it is each class's share of the sum of the sigmoids.
    """
    return ops.subtract(
        ops.minimum(x, 0.0), ops.log(ops.add(ops.exp(ops.negative(ops.absolute(x))), 1.0))
    )


def _against_rest(machines: Any, k: int) -> Any:
    """Return a value for each class: its votes, and its confidence between them."""
    sides = np.zeros((k, k * (k - 1) // 2))
    for number, (i, j) in enumerate(pairs(k)):
        sides[i, number], sides[j, number] = 1, -1
    for_first = ops.cast(ops.greater(machines, 0.0), "float32")
    votes = _dense(for_first, sides, (sides < 0).sum(1))
    confidence = _softsign(_dense(machines, sides))
    return layers.Add()([votes, layers.Rescaling(1 / 3)(confidence)])


def _softsign(x: Any) -> Any:
    """Return x / (1 + |x|), without a division: the TFLite interpreter has none in 8 bits."""
    return ops.multiply(x, ops.exp(ops.negative(ops.log(ops.add(ops.absolute(x), 1.0)))))
