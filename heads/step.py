"""One step of gradient descent for networks of one hidden layer that stand side by side.

The gradient is written out, so that what is large, the first layers, is passed over as few times
as can be: by two products, in bfloat16 where the device has it, and by Adam (Kingma & Ba, 2015),
which reads the gradient as it comes and rounds the moved weights for the next product. Written
against Keras 3 alone, for each of its backends. This module imports Keras: import it inside
functions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import ops

from headstart.extract._keras_engine import gpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # as Keras has them


class Weight(NamedTuple):
    """A weight, and the running means of its gradient and of the gradient's square."""

    value: Any
    mean: Any
    square: Any


class State(NamedTuple):
    """Networks in training, c of them, of d features, u units and k outputs each.

    Attributes
    ----------
    inner : Weight of shape (d, c u)
        First layers side by side; biases are the weights of a feature that is always 1.
    rounded : tensor of shape (d, c u)
        The same in the dtype of products.
    outer, last : Weight of shapes (c, u, k) and (c, k)
        Second layers and their biases.
    steps : tensor, float32
        Steps taken.
    """

    inner: Weight
    rounded: Any
    outer: Weight
    last: Weight
    steps: Any


class Places(NamedTuple):
    """What tells one place for a network from another.

    Attributes
    ----------
    keep : tensor of shape (1 or c, u)
        Share of the draws in which a unit is kept; 0 where there is no unit.
    rate : tensor of shape (c,)
        Adam's learning rate; 0 where there is no network.
    """

    keep: Any
    rate: Any


class Batch(NamedTuple):
    """Rows of a step.

    Attributes
    ----------
    numbers, codes, weight : array of shape (b,)
        Row numbers, classes, and shares of the loss.
    drawn : array of shape (b, u), uint16
        By which units drop out, in all networks alike.
    """

    numbers: Any
    codes: Any
    weight: Any
    drawn: Any


def start(inner: Any, outer: Any, dtype: str) -> State:
    """Return networks with these first weights ``(d, c u)`` and ``(c, u, k)``, no steps taken."""
    last = np.zeros((outer.shape[0], outer.shape[2]), np.float32)
    rounded = _held(ops.cast(inner, dtype))
    steps = _held(ops.zeros((), "float32"))
    return State(_unmoved(inner), rounded, _unmoved(outer), _unmoved(last), steps)


def _unmoved(weight: Any) -> Weight:
    value = ops.convert_to_tensor(weight)
    return Weight(_held(value), _held(ops.zeros_like(value)), _held(ops.zeros_like(value)))


def _held(tensor: Any) -> Any:
    """Return a tensor where TensorFlow can change it in place: others take what they return."""
    if keras.backend.backend() != "tensorflow":
        return tensor
    import tensorflow as tf

    return tf.Variable(tensor)


def _compiled(function: Callable[..., Any], *, xla: bool) -> Callable[..., Any]:
    """Compile ``function(state, *rest) -> (state, result)``; TensorFlow changes it in place."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(function)  # type: ignore[no-any-return]
    if backend != "tensorflow":
        return function
    import tensorflow as tf

    def change(state: Any, *rest: Any) -> Any:
        after, result = function(state, *rest)
        for old, new in zip(tf.nest.flatten(state), tf.nest.flatten(after), strict=True):
            if old is not new:
                old.assign(new)
        return result

    fast = tf.function(change, autograph=False, jit_compile=xla)
    return lambda state, *rest: (state, fast(state, *rest))


def _step(state: State, X: Any, batch: Batch, places: Places) -> tuple[State, None]:
    batch = Batch(*map(ops.convert_to_tensor, batch))
    x = ops.take(X, batch.numbers, axis=0)
    steps = state.steps + 1
    before = ops.matmul(x, state.rounded)
    outer, last, slope = _between(state, before, steps, batch, places)
    gradient = ops.matmul(ops.transpose(x), slope)
    (inner, rounded), _ = _move((state.inner, state.rounded), gradient, steps, places.rate)
    return State(inner, rounded, outer, last, steps), None


def _between(
    state: State, before: Any, steps: Any, batch: Batch, places: Places
) -> tuple[Weight, Weight, Any]:
    """Return the second layers moved, and the gradient in what comes before the hidden units."""
    outer, last = state.outer, state.last
    (count, units, k), dtype = outer.value.shape, before.dtype
    drawn = ops.cast(batch.drawn[:, None], "float32") / 2**16
    mask = ops.where(drawn < places.keep, 1 / ops.maximum(places.keep, 1e-6), 0.0)
    mask = ops.cast(mask, dtype)
    # One product with zeros between the networks is faster than a product for each of them.
    own = ops.eye(count, dtype="float32")[:, None, :, None]
    spread = ops.reshape(outer.value[:, :, None] * own, (count * units, count * k))
    spread = ops.cast(spread, dtype)
    hidden = ops.relu(before)
    kept = _masked(hidden, mask, units)
    logits = ops.reshape(ops.cast(ops.matmul(kept, spread), "float32"), (-1, count, k)) + last.value
    if k == 1:
        error = ops.sigmoid(logits) - ops.cast(batch.codes, "float32")[:, None, None]
    else:
        error = ops.softmax(logits) - ops.one_hot(batch.codes, k)[:, None]
    error = error * batch.weight[:, None, None]
    back = ops.cast(ops.reshape(error, (-1, count * k)), dtype)
    by_outer = ops.cast(ops.matmul(ops.transpose(kept), back), "float32")
    by_outer = ops.sum(ops.reshape(by_outer, (count, units, count, k)) * own, axis=2)
    slope = _masked(ops.matmul(back, ops.transpose(spread)), mask, units)
    slope = ops.where(hidden > 0, slope, ops.zeros((), dtype))
    rate = places.rate[:, None]
    moved_outer = _adam(outer, by_outer, steps, rate[:, None])
    return moved_outer, _adam(last, ops.sum(error, axis=0), steps, rate), slope


def _masked(hidden: Any, mask: Any, units: int) -> Any:
    """Return hidden units ``(b, c u)`` times what is kept of them ``(b, 1 or c, u)``."""
    product = ops.reshape(hidden, (-1, hidden.shape[1] // units, units)) * mask
    return ops.reshape(product, (-1, hidden.shape[1]))


def _move_inner(
    firsts: tuple[Weight, Any], gradient: Any, steps: Any, rate: Any
) -> tuple[tuple[Weight, Any], None]:
    """Return the first layers moved, and rounded to the gradient's dtype."""
    inner, _ = firsts
    wide = ops.cast(gradient, "float32")
    columns = ops.repeat(rate, inner.value.shape[1] // rate.shape[0])
    moved = _adam(inner, wide, steps, columns)
    return (moved, ops.cast(moved.value, gradient.dtype)), None


def _adam(weight: Weight, gradient: Any, steps: Any, rate: Any) -> Weight:
    mean = weight.mean + (gradient - weight.mean) * (1 - _BETA_1)
    square = weight.square + (gradient * gradient - weight.square) * (1 - _BETA_2)
    size = rate * ops.sqrt(_risen(_BETA_2, steps)) / _risen(_BETA_1, steps)
    return Weight(weight.value - size * mean / (ops.sqrt(square) + _EPSILON), mean, square)


def _risen(beta: float, steps: Any) -> Any:
    """Return ``1 - beta ** steps``: how far a running mean that began at zero has come."""
    return -ops.expm1(steps * math.log(beta))


def _logits_of(state: State, X: Any) -> tuple[State, Any]:
    count, units, _ = state.outer.value.shape
    hidden = ops.relu(ops.matmul(X, state.inner.value))
    hidden = ops.reshape(hidden, (-1, count, units))
    return state, ops.einsum("bcu,cuk->bck", hidden, state.outer.value) + state.last.value


# XLA moves the weights in half the time that TensorFlow takes; all else is faster by TensorFlow on
# processors, or would take longer to compile than it ever saves.
_move = _compiled(_move_inner, xla=True)
_take_step = _compiled(_step, xla=bool(gpus()))
_judge = _compiled(_logits_of, xla=bool(gpus()))


def step(state: State, X: Any, batch: Batch, places: Places) -> State:
    """Return the networks after a step on some rows of X ``(n, d)``, which has products' dtype."""
    return _take_step(state, X, batch, places)[0]  # type: ignore[no-any-return]


def logits(state: State, X: Any) -> NDArray[np.float32]:
    """Return logits ``(m, c, k)`` of rows ``(m, d)`` float32, without dropout."""
    return np.asarray(ops.convert_to_numpy(_judge(state, X)[1]))
