"""One step of gradient descent for networks of one hidden layer, a few of them side by side.

The gradient is written out, so that what is large, the first layers, is passed over as few times
as can be: by two products, in bfloat16 where the device has it, and by Adam (Kingma & Ba, 2015),
which reads the gradient as it comes and rounds the moved weights for the next product. Each network
keeps its weights to itself, so that any few of them can take the next step together. Written
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
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # as Keras has them


class Weight(NamedTuple):
    """A weight, and the running means of its gradient and of the gradient's square."""

    value: Any
    mean: Any
    square: Any


class State(NamedTuple):
    """A network in training, of d features, u units and k outputs.

    Attributes
    ----------
    inner : Weight of shape (u, d)
        First layer, a row for each unit; biases are the weights of a feature that is always 1.
        Laid out like this, each product finds its larger side as it needs it.
    rounded : tensor of shape (u, d)
        The same in the dtype of products.
    outer, last : Weight of shapes (u, k) and (k,)
        Second layer and its biases.
    steps : tensor, float32
        Steps taken.
    """

    inner: Weight
    rounded: Any
    outer: Weight
    last: Weight
    steps: Any


class Places(NamedTuple):
    """What tells one of c networks side by side from another.

    Attributes
    ----------
    limit : array of shape (1 or c, 1, 1), uint16
        Largest draw by which a unit is kept.
    scale : array of shape (1 or c, 1, 1), float32
        What makes up for the draws by which it is not.
    rate : array of shape (c,), float32
        Adam's learning rate.
    """

    limit: NDArray[np.uint16]
    scale: NDArray[np.float32]
    rate: NDArray[np.float32]

    @classmethod
    def of(cls, keep: Sequence[float], rate: Sequence[float]) -> Places:
        """Return places from each network's share of draws by which a unit is kept, and rate."""
        share = np.array(keep if len(set(keep)) > 1 else keep[:1])[:, None, None]
        limit = (np.ceil(share * 2**16) - 1).astype(np.uint16)
        return cls(limit, (1 / share).astype(np.float32), np.array(rate, np.float32))


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
    """Return a network of these first weights ``(u, d)`` and ``(u, k)``, no steps taken."""
    last = np.zeros(outer.shape[1], np.float32)
    first, second, bias = (_unmoved(ops.convert_to_tensor(w)) for w in (inner, outer, last))
    rounded = _held(ops.cast(first.value, dtype))
    return State(first, rounded, second, bias, _held(ops.zeros((), "float32")))


def _unmoved(value: Any) -> Weight:
    zeros = ops.zeros_like(value)
    return Weight(*map(_held, (value, zeros, zeros)))


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


def _step(states: tuple[State, ...], X: Any, taken: _Taken) -> tuple[tuple[State, ...], None]:
    taken = _Taken(*map(ops.convert_to_tensor, taken))
    x = ops.take(X, taken.numbers, axis=0)
    across, steps = ops.transpose(x), states[0].steps + 1
    before = ops.stack([ops.matmul(s.rounded, across) for s in states])
    outers, lasts = _beside(s.outer for s in states), _beside(s.last for s in states)
    outers, lasts, slope = _between(outers, lasts, before, steps, taken)
    moved = []
    layers = zip(states, _apart(outers), _apart(lasts), strict=True)
    for c, (state, outer, last) in enumerate(layers):
        firsts, gradient = (state.inner, state.rounded), ops.matmul(slope[c], x)
        (inner, rounded), _ = _move(firsts, gradient, steps, taken.rate[c])
        moved.append(State(inner, rounded, outer, last, steps))
    return tuple(moved), None


def _beside(weights: Iterable[Weight]) -> Weight:
    return Weight(*map(ops.stack, zip(*weights, strict=True)))


def _apart(weights: Weight) -> list[Weight]:
    return [Weight(*parts) for parts in zip(*map(ops.unstack, weights), strict=True)]


def _between(
    outer: Weight, last: Weight, before: Any, steps: Any, taken: _Taken
) -> tuple[Weight, Weight, Any]:
    """Return the second layers moved, and the gradient in what comes before the hidden units."""
    k, dtype = outer.value.shape[2], before.dtype
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
    rate = taken.rate[:, None]
    moved_outer = _adam(outer, by_outer, steps, rate[:, None])
    return moved_outer, _adam(last, ops.sum(error, axis=2), steps, rate), slope


def _move_inner(
    firsts: tuple[Weight, Any], gradient: Any, steps: Any, rate: Any
) -> tuple[tuple[Weight, Any], None]:
    """Return a first layer moved, and rounded to the gradient's dtype."""
    moved = _adam(firsts[0], ops.cast(gradient, "float32"), steps, rate)
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
    hidden = ops.relu(ops.matmul(state.inner.value, ops.transpose(X)))
    scores = ops.matmul(ops.transpose(state.outer.value), hidden)
    return state, ops.transpose(scores + state.last.value[:, None])


# XLA moves the weights in half the time that TensorFlow takes; all else is faster by TensorFlow on
# processors, or would take longer to compile than it ever saves.
_move = _compiled(_move_inner, xla=True)
_take_step = _compiled(_step, xla=bool(gpus()))
_judge = _compiled(_logits_of, xla=bool(gpus()))


def step(states: tuple[State, ...], X: Any, batch: Batch, places: Places) -> tuple[State, ...]:
    """Return networks of equal size after a step on some rows of X ``(n, d)`` in their dtype.

    They have taken as many steps as each other.
    """
    kept = batch.drawn <= places.limit
    taken = _Taken(batch.numbers, batch.codes, batch.weight, kept, places.scale, places.rate)
    return _take_step(states, X, taken)[0]  # type: ignore[no-any-return]


def logits(state: State, X: Any) -> NDArray[np.float32]:
    """Return a network's logits ``(m, k)`` of rows ``(m, d)`` float32, without dropout."""
    return np.asarray(ops.convert_to_numpy(_judge(state, X)[1]))
