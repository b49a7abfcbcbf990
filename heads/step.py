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
    inner : Weight of shape (c u, d)
        First layers, a row for each unit; biases are the weights of a feature that is always 1.
        Laid out like this, each product finds its larger side as it needs it.
    rounded : tensor of shape (c u, d)
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
    limit : array of shape (1 or c, u, 1), uint16
        Largest draw by which a unit is kept.
    scale : array of shape (1 or c, u, 1), float32
        What makes up for the draws by which it is not; 0 where there is no unit.
    rate : array of shape (c,), float32
        Adam's learning rate; 0 where there is no network.
    """

    limit: NDArray[np.uint16]
    scale: NDArray[np.float32]
    rate: NDArray[np.float32]

    @classmethod
    def of(cls, keep: NDArray[np.float32], rate: NDArray[np.float32]) -> Places:
        """Return places from the share of draws ``(1 or c, u)`` by which each unit is kept."""
        share = keep[:, :, None]
        limit = np.maximum(np.ceil(share * 2**16) - 1, 0).astype(np.uint16)
        scale = np.where(share > 0, 1 / np.maximum(share, 1e-6), 0)
        return cls(limit, scale.astype(np.float32), rate)


class Batch(NamedTuple):
    """Rows of a step.

    Attributes
    ----------
    numbers, codes, weight : array of shape (b,)
        Row numbers, classes, and shares of the loss.
    drawn : array of shape (u, b), uint16
        By which units drop out, in all networks alike.
    """

    numbers: Any
    codes: Any
    weight: Any
    drawn: Any


class _Taken(NamedTuple):
    """What a step takes: rows of a batch, ``(1 or c, u, b)`` units that are kept, and places."""

    numbers: Any
    codes: Any
    weight: Any
    kept: Any
    scale: Any
    rate: Any


def start(inner: Any, outer: Any, dtype: str) -> State:
    """Return networks with these first weights ``(c u, d)`` and ``(c, u, k)``, no steps taken."""
    last = np.zeros((outer.shape[0], outer.shape[2]), np.float32)
    return resume(_unmoved(inner), _unmoved(outer), _unmoved(last), 0, dtype)


def _unmoved(value: Any) -> Weight:
    return Weight(value, ops.zeros_like(value), ops.zeros_like(value))


def resume(inner: Weight, outer: Weight, last: Weight, steps: float, dtype: str) -> State:
    """Return networks of these weights, in the shapes of a State, after so many steps."""
    rounded = _held(ops.cast(inner.value, dtype))
    first, second, bias = (
        Weight(*(_held(ops.convert_to_tensor(part)) for part in weight))
        for weight in (inner, outer, last)
    )
    return State(first, rounded, second, bias, _held(ops.convert_to_tensor(steps, "float32")))


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


def _step(state: State, X: Any, taken: _Taken) -> tuple[State, None]:
    taken = _Taken(*map(ops.convert_to_tensor, taken))
    x = ops.take(X, taken.numbers, axis=0)
    steps = state.steps + 1
    before = ops.matmul(state.rounded, ops.transpose(x))
    outer, last, slope = _between(state, before, steps, taken)
    firsts = state.inner, state.rounded
    (inner, rounded), _ = _move(firsts, ops.matmul(slope, x), steps, taken.rate)
    return State(inner, rounded, outer, last, steps), None


def _between(state: State, before: Any, steps: Any, taken: _Taken) -> tuple[Weight, Weight, Any]:
    """Return the second layers moved, and the gradient in what comes before the hidden units."""
    outer, last = state.outer, state.last
    (count, units, k), dtype = outer.value.shape, before.dtype
    before = ops.reshape(before, (count, units, -1))
    zero = ops.zeros((), dtype)
    passed = ops.logical_and(before > 0, taken.kept)
    kept, weights = ops.where(passed, before, zero), ops.cast(outer.value * taken.scale, dtype)
    logits = ops.matmul(ops.transpose(weights, (0, 2, 1)), kept)
    logits = ops.cast(logits, "float32") + last.value[:, :, None]
    if k == 1:
        error = ops.sigmoid(logits) - ops.cast(taken.codes, "float32")
    else:
        error = ops.softmax(logits, axis=1) - ops.one_hot(taken.codes, k, axis=0)
    error = error * taken.weight
    back = ops.cast(error, dtype)
    by_outer = ops.matmul(kept, ops.transpose(back, (0, 2, 1)))
    by_outer = ops.cast(by_outer, "float32") * taken.scale
    slope = ops.where(passed, ops.matmul(weights, back), zero)
    slope = ops.reshape(slope, (count * units, -1))
    rate = taken.rate[:, None]
    moved_outer = _adam(outer, by_outer, steps, rate[:, None])
    return moved_outer, _adam(last, ops.sum(error, axis=2), steps, rate), slope


def _move_inner(
    firsts: tuple[Weight, Any], gradient: Any, steps: Any, rate: Any
) -> tuple[tuple[Weight, Any], None]:
    """Return the first layers moved, and rounded to the gradient's dtype."""
    inner, _ = firsts
    wide = ops.cast(gradient, "float32")
    each = ops.repeat(rate, inner.value.shape[0] // rate.shape[0])[:, None]
    moved = _adam(inner, wide, steps, each)
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
    hidden = ops.relu(ops.matmul(state.inner.value, ops.transpose(X)))
    hidden = ops.reshape(hidden, (count, units, -1))
    scores = ops.matmul(ops.transpose(state.outer.value, (0, 2, 1)), hidden)
    return state, ops.transpose(scores + state.last.value[:, :, None], (2, 0, 1))


# XLA moves the weights in half the time that TensorFlow takes; all else is faster by TensorFlow on
# processors, or would take longer to compile than it ever saves.
_move = _compiled(_move_inner, xla=True)
_take_step = _compiled(_step, xla=bool(gpus()))
_judge = _compiled(_logits_of, xla=bool(gpus()))


def step(state: State, X: Any, batch: Batch, places: Places) -> State:
    """Return the networks after a step on some rows of X ``(n, d)``, which has products' dtype."""
    kept = batch.drawn <= places.limit
    taken = _Taken(batch.numbers, batch.codes, batch.weight, kept, places.scale, places.rate)
    return _take_step(state, X, taken)[0]  # type: ignore[no-any-return]


def logits(state: State, X: Any) -> NDArray[np.float32]:
    """Return logits ``(m, c, k)`` of rows ``(m, d)`` float32, without dropout."""
    return np.asarray(ops.convert_to_numpy(_judge(state, X)[1]))
