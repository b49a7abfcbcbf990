"""The course's head: one dense layer of relu units with dropout, trained by gradient descent."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from headstart._keras import import_keras
from headstart.errors import HeadError
from headstart.heads.base import Head, softmax
from headstart.heads.folds import fewest_groups, grouped_folds
from headstart.heads.rowspace import RowSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.heads.base import ClassWeight, Training
    from headstart.heads.folds import Int
    from headstart.heads.stack import Trained

    Single = NDArray[np.float32]

#: What suits each form: the first layer of the plain one has forty times as many weights.
_ROWSPACE_RATE, _ROWSPACE_BATCH = 1e-3, 256
_PLAIN_RATE, _PLAIN_BATCH = 1e-4, 32
_BATCHES = 4  # of an epoch, or more; a few rows may make fewer


class DenseHead(Head):
    """Flatten, Dense relu, Dropout, softmax (for two classes: sigmoid), trained by Keras.

    Trained on row-space coordinates unless `plain`. The first layer is a linear function of the
    features, and on the training rows every linear function of the features is one of the
    coordinates, so both forms hold the same functions; they differ in where training starts,
    and the plain one has forty times as many weights to move. Weights map back to features by
    ``RowSpace.back``.

    Of several units, dropouts, learning rates or starts, all combinations are trained, a few side
    by side, by one program, and the one with the lowest loss on held-out training rows is kept.
    Random starts of the same settings race, four at a time: after three epochs only one goes on.
    More than four combinations race: after three epochs one goes on of each four that differ in
    dropout or start alone, and no more than half of those that are not finished; after six the
    better half, or two. Which is better is judged by the lowest loss that each would have eight
    epochs later, if it fell by the same share in each as in its last. One that goes on ends where
    it would without a race; on JAX, where products depend on who stands beside, nearly.

    Parameters
    ----------
    units : int or sequence of int
    dropout : float or sequence of float
    learning_rate : float or sequence of float, optional
        Of Adam; 0.001, or 0.0001 if `plain`.
    starts : int
        Random starts of each combination.
    batch_size : int, optional
        A quarter of the training rows, at most 256; 32 if `plain`.
    epochs : int
        At most; training ends when the loss on held-out training rows has not fallen for
        `patience` epochs, and the best weights are kept.
    patience : int
    validation : float
        Share of the training rows that is held out for this.
    class_weight : dict or "balanced", optional
    plain : bool
        Train on the features themselves.
    race : bool
        If not, every combination is trained to its own end.
    random_state : int

    Attributes
    ----------
    weights_ : tuple of ndarray
        Of shapes ``(d or rank, units)``, ``(units,)``, ``(units, k)`` and ``(k,)``.
    space_ : RowSpace or None
        Of the rows it was trained on, without those that decided when to stop.
    loss_ : float
        Log loss on the held-out training rows.
    losses_ : list of (dict, float)
        Every combination that was trained, and its lowest loss; of one that lost a race, until
        then.
    """

    race = True  # of heads that were pickled before they could race
    beside = False  # Keras has one random state, and uses all cores by itself

    def __init__(
        self,
        *,
        units: int | Sequence[int] = 1024,
        dropout: float | Sequence[float] = 0.2,
        learning_rate: float | Sequence[float] | None = None,
        starts: int = 1,
        batch_size: int | None = None,
        epochs: int = 60,
        patience: int = 3,
        validation: float = 0.1,
        class_weight: ClassWeight = None,
        plain: bool = False,
        race: bool = True,
        random_state: int = 0,
    ) -> None:
        self.units = units
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.starts = starts
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.validation = validation
        self.class_weight = class_weight
        self.plain = plain
        self.race = race
        self.random_state = random_state

    @property
    def rotation_invariant(self) -> bool:
        """Not on the features themselves, where training starts and moves along their axes."""
        return not self.plain

    def prepare(self) -> None:
        """Start Keras."""
        import_keras()

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Train on rows ``(n, d)``; a part of them decides when to stop.

        `progress` is told the share of all networks' epochs that is done.

        Raises
        ------
        HeadError
            If a parameter is out of range, there is only one class, or training diverged.
        """
        self._check()
        self.prepare()
        from headstart.heads.stack import Examples, Network, Schedule, train

        rows = self._training(X, y, sample_weight, groups, np.float32)
        chosen, held = self._held_out(rows)
        # Along directions that held-out rows alone have, weights would stay as they were drawn.
        self.space_ = None if self.plain else RowSpace(normalize=False).fit(rows.X[chosen])
        Z = rows.X if self.space_ is None else _coordinates(self.space_, rows.X, chosen, held)
        self.unit_ = float(np.sqrt(np.mean(np.square(Z[chosen], dtype=np.float32)))) or 1.0
        networks = [Network(*settings) for settings in self._grid()]
        examples = Examples(
            (Z / self.unit_).astype(np.float32, copy=False),
            rows.codes,
            (rows.weight / rows.weight[chosen].mean()).astype(np.float32),
            chosen,
            held,
        )
        schedule = Schedule(self._batch_size(len(chosen)), self.epochs, self.patience)
        trained = train(examples, networks, schedule, progress, race=self.race)
        best = _best(trained)
        settings = [
            {**vars(network), "epochs": r.epoch}
            for network, r in zip(networks, trained, strict=True)
        ]
        self.losses_ = [(each, r.loss) for each, r in zip(settings, trained, strict=True)]
        self.weights_, self.loss_ = trained[best].weights, trained[best].loss
        varied = {"epochs", *self._varied()}
        self.chosen_ = {name: v for name, v in settings[best].items() if name in varied}
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities ``(m, classes)``."""
        rows = self._rows(X, np.float32)
        Z = rows if self.space_ is None else self.space_.transform(rows).astype(np.float32)
        inner, bias, outer, last = self.weights_
        scores = np.maximum((Z / np.float32(self.unit_)) @ inner + bias, 0) @ outer + last
        if len(self.classes_) == 2:
            scores = np.column_stack([np.zeros(len(Z)), scores])
        return softmax(scores.astype(np.float64))

    def _check(self) -> None:
        """Raise HeadError for the first parameter that is out of range."""
        expected: dict[str, tuple[str, Callable[[Any], bool]]] = {
            "units": ("whole numbers, 1 or more", _counts),
            "dropout": ("0 or more, below 1", lambda v: 0 <= v < 1),
            "learning_rate": (
                "above 0 and finite in float32",
                lambda v: 0 < v <= np.finfo(np.float32).max,
            ),
            "starts": ("a whole number, 1 or more", _counts),
            "batch_size": ("a whole number, 1 or more", _counts),
            "epochs": ("a whole number, 1 or more", _counts),
            "patience": ("a whole number, 1 or more", _counts),
            "validation": ("above 0, at most 0.5", lambda v: 0 < v <= 0.5),
        }
        for name, (words, fits) in expected.items():
            value = getattr(self, name)
            each = np.atleast_1d(value)
            several = name in {"units", "dropout", "learning_rate"}
            known = each.ndim == 1 and each.dtype.kind in "iuf" and (several or np.ndim(value) == 0)
            own = value is None and name in {"learning_rate", "batch_size"}
            if not own and not (known and len(each) and all(map(fits, each))):
                raise HeadError(f"{name} must be {words}; found {value!r}")

    def _batch_size(self, rows: int) -> int:
        """Return how many of the training rows a step takes."""
        suited = _PLAIN_BATCH if self.plain else min(_ROWSPACE_BATCH, -(-rows // _BATCHES))
        return self.batch_size or suited

    def _grid(self) -> list[tuple[Any, ...]]:
        """Return units, dropout, learning rate and seed of every network to train."""
        usual = _PLAIN_RATE if self.plain else _ROWSPACE_RATE
        rate = usual if self.learning_rate is None else self.learning_rate
        seeds = range(self.random_state, self.random_state + self.starts)
        units = map(int, np.atleast_1d(self.units))
        dropout, rates = np.atleast_1d(self.dropout), np.atleast_1d(rate)
        every = product(units, map(float, dropout), map(float, rates), seeds)
        return list(dict.fromkeys(every))  # a value that is given twice is trained once

    def _varied(self) -> set[str]:
        """Return the names of the settings of which there are several."""
        several = {
            name
            for name in ("units", "dropout", "learning_rate")
            if np.size(getattr(self, name)) > 1
        }
        return several | ({"seed"} if self.starts > 1 else set())

    def _held_out(self, rows: Training) -> tuple[Int, Int]:
        """Return training and held-out rows: one of as many folds as the share asks for.

        Classes of fewer rows than folds stay in training, so that they do not make the share
        larger for all. Where there is no other class, the folds are fewer; and if a class has only
        one row then, all rows are both.
        """
        wanted, codes, groups = max(2, round(1 / self.validation)), rows.codes, rows.groups
        sizes = [fewest_groups(*_some(rows, codes == code))[0] for code in range(codes.max() + 1)]
        large = np.flatnonzero(np.array(sizes) >= wanted)
        if len(large) < 2:
            large, wanted = np.arange(len(sizes)), min(wanted, fewest_groups(codes, groups)[0])
        if wanted < 2:
            everything = np.arange(len(codes))
            return everything, everything
        asked = np.isin(codes, large)
        fold = grouped_folds(*_some(rows, asked), wanted, self.random_state)[0][1]
        held = np.flatnonzero(asked)[fold]
        same = held if groups is None else np.flatnonzero(np.isin(groups, groups[held]))
        return np.setdiff1d(np.arange(len(codes)), same), held


def _some(rows: Training, which: NDArray[np.bool_]) -> tuple[Int, NDArray[Any] | None]:
    """Return codes and groups of some rows."""
    return rows.codes[which], None if rows.groups is None else rows.groups[which]


def _counts(value: Any) -> bool:
    """Say whether something can be counted with it."""
    return bool(value >= 1 and value == int(value))


def _coordinates(space: RowSpace, X: Single, chosen: Int, held: Int) -> Single:
    """Return coordinates ``(n, rank)`` of the rows a space was found on and of new ones; 0 else."""
    Z = np.zeros((len(X), space.rank_), np.float32)
    Z[chosen], new = space.coordinates_, np.setdiff1d(held, chosen)
    if len(new):
        Z[new] = space.transform(X[new])
    return Z


def _best(trained: list[Trained]) -> int:
    """Return the number of the network with the lowest loss among those whose weights are kept.

    Raises
    ------
    HeadError
        If training has led nowhere.
    """
    kept = [n for n, result in enumerate(trained) if result.weights]
    if not kept:
        raise HeadError(
            "training diverged: use a smaller learning_rate, or scale the features, if they are "
            "very large or very small (sklearn.preprocessing.StandardScaler)"
        )
    return min(kept, key=lambda n: trained[n].loss)
