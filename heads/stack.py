"""Many networks of one hidden layer, trained a few side by side.

The first layers of a few stand side by side in one matrix, so that one product serves them. The
rows stay on the device, where a batch is a few row numbers. This module imports Keras: import it
inside the function that trains.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from headstart._hardware import native_bfloat16
from headstart.extract._keras_engine import gpus
from headstart.heads import step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Single = NDArray[np.float32]
    Int = NDArray[np.int64]
    Weights = tuple[Single, ...]
    Batch = tuple[NDArray[Any], Int, NDArray[Any]]

#: Networks that are trained side by side. Steps of sixteen took as long as four steps of four, and
#: all went on until the last was finished.
_TOGETHER = 4
#: Rows, features and rows of a batch are filled up to multiples of these: most folds of a
#: comparison, which differ by a row or two, share a step that was compiled for one of them.
_ROWS, _FEATURES, _BATCH = 64, 32, 4


@dataclass(frozen=True)
class Network:
    """Settings of one network."""

    units: int
    dropout: float
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Schedule:
    """How all of them are trained."""

    batch_size: int
    epochs: int
    patience: int


@dataclass(frozen=True)
class Trained:
    """One trained network.

    Attributes
    ----------
    weights : tuple of ndarray
        Of shapes ``(d, units)``, ``(units,)``, ``(units, k)`` and ``(k,)``; of networks trained
        side by side only the one with the lowest loss has them.
    loss : float
        Log loss on the held-out rows, at the best epoch.
    epoch : int
        The best epoch, from 1.
    """

    weights: Weights
    loss: float
    epoch: int


@dataclass(frozen=True)
class Examples:
    """Rows ``(n, d)``, class numbers ``(n,)`` and weights ``(n,)``; which to train and hold out."""

    X: Single
    codes: Int
    weight: Single
    chosen: Int
    held: Int


def train(
    rows: Examples,
    networks: Sequence[Network],
    schedule: Schedule,
    progress: Callable[[float], None] | None = None,
) -> list[Trained]:
    """Train networks on the same rows, each until its loss on held-out rows stops falling.

    Two classes share one sigmoid, more have a softmax. `progress` is told the share of epochs that
    are done.
    """
    outputs = 1 if rows.codes.max() == 1 else int(rows.codes.max()) + 1
    X = _with_ones(rows.X)
    on_device = ops.cast(X, _dtype())
    done: list[Trained] = []
    groups = _groups(networks)
    for group in groups:
        stack = Stack(group, len(groups[0]), rows.X.shape[1], X.shape[1], outputs)
        least = min((r.loss for r in done), default=np.inf)
        watch = _Watch(stack, rows, X, schedule.patience, least)
        # All groups take the same batches; groups of equal units drop them out by the same draw.
        batches = _batches(rows, schedule.batch_size, stack.units, networks[0].seed)
        for epoch in range(1, schedule.epochs + 1):
            for batch in next(batches):
                stack.state = step.step(stack.state, on_device, batch, stack.places)
            over = watch.look(epoch)
            if progress:
                share = len(done) + len(group) * epoch / schedule.epochs
                progress(share / len(networks))
            if over:
                break
        done += watch.best
    return done


def _dtype() -> str:
    """Return the dtype of large products: a step may be rounded, as it is one of many anyway."""
    return "bfloat16" if native_bfloat16() else "float32"


def _filled(count: int, multiple: int) -> int:
    """Return a number filled up to a multiple.

    Examples
    --------
    >>> _filled(64, 64), _filled(65, 64)
    (64, 128)
    """
    return -(-count // multiple) * multiple


def _with_ones(X: Single) -> Single:
    """Return rows with a feature that is 1, whose weights are the biases; zeros fill both sizes."""
    n, d = X.shape
    result = np.zeros((_filled(n, _ROWS), _filled(d + 1, _FEATURES)), np.float32)
    result[:n, :d], result[:n, d] = X, 1
    return result


def _batches(rows: Examples, size: int, units: int, seed: int) -> Iterator[Iterator[step.Batch]]:
    """Yield for each epoch its batches, `size` rows or so each.

    Batches are of one size, as a step is compiled once; rows that fill them up do not count.
    """
    steps = max(1, round(len(rows.chosen) / size))
    each = _filled(-(-len(rows.chosen) // steps), _BATCH)
    real = np.arange(steps * each) < len(rows.chosen)
    filled = np.resize(rows.chosen, steps * each)
    share = np.where(real, rows.weight[filled] / each, 0).astype(np.float32)
    order, noise = np.random.default_rng(seed), np.random.default_rng((seed, 1))

    def batch(place: Int) -> step.Batch:
        numbers = filled[place]
        drawn = noise.integers(0, 1 << 16, (units, each), np.uint16)
        return step.Batch(numbers, rows.codes[numbers].astype(np.int32), share[place], drawn)

    while True:
        yield map(batch, order.permutation(steps * each).reshape(steps, each))


def _groups(networks: Sequence[Network]) -> list[Sequence[Network]]:
    """Return as few groups as can be of networks to train side by side, of nearly equal size."""
    size = -(-len(networks) // -(-len(networks) // _TOGETHER))
    return [networks[first : first + size] for first in range(0, len(networks), size)]


class Stack:
    """Networks in training side by side.

    Attributes
    ----------
    units : int
        Of each place; a network of fewer leaves some unused.
    state : step.State
    places : step.Places
    """

    def __init__(
        self, networks: Sequence[Network], count: int, features: int, rows: int, outputs: int
    ) -> None:
        """Draw first weights of networks of so many features and outputs, for `count` places.

        `rows` is the number of weights of a unit, those that only fill up among them.
        """
        self.networks, self._features = tuple(networks), features
        self.units = max(network.units for network in networks)
        inner = np.zeros((count, self.units, rows), np.float32)
        outer = np.zeros((count, self.units, outputs), np.float32)
        for h, network in enumerate(networks):
            mine = inner[h, : network.units, :features], outer[h, : network.units]
            _draw_first_weights(*mine, network.seed)
        self.state = step.start(inner.reshape(-1, rows), outer, _dtype())
        rate = np.zeros(count, np.float32)
        rate[: len(networks)] = [network.learning_rate for network in networks]
        keep = _keep(networks, self.units)
        keep = np.resize(keep, (1 if (keep == keep[0]).all() else count, self.units))
        self.places = step.Places.of(keep, rate)

    def separate(self, h: int) -> Weights:
        """Return the weights of one network."""
        units, d = self.networks[h].units, self._features
        mine = slice(h * self.units, h * self.units + units)
        inner, outer, last = self.state.inner.value, self.state.outer.value, self.state.last.value
        first = ops.convert_to_numpy(inner[mine])
        rest = (ops.convert_to_numpy(part) for part in (outer[h, :units], last[h]))
        return (first[:, :d].T, first[:, d], *rest)


def _draw_first_weights(inner: Single, outer: Single, seed: int) -> None:
    """Fill both layers of a network with Glorot's uniform start."""
    rng = np.random.default_rng(seed)
    for layer in (inner, outer):
        limit = np.float32(np.sqrt(6 / sum(layer.shape)))
        np.multiply(rng.random(layer.shape, np.float32), 2 * limit, out=layer)
        np.subtract(layer, limit, out=layer)


def _keep(networks: Sequence[Network], units: int) -> Single:
    """Return the share of its draws in which a unit is kept ``(networks, units)``; 0: no unit."""
    real = np.arange(units) < np.array([[network.units] for network in networks])
    keep = np.array([[1 - network.dropout] for network in networks])
    return np.where(real, keep, 0).astype(np.float32)


def _by_xla() -> bool:
    """Return whether to compile by XLA; TensorFlow's on CPU cores took three times as long."""
    return keras.backend.backend() == "jax" or bool(gpus())


def _softmax_loss(codes: Any, logits: Any) -> Any:
    """Return the cross-entropy of each row, summed over networks ``(b,)``."""
    target = ops.one_hot(codes[:, 0], logits.shape[-1])
    return ops.sum(ops.logsumexp(logits, axis=-1) - ops.sum(target * logits, axis=-1), axis=-1)


def _sigmoid_loss(codes: Any, logits: Any) -> Any:
    # Codes have as many axes as logits, (b, 1, 1): Keras would squeeze a last axis of 1 otherwise.
    return ops.sum(ops.softplus(logits) - ops.cast(codes, logits.dtype) * logits, axis=(1, 2))


def train_on_batches(
    shape: tuple[int, int],
    network: Network,
    schedule: Schedule,
    batches: Callable[[], Iterable[Batch]],
    held: Callable[[], Iterable[Batch]],
) -> Trained:
    """Train one network on batches ``(X, codes, weight)`` that are made anew for each epoch.

    Parameters
    ----------
    shape
        Numbers of features and of classes.
    network, schedule
        Settings; batches come in the size they are made.
    batches, held
        Return the training batches, shuffled, and the held-out ones.
    """
    outputs = 1 if shape[1] == 2 else shape[1]
    with _seeded(network.seed):
        model = _plain(shape[0], network, outputs)
        model.compile(
            optimizer=keras.optimizers.Adam(network.learning_rate),
            loss=_sigmoid_loss if outputs == 1 else _softmax_loss,
            jit_compile=_by_xla(),
        )
        best = Trained(tuple(model.get_weights()), np.inf, 0)
        for epoch in range(1, schedule.epochs + 1):
            for X, codes, weight in batches():
                model.train_on_batch(X, codes[:, None, None].astype(np.int32), sample_weight=weight)
            loss = _held_loss(model, held())
            if loss < best.loss:
                best = Trained(tuple(model.get_weights()), loss, epoch)
            if epoch - best.epoch >= schedule.patience:
                break
    return best


def _plain(features: int, network: Network, outputs: int) -> Any:
    """Return one network by itself."""
    return keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dense(network.units, activation="relu"),
            keras.layers.Dropout(network.dropout),
            keras.layers.Dense(outputs),
            keras.layers.Reshape((1, outputs)),
        ]
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw what follows from a seed, and leave the user's own random numbers as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's
    try:
        keras.utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _held_loss(model: Any, held: Iterable[Batch]) -> float:
    """Return the weighted log loss on held-out batches."""
    loss, total = 0.0, 0.0
    for X, codes, weight in held:
        logits = ops.convert_to_numpy(model(X))
        loss += float(_losses(logits, codes, weight)[0] * weight.sum())
        total += float(weight.sum())
    return loss / total


class _Watch:
    """Knows each network's lowest loss on held-out rows, and the weights of the best of them.

    A network that has not become better for `patience` epochs is finished, as it would be alone,
    whatever it does while others go on. `least` is the lowest loss of networks trained before.
    """

    def __init__(
        self, stack: Stack, rows: Examples, X: Single, patience: int, least: float
    ) -> None:
        self._stack, self._patience, self._least = stack, patience, least
        self._codes, self._weight = rows.codes[rows.held], rows.weight[rows.held]
        filled = np.resize(rows.held, _filled(len(rows.held), _ROWS))
        self._X = ops.convert_to_tensor(X[filled])
        self.best = [Trained((), np.inf, 0)] * len(stack.networks)

    def look(self, epoch: int) -> bool:
        """Measure every network that is not finished; return whether all are."""
        logits = step.logits(self._stack.state, self._X)[: len(self._codes)]
        loss = _losses(logits, self._codes, self._weight)
        going = [epoch - 1 - trained.epoch < self._patience for trained in self.best]
        better = [h for h, on in enumerate(going) if on and loss[h] < self.best[h].loss]
        for h in better:
            self.best[h] = Trained((), float(loss[h]), epoch)
        leader = min(better, key=loss.__getitem__, default=None)
        if leader is not None and loss[leader] < self._least:  # others' weights nobody asks for
            self._least = loss[leader]
            self.best[leader] = replace(self.best[leader], weights=self._stack.separate(leader))
        return all(epoch - trained.epoch >= self._patience for trained in self.best)


def _losses(logits: Single, codes: Int, weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weighted log loss of each network ``(networks,)``."""
    scores = logits.astype(np.float64)
    if scores.shape[2] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=2)
    mine = np.take_along_axis(scores, codes[:, None, None], 2)[..., 0]
    loss = np.logaddexp.reduce(scores, axis=2) - mine
    return np.average(loss, axis=0, weights=weight)
