"""Many networks of one hidden layer, trained side by side as one Keras program.

Their first layers stand side by side, a few in one matrix, so that one product serves them; the
rows stay on the device, where a batch is a few row numbers. Written against Keras 3 alone, for
each of its backends. This module imports Keras: import it inside the function that trains.
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

#: Networks whose first layers are one matrix: a step of four such matrices took less processor time
#: than one of a matrix of all sixteen networks.
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
    codes, weight, held = rows.codes, rows.weight, rows.held
    outputs = 1 if codes.max() == 1 else int(codes.max()) + 1
    # Batches of one size, as a program is compiled once; rows that fill the last do not count.
    steps = max(1, round(len(rows.chosen) / schedule.batch_size))
    batch = -(-len(rows.chosen) // steps)
    order = np.resize(rows.chosen, steps * batch)
    counted = weight[order] * (np.arange(len(order)) < len(rows.chosen))
    with _seeded(networks[0].seed):
        model = Stack(rows.X, networks, outputs)
        model.compile(
            optimizer=FusedAdam(1.0, epsilon=1e-12),
            loss=_sigmoid_loss if outputs == 1 else _softmax_loss,
            jit_compile=_compiled(),
            steps_per_execution=steps,
        )
        watch = Watch(held[:, None], codes[held], weight[held], schedule, progress)
        model.fit(
            order[:, None],
            codes[order, None, None].astype(np.int32),
            sample_weight=counted.astype(np.float32),
            batch_size=batch,
            epochs=schedule.epochs,
            callbacks=[watch],
            verbose=0,
        )
    return watch.best


def _compiled() -> bool:
    """Return whether to compile by XLA; TensorFlow's on CPU cores took three times as long."""
    return keras.backend.backend() == "jax" or bool(gpus())


class Stack(keras.Model):  # type: ignore[misc]
    """The networks: row numbers ``(b, 1)`` in, logits ``(b, networks, k)`` out.

    Weights are kept divided by the learning rate of their network. Adam's steps do not depend on
    the scale of a gradient, so that with a rate of 1 each network moves at its own.
    """

    def __init__(self, X: Single, networks: Sequence[Network], outputs: int) -> None:
        super().__init__()
        self.networks = list(networks)
        ones = np.ones((len(X), 1), np.float32)  # times the last row of inner: the biases
        self.X = _variable(self, "X", np.hstack([X, ones]), trainable=False)
        self.products = "bfloat16" if native_bfloat16() else "float32"
        self.width = max(network.units for network in networks)
        firsts = range(0, len(networks), _TOGETHER)
        self.groups = [
            _Group(self, X.shape[1], networks[first : first + _TOGETHER], outputs)
            for first in firsts
        ]
        self.noise = keras.random.SeedGenerator(networks[0].seed)

    def call(self, rows: Any, *, training: bool = False) -> Any:
        """Return logits of the rows with these numbers."""
        x = ops.take(self.X, rows[:, 0], axis=0)
        drawn = None
        if training:  # all networks drop out by the same draw
            drawn = keras.random.uniform((ops.shape(x)[0], 1, self.width), seed=self.noise)
        # Products of a training step may be rounded, as a step is anyway; what is judged is not.
        x = ops.cast(x, self.products if training else "float32")
        return ops.concatenate([group.logits(x, drawn) for group in self.groups], axis=1)

    def separate(self, h: int) -> Weights:
        """Return the weights of one network."""
        return self.groups[h // _TOGETHER].separate(h % _TOGETHER)


class _Group:
    """Networks whose first layers stand side by side in one matrix; the model owns the weights."""

    def __init__(
        self, model: Stack, features: int, networks: Sequence[Network], outputs: int
    ) -> None:
        self.networks = list(networks)
        self.width = max(network.units for network in networks)
        self.rate = np.array([[n.learning_rate] for n in networks], dtype=np.float32)
        inner = np.zeros((features + 1, len(networks) * self.width), np.float32)
        outer = np.zeros((len(networks), self.width, outputs), np.float32)
        for h, network in enumerate(networks):
            mine = slice(h * self.width, h * self.width + network.units)
            inner[:-1, mine], outer[h, : network.units] = _initial(features, network, outputs)
        self.inner = _variable(model, "inner", inner)
        self.outer = _variable(model, "outer", outer)
        self.last = _variable(model, "last", np.zeros(outer.shape[::2], np.float32))
        real = np.arange(self.width) < np.array([[network.units] for network in networks])
        keep = np.array([[1 - network.dropout] for network in networks])
        keep = np.where(real, keep, 0).astype(np.float32)
        self.keep = keep[:1] if (keep == keep[0]).all() else keep

    def logits(self, x: Any, drawn: Any) -> Any:
        """Return logits ``(b, networks, k)`` of rows in the dtype of the products.

        A unit drops out where `drawn` ``(b, 1, width)`` is not below what is kept; None keeps all.
        """
        count, k, dtype = len(self.networks), self.outer.shape[-1], x.dtype
        hidden = ops.relu(ops.matmul(x, ops.cast(self.inner, dtype)))
        if drawn is not None:
            kept = drawn[..., : self.width] < self.keep
            mask = ops.where(kept, 1 / np.maximum(self.keep, 1e-6), 0.0)
            hidden = ops.reshape(hidden, (-1, count, self.width)) * ops.cast(mask, dtype)
        # Rates go to the small matrix. One product with zeros between the networks is faster than
        # a product for each of them.
        outer = self.outer * self.rate[:, None] ** 2
        own = np.eye(count, dtype=np.float32)[:, None, :, None]
        outer = ops.reshape(outer[:, :, None] * own, (count * self.width, count * k))
        logits = ops.matmul(ops.reshape(hidden, (-1, count * self.width)), ops.cast(outer, dtype))
        logits = ops.reshape(ops.cast(logits, "float32"), (-1, count, k))
        return logits + self.last * self.rate

    def separate(self, h: int) -> Weights:
        """Return the weights of one network."""
        units, rate = self.networks[h].units, self.rate[h, 0]
        mine = slice(h * self.width, h * self.width + units)
        parts = (
            self.inner[:-1, mine],
            self.inner[-1, mine],
            self.outer[h, :units],
            self.last[h],
        )
        return tuple(ops.convert_to_numpy(part) * rate for part in parts)


def _variable(model: Any, name: str, value: Single, *, trainable: bool = True) -> Any:
    """Return a weight of a model that starts with a value."""
    variable = model.add_weight(
        shape=value.shape, name=name, trainable=trainable, initializer="zeros"
    )
    variable.assign(value)
    return variable


def _initial(d: int, network: Network, outputs: int) -> tuple[Single, Single]:
    """Return Glorot's uniform start of both layers, divided by the learning rate."""
    rng = np.random.default_rng(network.seed)

    def layer(fan_in: int, fan_out: int, fan: int) -> Single:
        limit = np.sqrt(6 / (fan + network.units)) / network.learning_rate
        return rng.uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32)

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


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Knows each network's lowest loss on held-out rows, and the weights of the best of them.

    A network that has not become better for `patience` epochs is finished, as it would be alone,
    whatever it does while others go on.
    """

    def __init__(
        self,
        rows: Int,
        codes: Int,
        weight: Single,
        schedule: Schedule,
        progress: Callable[[float], None] | None,
    ) -> None:
        super().__init__()
        self.rows, self.codes, self.weight = rows, codes, weight
        self.schedule, self.progress = schedule, progress
        self.best: list[Trained] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Start with nothing."""
        del logs
        self.best = [Trained((), np.inf, 0)] * len(self.model.networks)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure every network that is not finished; stop when all are."""
        del logs
        patience = self.schedule.patience
        loss = _losses(ops.convert_to_numpy(self.model(self.rows)), self.codes, self.weight)
        least = min(trained.loss for trained in self.best)
        going = [epoch - trained.epoch < patience for trained in self.best]
        better = [h for h, on in enumerate(going) if on and loss[h] < self.best[h].loss]
        for h in better:
            self.best[h] = Trained((), float(loss[h]), epoch + 1)
        leader = min(better, key=loss.__getitem__, default=None)
        if leader is not None and loss[leader] < least:  # weights of others are never asked for
            self.best[leader] = replace(self.best[leader], weights=self.model.separate(leader))
        if self.progress:
            self.progress((epoch + 1) / self.schedule.epochs)
        if all(epoch + 1 - trained.epoch >= patience for trained in self.best):
            self.model.stop_training = True


def _losses(logits: Single, codes: Int, weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weighted log loss of each network ``(networks,)``."""
    scores = logits.astype(np.float64)
    if scores.shape[2] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=2)
    mine = np.take_along_axis(scores, codes[:, None, None], 2)[..., 0]
    loss = np.logaddexp.reduce(scores, axis=2) - mine
    return np.average(loss, axis=0, weights=weight)
