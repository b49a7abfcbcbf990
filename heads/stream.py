"""Heads for more rows than memory holds: they read the store again and again, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.linalg
from sklearn.utils.class_weight import compute_class_weight

from headstart._keras import import_keras
from headstart.errors import HeadError
from headstart.heads import logreg, ridge, svm
from headstart.heads.base import Head, softmax
from headstart.heads.folds import fewest_groups, grouped_folds
from headstart.heads.gram import ArrayRows, widened
from headstart.heads.metrics import temperature
from headstart.heads.rowspace import available_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.heads.base import ClassWeight
    from headstart.heads.gram import Rows

    Float = NDArray[np.float64]
    Single = NDArray[np.float32]
    Int = NDArray[np.int64]

#: Rows read at once: chunks of neighbours, because scattered rows read ten times slower.
_CHUNK = 16
#: Adam's step for features of mean squared norm 1, times the root of how many they are.
_STEP = 6.0


@dataclass(frozen=True)
class Labelled:
    """Rows of a store with what is known of them: class numbers, weights, held-out rows."""

    rows: Rows
    codes: Int
    weight: Float
    chosen: Int
    held: Int

    def everything(self) -> Labelled:
        """Return the same with no row held out."""
        return Labelled(self.rows, self.codes, self.weight, np.arange(len(self.codes)), self.held)


class StreamedHead(Head):
    """A head that is trained on rows it never holds all at once.

    One of ten folds of the training rows (grouped, stratified) is held out to choose
    hyperparameters; the chosen ones are then trained on all rows.
    """

    beside = False  # each takes the memory that is allowed

    random_state: int
    class_weight: ClassWeight
    max_memory: int | None

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Train on rows in memory ``(n, d)``, as on those of a store."""
        rows = self._training(X, y, sample_weight, groups, np.float32)
        return self._fit(self._split(ArrayRows(rows.X), rows.codes, rows.weight, rows.groups))

    def fit_rows(self, rows: Rows, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Train on rows of a store, block by block."""
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise HeadError("a classifier needs rows of two classes or more; found 1 class")
        self.n_features_in_ = rows.shape[1]
        weight = compute_class_weight(self.class_weight, classes=self.classes_, y=y)[codes]
        kept = None if groups is None else np.asarray(groups)
        return self._fit(self._split(rows, codes, weight, kept))

    def decision_function(self, X: ArrayLike) -> Float:
        """Return scores ``(m, k)``; ``(m,)`` for two classes."""
        scores = self._scores(self._rows(X, np.float32))
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: ArrayLike) -> Float:
        """Return class probabilities ``(m, k)``."""
        return softmax(self._scores(self._rows(X, np.float32)))

    def _fit(self, data: Labelled) -> Self:
        raise NotImplementedError

    def _scores(self, X: Single) -> Float:
        raise NotImplementedError

    def _split(
        self, rows: Rows, codes: Int, weight: Float, groups: NDArray[Any] | None
    ) -> Labelled:
        n_splits = min(10, fewest_groups(codes, groups)[0])
        everything = np.arange(len(codes))
        if n_splits < 2:
            return Labelled(rows, codes, weight, everything, everything)
        folds = grouped_folds(codes, groups, n_splits, self.random_state)
        return Labelled(rows, codes, weight, *folds[0])

    def _batches(
        self, data: Labelled, batch_size: int, rng: np.random.Generator
    ) -> Iterator[tuple[Int, Single]]:
        """Yield shuffled batches: an eighth of the memory waits, a sixteenth is in work."""
        memory, d = self.max_memory or available_memory(), data.rows.shape[1]
        return shuffled_batches(
            data.rows,
            data.chosen,
            batch=max(8, min(batch_size, memory // (16 * 4 * d))),
            buffer_rows=max(_CHUNK, memory // (8 * d * data.rows.itemsize)),
            rng=rng,
        )


def chunks(rows: Rows, wanted: Int) -> Iterator[tuple[Int, NDArray[Any]]]:
    """Yield ``(positions, block)`` of the wanted positions, as stored, in reading order."""
    for first in range(0, len(wanted), _CHUNK):
        part = wanted[first : first + _CHUNK]
        for inside, block in rows.take(part).blocks(_CHUNK):
            yield part[inside], block


def shuffled_batches(
    rows: Rows, wanted: Int, *, batch: int, buffer_rows: int, rng: np.random.Generator
) -> Iterator[tuple[Int, Single]]:
    """Yield ``(positions, block)`` in random order: shuffled chunks through a shuffled buffer.

    Chunks of neighbouring rows are read in random order into a buffer of `buffer_rows` rows;
    batches are drawn from it at random whenever it is full.
    """
    chunk = max(_CHUNK // 2, min(4 * _CHUNK, buffer_rows // 2))
    parts = [np.sort(wanted)[i : i + chunk] for i in range(0, len(wanted), chunk)]
    rng.shuffle(parts)
    positions: list[Int] = []
    blocks: list[NDArray[Any]] = []
    for number, part in enumerate(parts):
        for inside, block in rows.take(part).blocks(chunk):
            positions.append(part[inside])
            blocks.append(block)
        if sum(map(len, positions)) < buffer_rows and number + 1 < len(parts):
            continue
        where = [(b, i) for b, block in enumerate(blocks) for i in range(len(block))]
        rng.shuffle(where)
        for first in range(0, len(where), batch):
            picked = where[first : first + batch]
            yield (
                np.array([positions[b][i] for b, i in picked]),
                widened(np.stack([blocks[b][i] for b, i in picked])).astype(np.float32),
            )
        positions, blocks = [], []


class StreamedLinear(StreamedHead):
    """Logistic regression or a linear SVM (one against the rest), by mini-batches and Adam.

    All penalties are trained side by side on the same batches.

    Parameters
    ----------
    loss : {"logistic", "squared_hinge"}
    C : float or sequence of float
        Inverse penalty for features of mean squared norm 1; of several the best is chosen.
    epochs : int
    batch_size : int
        Fewer rows if they would take more than a sixteenth of the memory.
    class_weight : dict or "balanced", optional
    max_memory : int, optional
        Bytes; an eighth of it is the shuffle buffer.
    random_state : int

    Attributes
    ----------
    coef_ : ndarray of shape (k, d)
    intercept_ : ndarray of shape (k,)
    C_ : float
    """

    def __init__(
        self,
        loss: str = "logistic",
        *,
        C: float | Sequence[float] = logreg.PENALTIES,
        epochs: int = 10,
        batch_size: int = 128,
        class_weight: ClassWeight = None,
        max_memory: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.loss = loss
        self.C = C
        self.epochs = epochs
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.max_memory = max_memory
        self.random_state = random_state

    def _fit(self, data: Labelled) -> Self:
        mean, extent = moments(data)
        grid = np.atleast_1d(np.asarray(self.C, dtype=np.float64))
        judged = [
            self._train(data, part, mean, extent).judge(data, len(self.classes_))
            for part in np.array_split(grid, self._passes(data, len(grid)))
        ]
        accuracy = np.concatenate([accuracy for accuracy, _ in judged])
        scores = np.concatenate([scores for _, scores in judged], axis=2)
        best = int(np.argmax(accuracy))
        self.C_ = float(grid[best])
        self.temperature_ = (
            1.0
            if self.loss == "logistic"
            else temperature(data.codes[data.held], scores[..., best].astype(np.float64))
        )
        last = self._train(data.everything(), grid[[best]], mean, extent)
        self.coef_ = (last.W[..., 0].T / extent).astype(np.float64)
        self.intercept_ = last.b[:, 0] - self.coef_ @ mean
        self.chosen_ = {"C": self.C_}
        return self

    def _scores(self, X: Single) -> Float:
        scores: Float = (X @ self.coef_.T.astype(np.float32)) + self.intercept_
        return scores / self.temperature_

    def _passes(self, data: Labelled, penalties: int) -> int:
        """Return in how many parts penalties are trained, so that weights take half the memory."""
        memory = self.max_memory or available_memory()
        one = 20 * data.rows.shape[1] * len(self.classes_)  # weights, gradient, moments, scratch
        if one > memory:
            raise HeadError(
                f"a linear head on {data.rows.shape[1]:,} features takes {one / 1e6:,.0f} MB to "
                "train: use --pool avg, or a larger --max-memory"
            )
        return -(-penalties // max(1, memory // (2 * one)))

    def _train(self, data: Labelled, grid: Float, mean: Single, extent: float) -> _Weights:
        """Return the weights of all penalties."""
        k, d = len(self.classes_), data.rows.shape[1]
        weights = _Weights.zero(d, k, len(grid), mean, extent)
        rng = np.random.default_rng(self.random_state)
        total, seen = self.epochs * len(data.chosen), 0
        # A softmax of two columns, where others have one: half of C gives the same classifier.
        columns = 2 if k == 2 and self.loss == "logistic" else 1
        share = columns / (grid * data.weight[data.chosen].sum())
        mean_weight = data.weight[data.chosen].mean()
        for _ in range(self.epochs):
            for positions, X in self._batches(data, self.batch_size, rng):
                weight = (data.weight[positions] / mean_weight / len(positions)).astype(np.float32)
                slope = _SLOPES[self.loss](weights.scores(X), data.codes[positions])
                rate = _STEP / np.sqrt(d) * 0.5 * (1 + np.cos(np.pi * seen / total))
                weights.step(X, slope * weight[:, None, None], share, rate)
                seen += len(positions)
        return weights


def _softmax_slope(scores: Single, codes: Int) -> Single:
    """Return the gradient of the cross-entropy in the scores ``(b, k, P)``."""
    p: Single = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(codes)), codes] -= 1
    return p


def _hinge_slope(scores: Single, codes: Int) -> Single:
    """Return the gradient of the squared hinge loss, one class against the rest."""
    sign = np.where(np.arange(scores.shape[1]) == codes[:, None], 1, -1)[..., None]
    slope: Single = (-2 * sign * np.maximum(1 - sign * scores, 0)).astype(np.float32)
    return slope


_SLOPES = {"logistic": _softmax_slope, "squared_hinge": _hinge_slope}


@dataclass
class _Weights:
    """Weights W ``(d, k, P)`` and b ``(k, P)`` on centred, scaled rows, and Adam's moments."""

    W: Single
    b: Single
    mean: Single
    extent: float
    moments: list[Single]
    steps: int = 0

    @classmethod
    def zero(cls, d: int, k: int, P: int, mean: Single, extent: float) -> _Weights:
        W, b = np.zeros((d, k, P), np.float32), np.zeros((k, P), np.float32)
        return cls(W, b, mean, extent, [np.zeros_like(a) for a in (W, W, b, b)])

    def scores(self, X: Single) -> Single:
        """Return the scores ``(b, k, P)`` of rows; `X` is centred and scaled in place."""
        X -= self.mean
        X /= np.float32(self.extent)
        d, k, P = self.W.shape
        scores: Single = (X @ self.W.reshape(d, -1)).reshape(-1, k, P) + self.b
        return scores

    def step(self, X: Single, slope: Single, penalty: Float, rate: float) -> None:
        """Take one step of Adam along the gradient."""
        self.steps += 1
        gradient = (X.T @ slope.reshape(len(X), -1)).reshape(self.W.shape)
        gradient += penalty.astype(np.float32) * self.W
        rate *= np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        _adam(self.W, gradient, self.moments[:2], rate)
        _adam(self.b, slope.sum(0), self.moments[2:], rate)

    def judge(self, data: Labelled, n_classes: int) -> tuple[Float, Single]:
        """Return the accuracy of every penalty on held-out rows, and their scores."""
        result = np.empty((len(data.held), n_classes, self.W.shape[2]), np.float32)
        place = {int(position): i for i, position in enumerate(data.held)}
        for positions, block in chunks(data.rows, data.held):
            result[[place[int(p)] for p in positions]] = self.scores(
                widened(block).astype(np.float32, copy=False)
            )
        right = result.argmax(1) == data.codes[data.held, None]
        return right.mean(0), result


def _adam(value: Single, gradient: Single, moments: list[Single], rate: float) -> None:
    """Move `value` in place, and Adam's two moments with it."""
    first, second = moments
    scratch = gradient * np.float32(0.1)  # the only copy: weights are what memory goes to
    first *= np.float32(0.9)
    first += scratch
    np.multiply(gradient, gradient, out=scratch)
    scratch *= np.float32(0.001)
    second *= np.float32(0.999)
    second += scratch
    np.sqrt(second, out=scratch)
    scratch += np.float32(1e-12)
    np.divide(first, scratch, out=scratch)
    scratch *= np.float32(rate)
    value -= scratch


def moments(data: Labelled) -> tuple[Single, float]:
    """Return the mean of the rows ``(d,)``, and the root of the mean squared norm."""
    total = np.zeros(data.rows.shape[1])
    squares = 0.0
    for _, block in data.rows.blocks(_CHUNK):
        wide = widened(block)
        total += wide.sum(0, dtype=np.float64)
        squares += float(np.einsum("ij,ij->", wide, wide, dtype=np.float64))
    n = data.rows.shape[0]
    return (total / n).astype(np.float32), float(np.sqrt(squares / n)) or 1.0


class StreamedRidge(StreamedHead):
    """Ridge regression in closed form from a covariance that is summed up block by block.

    For few features (pooled ones): the covariance ``(d, d)`` has to fit.

    Parameters
    ----------
    alpha : float or sequence of float
        Penalty for features of mean squared norm 1; of several the best is chosen.
    class_weight : dict or "balanced", optional
    max_memory : int, optional
    random_state : int
    """

    def __init__(
        self,
        alpha: float | Sequence[float] = ridge.PENALTIES,
        *,
        class_weight: ClassWeight = None,
        max_memory: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.alpha = alpha
        self.class_weight = class_weight
        self.max_memory = max_memory
        self.random_state = random_state

    def _fit(self, data: Labelled) -> Self:
        d = data.rows.shape[1]
        if 40 * d * d > (self.max_memory or available_memory()):
            raise HeadError(
                f"ridge past memory needs the covariance of {d:,} features, "
                f"{40 * d * d / 1e9:.1f} GB: use --pool avg, or a larger --max-memory"
            )
        held = np.zeros(len(data.codes), dtype=bool)
        held[data.held] = len(data.held) < len(data.codes)
        sums = [_Sums.zero(d, len(self.classes_)) for _ in range(2)]
        for positions, block in data.rows.blocks(1024):
            for part, total in zip((~held, held), sums, strict=True):
                mine = part[positions]
                total.add(block[mine], data.codes[positions[mine]], data.weight[positions[mine]])
        penalties = sorted((float(a) for a in np.atleast_1d(self.alpha)), reverse=True)
        candidates = sums[0].solve(penalties)
        scores = np.empty((len(penalties), len(data.held), len(self.classes_)))
        place = np.empty(len(data.codes), dtype=np.int64)
        place[data.held] = np.arange(len(data.held))
        for positions, block in chunks(data.rows, data.held):
            for number, (W, b) in enumerate(candidates):
                scores[number, place[positions]] = widened(block) @ W + b
        accuracy = (scores.argmax(2) == data.codes[data.held]).mean(1)
        best = int(np.argmax(accuracy))
        self.alpha_ = penalties[best]
        self.temperature_ = temperature(data.codes[data.held], scores[best])
        W, b = (sums[0] + sums[1]).solve([self.alpha_])[0]
        self.coef_, self.intercept_ = W.T, b
        self.chosen_ = {"alpha": self.alpha_}
        return self

    def _scores(self, X: Single) -> Float:
        scores: Float = (X @ self.coef_.T + self.intercept_) / self.temperature_
        return scores


@dataclass
class _Sums:
    """Weighted sums over rows x and targets t: all that least squares needs."""

    xx: Float
    xt: Float
    x: Float
    t: Float
    weight: float

    @classmethod
    def zero(cls, d: int, k: int) -> _Sums:
        return cls(np.zeros((d, d)), np.zeros((d, k)), np.zeros(d), np.zeros(k), 0.0)

    def add(self, block: NDArray[Any], codes: Int, weight: Float) -> None:
        """Count some rows in."""
        X = widened(block)
        target = np.where(codes[:, None] == np.arange(len(self.t)), 1.0, -1.0)
        weighted = X * weight[:, None]
        self.xx += X.T @ weighted
        self.xt += weighted.T @ target
        self.x += weighted.sum(0)
        self.t += weight @ target
        self.weight += float(weight.sum())

    def __add__(self, other: _Sums) -> _Sums:
        """Return the sums over the rows of both."""
        mine, theirs = vars(self), vars(other)
        return _Sums(**{name: mine[name] + theirs[name] for name in mine})

    def solve(self, penalties: list[float]) -> list[tuple[Float, Float]]:
        """Return weights ``(d, k)`` and intercepts ``(k,)`` for each penalty."""
        mean, base = self.x / self.weight, self.t / self.weight
        square = float(np.trace(self.xx)) / self.weight or 1.0  # the mean squared norm
        values, V = scipy.linalg.eigh(self.xx - self.weight * np.outer(mean, mean))
        inner = V.T @ (self.xt - self.weight * np.outer(mean, base))
        result = []
        for alpha in penalties:
            W = V @ (inner / (np.maximum(values, 0) + alpha * square)[:, None])
            result.append((W, base - mean @ W))
        return result


class StreamedDense(StreamedHead):
    """The dense head on the features themselves, from mini-batches that are read as needed.

    Parameters
    ----------
    units, dropout, learning_rate, batch_size, epochs, patience
        As in ``DenseHead(plain=True)``.
    class_weight : dict or "balanced", optional
    max_memory : int, optional
    random_state : int
    """

    def __init__(
        self,
        *,
        units: int = 1024,
        dropout: float = 0.2,
        learning_rate: float = 1e-4,
        batch_size: int = 32,
        epochs: int = 30,
        patience: int = 3,
        class_weight: ClassWeight = None,
        max_memory: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.units = units
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.class_weight = class_weight
        self.max_memory = max_memory
        self.random_state = random_state

    def prepare(self) -> None:
        """Start Keras."""
        import_keras()

    def _fit(self, data: Labelled) -> Self:
        d = data.rows.shape[1]
        # Weights and the best ones, their gradient, Adam's two moments.
        needed = 20 * d * self.units
        if needed > (self.max_memory or available_memory()):
            raise HeadError(
                f"the dense head on {d:,} features takes {needed / 1e9:.1f} GB to train: use "
                "--pool avg, or a larger --max-memory"
            )
        self.prepare()
        from headstart.heads.stack import Network, Schedule, train_on_batches

        self.unit_ = moments(data)[1] / float(np.sqrt(d))
        rng = np.random.default_rng(self.random_state)

        def batches() -> Iterator[tuple[NDArray[Any], Int, Float]]:
            for positions, X in self._batches(data, self.batch_size, rng):
                yield X / np.float32(self.unit_), data.codes[positions], data.weight[positions]

        def held() -> Iterator[tuple[NDArray[Any], Int, Float]]:
            for positions, block in chunks(data.rows, data.held):
                X = widened(block).astype(np.float32) / np.float32(self.unit_)
                yield X, data.codes[positions], data.weight[positions]

        trained = train_on_batches(
            (d, len(self.classes_)),
            Network(self.units, self.dropout, self.learning_rate, self.random_state),
            Schedule(self.batch_size, self.epochs, self.patience),
            batches,
            held,
        )
        self.weights_, self.chosen_ = trained.weights, {"epochs": trained.epoch}
        return self

    def _scores(self, X: Single) -> Float:
        inner, bias, outer, last = self.weights_
        scores = np.maximum((X / np.float32(self.unit_)) @ inner + bias, 0) @ outer + last
        if scores.shape[1] == 1:
            scores = np.column_stack([np.zeros(len(X)), scores])
        return np.asarray(scores, dtype=np.float64)


#: The heads that can be trained past memory, by the names of the others.
STREAMED: dict[str, tuple[type[StreamedHead], dict[str, Any]]] = {
    "logreg": (StreamedLinear, {"loss": "logistic"}),
    "svm": (StreamedLinear, {"loss": "squared_hinge", "C": svm.PENALTIES}),
    "ridge": (StreamedRidge, {}),
    "dense": (StreamedDense, {}),
}
