"""Many networks of one hidden layer, trained a few side by side.

The first layers of a few stand side by side in one matrix, so that one product serves them. The
rows stay on the device, where a batch is a few row numbers. This module imports Keras: import it
inside the function that trains.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

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

#: Networks that are trained side by side. Steps of sixteen took as long as four steps of four, and
#: all went on until the last was finished.
_TOGETHER = 4
#: Epochs after which one of such a group goes on, if all have the same settings.
_HEAT = 3
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
        only one that was the best of all so far has them, the best of all among them.
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


@dataclass(frozen=True)
class Begun:
    """A network that was trained for some steps, in numpy.

    Attributes
    ----------
    weights : tuple of step.Weight
        Of shapes ``(units, d)``, ``(units, k)`` and ``(k,)``.
    steps : float
    """

    weights: tuple[step.Weight, ...]
    steps: float


def train(
    rows: Examples,
    networks: Sequence[Network],
    schedule: Schedule,
    progress: Callable[[float], None] | None = None,
) -> list[Trained]:
    """Train networks on the same rows, each until its loss on held-out rows stops falling.

    Networks that differ by nothing but their seed race in heats of four: after three epochs only
    the one with the lowest loss goes on. (Successive halving, Jamieson & Talwalkar, 2016, among
    equals: none is dropped because its settings make it slow at first.) Two classes share one
    sigmoid, more have a softmax. `progress` is told the share of epochs that are done.
    """
    training = _Training(rows, networks, schedule)
    heats, epochs = _heats(networks), schedule.epochs
    if len(heats) == len(networks) or epochs <= _HEAT:
        everyone = _groups(_by_pace(range(len(networks)), networks))
        training.run(everyone, range(1, epochs + 1), _part(progress, 0, 1))
        return training.known
    raced = len(networks) * _HEAT
    share = raced / (raced + len(heats) * (epochs - _HEAT))
    leaders = training.run(heats, range(1, _HEAT + 1), _part(progress, 0, share))
    finals, tell = _groups(_by_pace(leaders, networks)), _part(progress, share, 1)
    training.run(finals, range(_HEAT + 1, epochs + 1), tell, leaders)
    return training.known


def _part(
    progress: Callable[[float], None] | None, first: float, last: float
) -> Callable[[float], None]:
    """Return what to tell the share of a part to, which goes from `first` to `last`."""
    return lambda share: progress(first + (last - first) * share) if progress else None


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
        X = _with_ones(rows.X)
        self._X = ops.cast(X, _dtype())
        outputs = 1 if rows.codes.max() == 1 else int(rows.codes.max()) + 1
        self._sizes = Sizes(rows.X.shape[1], X.shape[1], outputs)
        filled = np.resize(rows.held, _filled(len(rows.held), _ROWS))
        self._held_out = ops.convert_to_tensor(X[filled])

    def run(
        self,
        groups: Sequence[Sequence[int]],
        epochs: range,
        tell: Callable[[float], None],
        begun: Mapping[int, Begun] | None = None,
    ) -> dict[int, Begun]:
        """Train groups of networks for some epochs; return how far each one's leader has come.

        The leader is the network with the lowest loss at the end, of those that are not finished.
        """
        leaders = {}
        for number, group in enumerate(groups):
            stack = Stack(
                [self._networks[n] for n in group],
                max(map(len, groups)),
                self._sizes,
                [begun[n] for n in group] if begun else None,
            )
            # All groups take the same batches; those of equal units drop them out by the same draw.
            seed = self._networks[0].seed, epochs.start
            batches = _batches(self._rows, self._schedule.batch_size, stack.units, seed)
            for epoch in epochs:
                for batch in next(batches):
                    stack.state = step.step(stack.state, self._X, batch, stack.places)
                loss = self._look(epoch, stack, group)
                going = self._going(epoch, group)
                tell((number + (epoch + 1 - epochs.start) / len(epochs)) / len(groups))
                if not any(going):
                    break
            if any(going):
                lead = int(np.argmin(np.where(going & np.isfinite(loss), loss, np.inf)))
                leaders[group[lead]] = stack.begun(lead)
        return leaders

    def _going(self, epoch: int, group: Sequence[int]) -> NDArray[np.bool_]:
        """Say which have been best within `patience` epochs: the others are finished.

        So they would be alone, whatever they do while others go on.
        """
        best = np.array([self.known[number].epoch for number in group])
        return epoch - best < self._schedule.patience

    def _look(self, epoch: int, stack: Stack, group: Sequence[int]) -> NDArray[np.float64]:
        """Measure a group on the held-out rows; keep the weights of the best of all networks."""
        held = self._rows.held
        logits = step.logits(stack.state, self._held_out)[: len(held), : len(group)]
        loss = _losses(logits, self._rows.codes[held], self._rows.weight[held])
        least = min(trained.loss for trained in self.known)
        going = self._going(epoch - 1, group)
        better = [h for h, n in enumerate(group) if going[h] and loss[h] < self.known[n].loss]
        for h in better:
            self.known[group[h]] = Trained((), float(loss[h]), epoch)
        best = min(better, key=loss.__getitem__, default=None)
        if best is not None and loss[best] < least:  # others' weights nobody asks for
            self.known[group[best]] = replace(self.known[group[best]], weights=stack.separate(best))
        return loss


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


def _batches(
    rows: Examples, size: int, units: int, seed: tuple[int, int]
) -> Iterator[Iterator[step.Batch]]:
    """Yield for each epoch its batches, `size` rows or so each.

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

    while True:
        yield map(batch, order.permutation(steps * each).reshape(steps, each))


def _groups(numbers: Sequence[int]) -> list[list[int]]:
    """Return as few groups as can be of networks to train side by side, of nearly equal size.

    Examples
    --------
    >>> _groups(range(9))
    [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    """
    if not numbers:
        return []
    parts = np.array_split(np.array(numbers), -(-len(numbers) // _TOGETHER))
    return [part.tolist() for part in parts]


def _by_pace(numbers: Iterable[int], networks: Sequence[Network]) -> list[int]:
    """Return numbers of networks in an order in which neighbours take about as many epochs.

    A group goes on until its last network is finished: a slow one beside fast ones would make the
    steps of all of them as many as its own.
    """
    return sorted(numbers, key=lambda n: (networks[n].units, networks[n].learning_rate))


def _heats(networks: Sequence[Network]) -> list[list[int]]:
    """Return groups of the numbers of networks that differ in their seed alone."""
    alike = groupby(range(len(networks)), key=lambda number: replace(networks[number], seed=0))
    return [heat for _, numbers in alike for heat in _groups(list(numbers))]


class Sizes(NamedTuple):
    """Numbers of features, of weights that a unit has room for, and of outputs."""

    features: int
    room: int
    outputs: int


class Stack:
    """Networks in training side by side.

    Attributes
    ----------
    networks : tuple of Network
    units : int
        Of each place; a network of fewer leaves some unused.
    state : step.State
    places : step.Places
    """

    def __init__(
        self,
        networks: Sequence[Network],
        count: int,
        sizes: Sizes,
        begun: Sequence[Begun] | None = None,
    ) -> None:
        """Make `count` places, and draw networks' first weights or go on from what has begun."""
        self.networks, self._features = tuple(networks), sizes.features
        self.units = max(network.units for network in networks)
        shapes = (
            (count, self.units, sizes.room),
            (count, self.units, sizes.outputs),
            (count, sizes.outputs),
        )
        if begun:
            self.state = _beside(begun, shapes)
        else:
            inner, outer = (np.zeros(shape, np.float32) for shape in shapes[:2])
            for h, network in enumerate(networks):
                mine = inner[h, : network.units, : sizes.features], outer[h, : network.units]
                _draw_first_weights(*mine, network.seed)
            self.state = step.start(inner.reshape(-1, sizes.room), outer, _dtype())
        rate = np.zeros(count, np.float32)
        rate[: len(networks)] = [network.learning_rate for network in networks]
        keep = _keep(networks, self.units)
        keep = np.resize(keep, (1 if (keep == keep[0]).all() else count, self.units))
        self.places = step.Places.of(keep, rate)

    def separate(self, h: int) -> Weights:
        """Return the weights of one network."""
        d, state = self._features, self.state
        first, *rest = self._own(h, state.inner.value, state.outer.value, state.last.value)
        return (first[:, :d].T, first[:, d], *rest)

    def begun(self, h: int) -> Begun:
        """Return how far one network has come."""
        parts = zip(self.state.inner, self.state.outer, self.state.last, strict=True)
        weights = zip(*(self._own(h, *each) for each in parts), strict=True)
        return Begun(tuple(step.Weight(*each) for each in weights), float(self.state.steps))

    def _own(self, h: int, inner: Any, outer: Any, last: Any) -> Weights:
        """Return one network's part of what lies side by side."""
        units = self.networks[h].units
        mine = inner[h * self.units : h * self.units + units], outer[h, :units], last[h]
        return tuple(map(ops.convert_to_numpy, mine))


def _beside(begun: Sequence[Begun], shapes: Sequence[tuple[int, ...]]) -> step.State:
    """Return networks that have begun side by side, their layers in arrays of these shapes."""
    layers = []
    for layer, shape in enumerate(shapes):
        whole = step.Weight(*(np.zeros(shape, np.float32) for _ in step.Weight._fields))
        for h, network in enumerate(begun):
            for place, part in zip(whole, network.weights[layer], strict=True):
                place[(h, *map(slice, part.shape))] = part
        layers.append(whole)
    inner, outer, last = layers
    inner = step.Weight(*(part.reshape(-1, part.shape[-1]) for part in inner))
    return step.resume(inner, outer, last, begun[0].steps, _dtype())


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


def _losses(logits: Single, codes: Int, weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weighted log loss of each network ``(networks,)``."""
    scores = logits.astype(np.float64)
    if scores.shape[2] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=2)
    mine = np.take_along_axis(scores, codes[:, None, None], 2)[..., 0]
    with np.errstate(invalid="ignore"):  # of a network that has overflowed
        loss = np.logaddexp.reduce(scores, axis=2) - mine
    return np.average(loss, axis=0, weights=weight)
