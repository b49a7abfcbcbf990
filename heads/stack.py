"""Many networks of one hidden layer, trained a few side by side, in a race or each to its end.

The rows stay on the device, where a batch is a few row numbers. This module imports Keras: import
it inside the function that trains.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from headstart._hardware import native_bfloat16
from headstart.extract._keras_engine import gpus
from headstart.heads import step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Single = NDArray[np.float32]
    Int = NDArray[np.int64]
    Weights = tuple[Single, ...]
    Batch = tuple[NDArray[Any], Int, NDArray[Any]]

#: Networks that take a step together. Steps of more took as long as several of four.
_TOGETHER = 4
#: Epochs after which one of each heat goes on, and after which the better half does.
_HEAT, _HALVING = 3, 6
#: Epochs ahead at which those that race are compared.
_AHEAD = 8
#: Bytes that networks may take which race against each other: all of them are kept until a heat.
_RACING = 1 << 30
_BYTES = 16  # at most, of a weight of a first layer: itself, two means, and itself rounded
_BYTES_ABOVE = 12  # of a weight of a second layer, of which nothing is rounded
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
        Of shapes ``(d, units)``, ``(units,)``, ``(units, k)`` and ``(k,)``; of several networks
        only the best of all has them.
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
    *,
    race: bool = True,
) -> list[Trained]:
    """Train networks on the same rows, each until its loss on held-out rows stops falling.

    With `race`, more than four of them race (successive halving, Jamieson & Talwalkar, 2016), and
    so do four or fewer that differ in their seed alone: see `_going_on`. One that goes on to its
    end ends where it would without a race. Two classes share one sigmoid, more have a softmax.
    `progress` is told the share of all networks' epochs that is done.
    """
    training = _Training(rows, networks, schedule)
    pools = _pools(networks, training.room(), race=race)
    planned = [_planned(pool, networks, schedule.epochs, race=race) for pool in pools]
    shares = np.cumsum(planned).reshape(len(pools), -1) / np.sum(planned)
    for pool, done in zip(pools, shares.tolist(), strict=True):
        training.run(pool, done, progress or (lambda _: None), race=race)
    return training.known


def _pools(networks: Sequence[Network], room: int, *, race: bool) -> list[list[int]]:
    """Return the numbers of networks in pools that are trained one after another.

    Neighbours are about as fast: those that race are compared with their like, and those that do
    not are finished at about the same time.
    """
    settings = [(n.units, n.learning_rate, n.dropout, n.seed) for n in networks]
    order = sorted(range(len(networks)), key=settings.__getitem__)
    if not race:
        return _groups(order, networks)
    return _parts(order, -(-len(order) // max(room, _TOGETHER)))


def _planned(
    pool: Sequence[int], networks: Sequence[Network], epochs: int, *, race: bool
) -> list[int]:
    """Return how many networks of a pool take each epoch, if none is finished before the last."""
    alike, going, planned = [(1.0, 1.0)] * len(networks), list(pool), []
    for epoch in range(1, epochs + 1):
        planned.append(len(going))
        if race:
            all_race = len(pool) > _TOGETHER
            going = _going_on(epoch, going, networks, alike, all_race=all_race)
    return planned


def _parts(numbers: Sequence[int], count: int) -> list[list[int]]:
    """Return as many parts of numbers as asked for, of nearly equal size; none is empty.

    Examples
    --------
    >>> _parts(range(9), 2), _parts([5, 6], 3)
    ([[0, 1, 2, 3, 4], [5, 6, 7, 8]], [[5], [6]])
    """
    if not numbers:
        return []
    return [part.tolist() for part in np.array_split(numbers, min(count, len(numbers)))]


def _going_on(
    epoch: int,
    going: Sequence[int],
    networks: Sequence[Network],
    losses: Sequence[Sequence[float]],
    *,
    all_race: bool,
) -> list[int]:
    """Return which networks of a race go on after an epoch, in the same order.

    After three epochs one of each heat does. Where `all_race`, whatever their settings, it is no
    more than half of those given after three epochs, and after six the better half, or two. What
    counts is the loss that each may hope for; those without hope are out, unless all are.
    """
    if epoch not in {_HEAT, _HALVING}:
        return list(going)
    hoped = {n: _hoped(losses[n]) for n in going}
    half = max(2, -(-len(going) // 2))
    going = [n for n in going if np.isfinite(hoped[n])] or list(going)
    if epoch == _HEAT:
        heats = _heats(going, networks, all_race=all_race)
        going = [min(heat, key=hoped.__getitem__) for heat in heats]
    better = sorted(going, key=hoped.__getitem__)[: half if all_race else None]
    return [n for n in going if n in better]


def _heats(
    numbers: Sequence[int], networks: Sequence[Network], *, all_race: bool
) -> list[list[int]]:
    """Return heats of four networks or fewer that differ in their seed alone, or in dropout too.

    None of them is ahead of the others because of its learning rate.
    """
    like = {"seed": 0, "dropout": 0} if all_race else {"seed": 0}
    equals = groupby(numbers, key=lambda n: replace(networks[n], **like))
    every = [list(heat) for _, heat in equals]
    return [heat for same in every for heat in _parts(same, -(-len(same) // _TOGETHER))]


def _hoped(losses: Sequence[float]) -> float:
    """Return the lowest loss a network may hope for, by its losses so far.

    That is the lowest, if it goes on to fall by the same share as in its last epoch, for eight more
    epochs. One that has diverged has no hope.

    Examples
    --------
    >>> _hoped([4.0, 2.0]), _hoped([2.0, 1.0, 3.0]), _hoped([1.0, float("nan")])
    (0.0078125, 1.0, inf)
    """
    if not np.isfinite(losses).all():
        return np.inf
    before, last = losses[-2:]
    return min(*losses, last * (last / before) ** _AHEAD if last < before else last)


class _Training:
    """Networks and the rows they are trained on.

    Attributes
    ----------
    known : list of Trained
        The best of each network so far.
    """

    def __init__(self, rows: Examples, networks: Sequence[Network], schedule: Schedule) -> None:
        self._rows, self._networks, self._schedule = rows, networks, schedule
        self.known = [Trained((), np.inf, 0)] * len(networks)
        self._losses: list[list[float]] = [[] for _ in networks]
        largest = int(rows.codes.max())
        self._outputs = 1 if largest == 1 else largest + 1
        X = _with_ones(rows.X)
        self._X = ops.cast(X, _dtype())
        filled = np.resize(rows.held, _filled(len(rows.held), _ROWS))
        self._held_out = ops.convert_to_tensor(X[filled])

    def room(self) -> int:
        """Return how many of the largest network race at a time."""
        units = max(network.units for network in self._networks)
        return _RACING // (units * (_BYTES * int(self._X.shape[1]) + _BYTES_ABOVE * self._outputs))

    def run(
        self,
        pool: Sequence[int],
        done: Sequence[float],
        tell: Callable[[float], None],
        *,
        race: bool,
    ) -> None:
        """Train networks side by side until all are finished, or have lost the race.

        `done` is what to tell after each epoch, or the last of it once none goes on.
        """
        states = {number: self._start(number) for number in pool}
        for epoch in range(1, self._schedule.epochs + 1):
            for group in _groups(list(states), self._networks):
                self._move(epoch, group, states)
            self._look(epoch, states)
            going = [n for n in pool if n in states and self._unfinished(n, epoch)]
            if race and going:
                all_race = len(pool) > _TOGETHER
                going = _going_on(epoch, going, self._networks, self._losses, all_race=all_race)
            states = {number: states[number] for number in going}
            tell(done[epoch - 1 if going else -1])
            if not going:
                break

    def _start(self, number: int) -> step.State:
        """Return a network with its first weights."""
        features = self._rows.X.shape[1], self._X.shape[1]
        first = _first_weights(self._networks[number], *features, self._outputs)
        return step.start(*first, _dtype())

    def _move(self, epoch: int, group: Sequence[int], states: dict[int, step.State]) -> None:
        """Take a group's steps of an epoch.

        All groups take the same batches; those of equal units drop out by the same draw.
        """
        networks = [self._networks[number] for number in group]
        keep, rate = zip(*((1 - n.dropout, n.learning_rate) for n in networks), strict=True)
        places, moved = step.Places.of(keep, rate), tuple(states[number] for number in group)
        seed = self._networks[0].seed, epoch
        for batch in _batches(self._rows, self._schedule.batch_size, networks[0].units, seed):
            moved = step.step(moved, self._X, batch, places)
        states.update(zip(group, moved, strict=True))

    def _look(self, epoch: int, states: Mapping[int, step.State]) -> None:
        """Measure networks on the held-out rows; keep the weights of the best of all of them."""
        held = self._rows.held
        codes, weight = self._rows.codes[held], self._rows.weight[held]
        least, better = min(trained.loss for trained in self.known), {}
        for number, state in states.items():
            logits = step.logits(state, self._held_out)[: len(held), None]
            loss = float(_losses(logits, codes, weight)[0])
            self._losses[number].append(loss)
            if loss < self.known[number].loss:
                self.known[number], better[number] = Trained((), loss, epoch), loss
        leader = min(better, key=better.__getitem__, default=None)
        if leader is not None and better[leader] < least:  # others' weights nobody asks for
            self.known = [replace(trained, weights=()) for trained in self.known]
            weights = _separate(states[leader], self._rows.X.shape[1])
            self.known[leader] = replace(self.known[leader], weights=weights)

    def _unfinished(self, number: int, epoch: int) -> bool:
        """Say whether a network has been best within `patience` epochs."""
        return epoch - self.known[number].epoch < self._schedule.patience


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


def _batches(rows: Examples, size: int, units: int, seed: tuple[int, int]) -> Iterator[step.Batch]:
    """Return the batches of an epoch, `size` rows or so each, in an order of its own.

    Batches are of one size, as a step is compiled once; rows that fill them up do not count.
    """
    steps = max(1, round(len(rows.chosen) / size))
    each = _filled(-(-len(rows.chosen) // steps), _BATCH)
    real = np.arange(steps * each) < len(rows.chosen)
    filled = np.resize(rows.chosen, steps * each)
    share = np.where(real, rows.weight[filled] / each, 0).astype(np.float32)
    order, noise = np.random.default_rng(seed), np.random.default_rng((*seed, 1))

    def batch(place: Int) -> step.Batch:
        numbers = filled[place]
        drawn = noise.integers(0, 1 << 16, (units, each), np.uint16)
        return step.Batch(numbers, rows.codes[numbers].astype(np.int32), share[place], drawn)

    return map(batch, order.permutation(steps * each).reshape(steps, each))


def _groups(numbers: Sequence[int], networks: Sequence[Network]) -> list[list[int]]:
    """Return groups of four, two and one networks of equal units: few programs are compiled."""
    groups = []
    for _, same in groupby(numbers, key=lambda n: networks[n].units):
        rest = list(same)
        for size in (_TOGETHER, 2, 1):
            while len(rest) >= size:
                groups.append(rest[:size])
                del rest[:size]
    return groups


def _separate(state: step.State, features: int) -> Weights:
    """Return the weights of a network as Keras has them."""
    layers = (state.inner.value, state.outer.value, state.last.value)
    # A variable of TensorFlow's is no array to numpy; a copy of what it holds is.
    first, *rest = (ops.convert_to_numpy(ops.copy(layer)) for layer in layers)
    return (first[:, :features].T, first[:, features], *rest)


def _first_weights(
    network: Network, features: int, room: int, outputs: int
) -> tuple[Single, Single]:
    """Return both layers ``(units, room)`` and ``(units, outputs)`` by Glorot's uniform start."""
    inner = np.zeros((network.units, room), np.float32)
    outer = np.empty((network.units, outputs), np.float32)
    rng = np.random.default_rng(network.seed)
    for layer in (inner[:, :features], outer):
        limit = np.float32(np.sqrt(6 / sum(layer.shape)))
        np.multiply(rng.random(layer.shape, np.float32), 2 * limit, out=layer)
        np.subtract(layer, limit, out=layer)
    return inner, outer


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


def _losses(logits: Single, codes: Int, weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weighted log loss of each network ``(networks,)``."""
    scores = logits.astype(np.float64)
    if scores.shape[2] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=2)
    mine = np.take_along_axis(scores, codes[:, None, None], 2)[..., 0]
    with np.errstate(invalid="ignore"):  # of a network that has overflowed
        loss = np.logaddexp.reduce(scores, axis=2) - mine
    return np.average(loss, axis=0, weights=weight)
