"""Many networks of one hidden layer, trained a few side by side by one Keras program.

The first layers of a few stand side by side in one matrix, so that one product serves them; a
program that has been traced for these trains the next few. The rows stay on the device, where a
batch is a few row numbers. Written against Keras 3 alone, for each of its backends. This module
imports Keras: import it inside the function that trains.
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
from headstart.heads.adam import FusedAdam

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Single = NDArray[np.float32]
    Int = NDArray[np.int64]
    Weights = tuple[Single, ...]
    Batch = tuple[NDArray[Any], Int, NDArray[Any]]

#: Networks that are trained side by side. With sixteen, a program took twice as long to trace, its
#: steps took as long as those of four times four, and all went on until the last was finished.
_TOGETHER = 4


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
    model: Stack | None = None
    done: list[Trained] = []
    groups = _groups(networks)
    for group in groups:
        form = _Form.of(group, len(groups[0]), rows.X.shape[1], outputs)
        if model is None or model.form != form:
            model = _program(rows.X, form)
        model.start(group, networks[0].seed)
        watch = _Watch(model, rows, schedule, min((r.loss for r in done), default=np.inf))
        # What a network learns does not depend on its group: all take the same batches.
        batches = _batches(rows, schedule.batch_size, networks[0].seed)
        for epoch in range(1, schedule.epochs + 1):
            for numbers, codes, weight in next(batches):
                model.train_on_batch(numbers, codes, sample_weight=weight)
            over = watch.look(epoch)
            if progress:
                share = len(done) + len(group) * epoch / schedule.epochs
                progress(share / len(networks))
            if over:
                break
        done += watch.best
    return done


def _batches(rows: Examples, size: int, seed: int) -> Iterator[Iterable[Batch]]:
    """Yield for each epoch its batches of row numbers, codes and weights, `size` rows or so each.

    Batches are of one size, as a program is compiled once; rows that fill the last do not count.
    """
    steps = max(1, round(len(rows.chosen) / size))
    every = -(-len(rows.chosen) // steps) * steps
    filled = np.resize(rows.chosen, every)
    counted = np.where(np.arange(every) < len(rows.chosen), rows.weight[filled], 0)
    rng = np.random.default_rng(seed)
    while True:
        place = rng.permutation(every).reshape(steps, -1)
        numbers = filled[place]
        codes = rows.codes[numbers].astype(np.int32)
        weight = counted[place].astype(np.float32)
        yield zip(numbers[..., None], codes[..., None, None], weight, strict=True)


def _groups(networks: Sequence[Network]) -> list[Sequence[Network]]:
    """Return as few groups as can be of networks to train side by side, of nearly equal size."""
    size = -(-len(networks) // -(-len(networks) // _TOGETHER))
    return [networks[first : first + size] for first in range(0, len(networks), size)]


@dataclass(frozen=True)
class _Form:
    """What a program is traced for.

    Attributes
    ----------
    count, features, units, outputs : int
        Places for networks; numbers of a row; units and outputs of a place.
    kinds : int
        1 where all places keep the same units by the same draw, else `count`.
    """

    count: int
    features: int
    units: int
    outputs: int
    kinds: int

    @classmethod
    def of(cls, networks: Sequence[Network], count: int, features: int, outputs: int) -> _Form:
        """Return what these networks need."""
        units = max(network.units for network in networks)
        keep = _keep(networks, units)
        kinds = 1 if (keep == keep[0]).all() else count
        return cls(count, features, units, outputs, kinds)


def _compiled() -> bool:
    """Return whether to compile by XLA; TensorFlow's on CPU cores took three times as long."""
    return keras.backend.backend() == "jax" or bool(gpus())


class Stack(keras.Model):  # type: ignore[misc]
    """The networks: row numbers ``(b, 1)`` in, logits ``(b, networks, k)`` out.

    Weights are kept divided by the learning rate of their network. Adam's steps do not depend on
    the scale of a gradient, so that with a rate of 1 each network moves at its own. All that tells
    one group of networks from another is in variables: `start` begins with others.
    """

    def __init__(self, X: Single, form: _Form) -> None:
        super().__init__()
        self.form = form
        self.networks: tuple[Network, ...] = ()
        ones = np.ones((len(X), 1), np.float32)  # times the last row of inner: the biases
        self.X = _variable(self, "X", np.hstack([X, ones]).shape, trainable=False)
        self.X.assign(np.hstack([X, ones]))
        self.products = "bfloat16" if native_bfloat16() else "float32"
        self.inner = _variable(self, "inner", (form.features + 1, form.count * form.units))
        self.outer = _variable(self, "outer", (form.count, form.units, form.outputs))
        self.last = _variable(self, "last", (form.count, form.outputs))
        self.rate = _variable(self, "rate", (form.count, 1), trainable=False)
        self.keep = _variable(self, "keep", (form.kinds, form.units), trainable=False)
        self.noise = keras.random.SeedGenerator(0)
        self.built = True

    def start(self, networks: Sequence[Network], seed: int) -> None:
        """Begin with these networks: their first weights, no steps taken, and noise of a seed."""
        form, self.networks = self.form, tuple(networks)
        inner = np.zeros(self.inner.shape, np.float32)
        outer = np.zeros(self.outer.shape, np.float32)
        for h, network in enumerate(networks):
            mine = slice(h * form.units, h * form.units + network.units)
            inner[:-1, mine], outer[h, : network.units] = _initial(
                form.features, network, form.outputs
            )
        for variable in self.optimizer.variables:
            if variable is not self.optimizer.learning_rate:
                variable.assign(np.zeros(variable.shape, variable.dtype))
        rate = np.array([[network.learning_rate] for network in networks], np.float32)
        fill = form.count - len(networks)  # places that no network is for learn nothing
        self.inner.assign(inner)
        self.outer.assign(outer)
        self.last.assign(np.zeros(self.last.shape, np.float32))
        self.rate.assign(np.pad(rate, ((0, fill), (0, 0))))
        self.keep.assign(np.resize(_keep(networks, form.units), self.keep.shape))
        self.noise.state.assign(np.array([seed, 0], self.noise.state.dtype))

    def call(self, rows: Any, *, training: bool = False) -> Any:
        """Return logits of the rows with these numbers."""
        count, units, k = self.outer.shape
        # Products of a training step may be rounded, as a step is anyway; what is judged is not.
        dtype = self.products if training else "float32"
        x = ops.cast(ops.take(self.X, rows[:, 0], axis=0), dtype)
        hidden = ops.relu(ops.matmul(x, ops.cast(self.inner, dtype)))
        if training:  # all networks drop out by the same draw
            drawn = keras.random.uniform((ops.shape(x)[0], 1, units), seed=self.noise)
            mask = ops.where(drawn < self.keep, 1 / ops.maximum(self.keep, 1e-6), 0.0)
            hidden = ops.reshape(hidden, (-1, count, units)) * ops.cast(mask, dtype)
        # Rates go to the small matrix. One product with zeros between the networks is faster than
        # a product for each of them.
        outer = self.outer * self.rate[:, None] ** 2
        own = np.eye(count, dtype=np.float32)[:, None, :, None]
        outer = ops.reshape(outer[:, :, None] * own, (count * units, count * k))
        logits = ops.matmul(ops.reshape(hidden, (-1, count * units)), ops.cast(outer, dtype))
        logits = ops.reshape(ops.cast(logits, "float32"), (-1, count, k))
        return logits + self.last * self.rate

    def separate(self, h: int) -> Weights:
        """Return the weights of one network."""
        units, rate = self.networks[h].units, self.networks[h].learning_rate
        mine = slice(h * self.form.units, h * self.form.units + units)
        parts = (
            self.inner[:-1, mine],
            self.inner[-1, mine],
            self.outer[h, :units],
            self.last[h],
        )
        return tuple(ops.convert_to_numpy(part) * np.float32(rate) for part in parts)


def _program(X: Single, form: _Form) -> Stack:
    """Return a program that is ready to start."""
    model = Stack(X, form)
    model.compile(
        optimizer=FusedAdam(1.0, epsilon=1e-12),
        loss=_sigmoid_loss if form.outputs == 1 else _softmax_loss,
        jit_compile=_compiled(),
    )
    # If the first step had to make these variables, it would be traced twice.
    model.optimizer.build(model.trainable_variables)
    return model


def _keep(networks: Sequence[Network], units: int) -> Single:
    """Return the share of its draws in which a unit is kept ``(networks, units)``; 0: no unit."""
    real = np.arange(units) < np.array([[network.units] for network in networks])
    keep = np.array([[1 - network.dropout] for network in networks])
    return np.where(real, keep, 0).astype(np.float32)


def _variable(model: Any, name: str, shape: Any, *, trainable: bool = True) -> Any:
    """Return a weight of a model, zeros at first."""
    return model.add_weight(shape=shape, name=name, trainable=trainable, initializer="zeros")


def _initial(d: int, network: Network, outputs: int) -> tuple[Single, Single]:
    """Return Glorot's uniform start of both layers, divided by the learning rate."""
    rng = np.random.default_rng(network.seed)

    def layer(fan_in: int, fan_out: int, fan: int) -> Single:
        limit = np.sqrt(6 / (fan + network.units)) / network.learning_rate
        drawn = rng.random((fan_in, fan_out), np.float32)
        return drawn * np.float32(2 * limit) - np.float32(limit)

    return layer(d, network.units, d), layer(network.units, outputs, outputs)


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
            jit_compile=_compiled(),
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

    def __init__(self, model: Stack, rows: Examples, schedule: Schedule, least: float) -> None:
        self._model, self._patience, self._least = model, schedule.patience, least
        self._rows, self._codes = rows.held[:, None], rows.codes[rows.held]
        self._weight = rows.weight[rows.held]
        self.best = [Trained((), np.inf, 0)] * len(model.networks)

    def look(self, epoch: int) -> bool:
        """Measure every network that is not finished; return whether all are."""
        logits = ops.convert_to_numpy(self._model(self._rows))
        loss = _losses(logits, self._codes, self._weight)
        going = [epoch - 1 - trained.epoch < self._patience for trained in self.best]
        better = [h for h, on in enumerate(going) if on and loss[h] < self.best[h].loss]
        for h in better:
            self.best[h] = Trained((), float(loss[h]), epoch)
        leader = min(better, key=loss.__getitem__, default=None)
        if leader is not None and loss[leader] < self._least:  # others' weights nobody asks for
            self._least = loss[leader]
            self.best[leader] = replace(self.best[leader], weights=self._model.separate(leader))
        return all(epoch - trained.epoch >= self._patience for trained in self.best)


def _losses(logits: Single, codes: Int, weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weighted log loss of each network ``(networks,)``."""
    scores = logits.astype(np.float64)
    if scores.shape[2] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=2)
    mine = np.take_along_axis(scores, codes[:, None, None], 2)[..., 0]
    loss = np.logaddexp.reduce(scores, axis=2) - mine
    return np.average(loss, axis=0, weights=weight)
