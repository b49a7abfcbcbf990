"""Heads for more rows than memory holds: they read the store again and again, block by block."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from dataclasses import dataclass
from functools import reduce
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
import scipy.linalg
from sklearn.utils.class_weight import compute_class_weight

from headstart._keras import import_keras
from headstart.cache import widened
from headstart.errors import HeadError
from headstart.heads import logreg, ridge, svm
from headstart.heads.base import Head, Training, softmax
from headstart.heads.folds import best, fewest_groups, grouped_folds
from headstart.heads.gram import ArrayRows
from headstart.heads.logistic import SOLVER_BYTES
from headstart.heads.metrics import temperature
from headstart.heads.rows import FeatureRows
from headstart.heads.rowspace import (
    CompactSpace,
    available_memory,
    compact_memory,
    megabytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.heads.base import ClassWeight
    from headstart.heads.folds import Folds
    from headstart.heads.gram import Rows

    Float = NDArray[np.float64]
    Single = NDArray[np.float32]
    Int = NDArray[np.int64]

#: Rows read at once: neighbours, which lie in one shard.
_CHUNK = 16
#: Adam's step for features of mean squared norm 1, times the root of how many they are.
_STEP = 6.0
#: Bytes of a number that is trained: itself, two moments, and as much for what they are made from.
_COLUMN_BYTES = 20
#: Numbers that take a step at a time.
_STEPPED = 2**16
#: Batches an epoch, of rows that are few, and rows in the smallest batch.
_BATCHES, _SMALLEST = 200, 16
#: Adam's step where the penalty is large, as a share of where weights are drawn from zero.
_NEAR = 0.2
#: Held-out rows on which hyperparameters are judged, if there are as many: on a hundred rows chance
#: would choose.
_ENOUGH = 2000
#: Folds of ridge regression past memory.
_FOLDS = 5
#: Bytes that the first of them takes for each two features: sums of it, of the rest, of all and of
#: all others, these centred, their eigenvectors, and a little more; and each further fold.
_COVARIANCE_BYTES = 52
_FOLD_BYTES = 9
#: Rows up to which logistic regression takes inner products: beyond, mini-batches are faster.
_MOST_EXACT = 10_000


def _nobody(share: float) -> None:
    """Tell nobody which share of a fit is done."""


@dataclass(frozen=True)
class Labelled:
    """Rows of a store with what is known of them: class numbers, weights, groups.

    `tell` is called with the share of the fit on them that is done.
    """

    rows: Rows
    codes: Int
    weight: Float
    groups: NDArray[Any] | None
    tell: Callable[[float], None] = _nobody

    def folds(self, n_splits: int, seed: int, *, enough: int = 1) -> Folds:
        """Return the first of some folds: as many as hold `enough` held-out rows together.

        Grouped and stratified; fewer where a class has fewer groups. If it has only one, all rows
        are on both sides.
        """
        n = len(self.codes)
        n_splits = min(n_splits, fewest_groups(self.codes, self.groups)[0])
        if n_splits < 2:
            return [(np.arange(n), np.arange(n))]
        judged = min(n_splits, -(-enough * n_splits // n))
        return grouped_folds(self.codes, self.groups, n_splits, seed)[:judged]


class StreamedHead(Head):
    """A head that is trained on rows it never holds all at once.

    Training rows are held out, in as many grouped and stratified folds as give some thousands of
    them, to choose hyperparameters; the chosen ones are then trained on all rows.
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
        self.require_memory(rows.X.shape, len(self.classes_))
        return self._fit(Labelled(ArrayRows(rows.X), rows.codes, rows.weight, rows.groups))

    def fit_rows(
        self,
        rows: Rows,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        progress: Callable[[float], None] = _nobody,
    ) -> Self:
        """Train on rows of a store, block by block; `progress` is told the share that is done."""
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise HeadError("a classifier needs rows of two classes or more; found 1 class")
        self.n_features_in_ = rows.shape[1]
        weight = compute_class_weight(self.class_weight, classes=self.classes_, y=y)[codes]
        kept = None if groups is None else np.asarray(groups)
        self.require_memory(rows.shape, len(self.classes_))
        with _read_once(rows) as ready:
            return self._fit(Labelled(ready, codes, weight, kept, progress))

    def require_memory(self, shape: tuple[int, int], classes: int) -> None:
        """Refuse training rows ``(n, d)`` that need more memory than may be used.

        Raises
        ------
        HeadError
            Saying what takes how much.
        """
        needed, what = self._needed(shape, classes)
        if needed > self._memory:
            raise HeadError(
                f"{what} takes {megabytes(needed)} to train, and {megabytes(self._memory)} may be "
                "used: use --pool avg where features are maps, or a larger --max-memory"
            )

    @property
    def _memory(self) -> int:
        return self.max_memory or available_memory()

    def _needed(self, shape: tuple[int, int], classes: int) -> tuple[int, str]:
        """Return the least bytes in which it can be trained, and the name of what takes them."""
        raise NotImplementedError

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

    def _batches(
        self, rows: Rows, wanted: Int, batch_size: int, rng: np.random.Generator
    ) -> Iterator[tuple[Int, Single]]:
        """Yield shuffled batches: an eighth of the memory waits, a sixteenth is in work."""
        memory, d = self._memory, rows.shape[1]
        return shuffled_batches(
            rows,
            wanted,
            batch=max(8, min(batch_size, memory // (16 * 4 * d))),
            buffer_rows=max(_CHUNK, memory // (8 * d * rows.itemsize)),
            rng=rng,
        )


class _FileRows:
    """Rows ``(n, d)`` in float32 in a file of their own, which holds nothing else."""

    itemsize = 4

    def __init__(self, file: IO[bytes], positions: Int, d: int) -> None:
        self._file, self._positions = file, positions
        self.shape = (len(positions), d)

    def take(self, positions: slice | Int) -> _FileRows:
        """Return some of the rows."""
        return _FileRows(self._file, self._positions[positions], self.shape[1])

    def blocks(self, block_rows: int = 256) -> Iterator[tuple[Int, NDArray[Any]]]:
        """Yield ``(positions, block)``, each row once; rows in between are read and passed over."""
        order = np.argsort(self._positions, kind="stable")
        for start in range(0, len(order), block_rows):
            part = order[start : start + block_rows]
            at = self._positions[part]
            self._file.seek(int(at[0]) * 4 * self.shape[1])
            span = self._file.read((int(at[-1] - at[0]) + 1) * 4 * self.shape[1])
            yield part, np.frombuffer(span, np.float32).reshape(-1, self.shape[1])[at - at[0]]

    def load(self) -> NDArray[Any]:
        """Return all rows."""
        result = np.empty(self.shape, np.float32)
        for positions, block in self.blocks():
            result[positions] = block
        return result


@contextlib.contextmanager
def _read_once(rows: Rows) -> Iterator[Rows]:
    """Give rows that are pooled as they are read from a temporary file; others as they are.

    To pool a row its whole map is read, dozens of times its size, and a fit reads each row some
    twenty times. Where the file cannot be written, they are.
    """
    if not isinstance(rows, FeatureRows) or not rows.pooled_when_read:
        yield rows
        return
    folder = rows.store.derived
    with contextlib.ExitStack() as stack:
        ready: Rows = rows
        try:
            place = folder if folder and folder.is_dir() else None
            file = stack.enter_context(tempfile.TemporaryFile(dir=place))
            _write_rows(rows, file)
            ready = _FileRows(file, np.arange(len(rows)), rows.shape[1])
        except OSError:  # a full disk or a read-only store: it is only a cache
            with contextlib.suppress(OSError):  # closing writes what is left
                stack.close()
        yield ready


def _write_rows(rows: FeatureRows, file: IO[bytes]) -> None:
    for positions, block in rows.blocks(_rows_at_once(rows)):
        for position, row in zip(positions, widened(block), strict=True):
            file.seek(int(position) * row.nbytes)
            file.write(row.tobytes())
    file.flush()


def chunks(
    rows: Rows, wanted: Int, memory: int | None = None
) -> Iterator[tuple[Int, NDArray[Any]]]:
    """Yield ``(positions, block)`` of the wanted positions, as stored, in reading order."""
    chunk = _rows_at_once(rows, memory)
    for first in range(0, len(wanted), chunk):
        part = wanted[first : first + chunk]
        for inside, block in rows.take(part).blocks(chunk):
            yield part[inside], block


def _rows_at_once(rows: Rows, memory: int | None = None) -> int:
    """Return how many rows to read at once: few, or a megabyte of them or 1/16 of the memory."""
    most = 2**20 if memory is None else min(2**20, memory // 16)
    width = rows.width_read if isinstance(rows, FeatureRows) else rows.shape[1]
    return max(_CHUNK, most // (4 * width))


def shuffled_batches(
    rows: Rows, wanted: Int, *, batch: int, buffer_rows: int, rng: np.random.Generator
) -> Iterator[tuple[Int, Single]]:
    """Yield ``(positions, block)`` in random order: shuffled chunks through a shuffled buffer.

    Chunks of neighbouring rows are read in random order into a buffer of `buffer_rows` rows;
    batches are drawn from it at random whenever it is full.
    """
    wanted = np.sort(wanted)
    chunk = max(
        _CHUNK // 2, min(4 * _CHUNK, buffer_rows // 2), min(buffer_rows, len(wanted)) // _CHUNK
    )
    parts = [wanted[i : i + chunk] for i in range(0, len(wanted), chunk)]
    rng.shuffle(parts)
    size = min(buffer_rows + chunk, len(wanted))
    waiting, positions, filled = None, np.empty(size, dtype=np.int64), 0
    for number, part in enumerate(parts):
        for inside, block in rows.take(part).blocks(chunk):
            if waiting is None:
                waiting = np.empty((size, block.shape[1]), block.dtype)
            after = filled + len(block)
            waiting[filled:after], positions[filled:after] = block, part[inside]
            filled = after
        if waiting is None or (filled < buffer_rows and number + 1 < len(parts)):
            continue
        order = rng.permutation(filled)
        for first in range(0, filled, batch):
            picked = order[first : first + batch]
            yield positions[picked], widened(waiting[picked]).astype(np.float32, copy=False)
        filled = 0


class StreamedLinear(StreamedHead):
    """Logistic regression or a linear SVM (one against the rest), past memory.

    Logistic regression of so few rows that their inner products fit is solved exactly, to float32,
    as `LogisticHead` does on coordinates in the span of its own training rows. Else, by
    mini-batches and Adam: all penalties and folds side by side on the same batches, where a row
    that a fold holds out has no weight in that fold's columns.

    Parameters
    ----------
    loss : {"logistic", "squared_hinge"}
    C : float or sequence of float
        Inverse penalty for features of mean squared norm 1; of several the best is chosen.
    cv : int
        Folds in which it is chosen; only the first of many rows.
    epochs : int
    batch_size : int
        Fewer of few rows, or if they would take more than a sixteenth of the memory.
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
        cv: int = 5,
        epochs: int = 10,
        batch_size: int = 128,
        class_weight: ClassWeight = None,
        max_memory: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.loss = loss
        self.C = C
        self.cv = cv
        self.epochs = epochs
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.max_memory = max_memory
        self.random_state = random_state

    def _fit(self, data: Labelled) -> Self:
        grid = np.atleast_1d(np.asarray(self.C, dtype=np.float64))
        self.temperature_ = 1.0
        if self._fits_exactly(data.rows.shape, len(self.classes_)):
            return self._fit_exactly(data)
        known = moments(data)
        mean, extent = known.mean, known.extent
        chosen, passes = 0, 0
        if len(grid) > 1 or self.loss != "logistic":
            chosen, passes = self._choose(data, grid, known)
        self.C_ = float(grid[chosen])
        everything = np.ones((len(data.codes), 1), dtype=bool)
        last = self._train(data, everything, grid[[chosen]], known, (passes, passes + 1))
        self.coef_ = (last.W[..., 0].T / extent).astype(np.float64)
        self.intercept_ = last.b[:, 0] - self.coef_ @ mean
        self.chosen_ = {"C": self.C_}
        return self

    def _scores(self, X: Single) -> Float:
        scores: Float = (X @ self.coef_.T.astype(np.float32)) + self.intercept_
        return scores / self.temperature_

    def _needed(self, shape: tuple[int, int], classes: int) -> tuple[int, str]:
        exact = self._fits_exactly(shape, classes)
        one = 0 if exact else _COLUMN_BYTES * shape[1] * classes
        return one, f"a linear head on {shape[1]:,} features"

    def _fits_exactly(self, shape: tuple[int, int], classes: int) -> bool:
        """Return whether coordinates, and what their solver keeps, fit in three quarters."""
        n, d = shape
        columns = classes * np.size(self.C) * self.cv
        needed = compact_memory(n) + SOLVER_BYTES * n * columns
        small = n <= min(d, _MOST_EXACT) and 4 * needed <= 3 * self._memory
        return small and self.loss == "logistic"

    def _fit_exactly(self, data: Labelled) -> Self:
        """Choose and fit on coordinates of the training rows."""
        space, k = CompactSpace(data.rows, self._memory, data.tell), len(self.classes_)
        head = logreg.LogisticHead(self.C, cv=self.cv, random_state=self.random_state)
        used = np.ones(len(data.codes), dtype=bool)
        head.fit_coordinates(
            space.coordinates,
            Training(space.coordinates, data.codes, data.weight, np.ones(k), data.groups, used),
        )
        coef, intercept = head.coef_, head.intercept_
        if k == 2:  # one column there, two here
            coef, intercept = (np.concatenate([-a, a]) / 2 for a in (coef, intercept))
        self.coef_, self.intercept_ = space.back(coef, intercept)
        self.C_, self.chosen_ = head.C_, head.chosen_
        return self

    def _choose(self, data: Labelled, grid: Float, known: Moments) -> tuple[int, int]:
        """Return the number of the penalty with the highest mean accuracy on held-out rows.

        And in how many passes that was found.
        """
        folds = data.folds(self.cv, self.random_state, enough=_ENOUGH)
        trained = np.zeros((len(data.codes), len(folds)), dtype=bool)
        fold_of = np.full(len(data.codes), -1)
        for number, (train, test) in enumerate(folds):
            trained[train, number], fold_of[test] = True, number
        judged = np.flatnonzero(fold_of >= 0)
        right = np.zeros((len(folds), len(grid)))
        shape = (len(grid), len(judged), len(self.classes_))
        kept = np.empty(shape if self.loss != "logistic" else (0, 0, 0), np.float32)
        columns = [(f, c) for c in range(len(grid)) for f in range(len(folds))]
        passes = self._passes(data, len(columns))
        for number, part in enumerate(np.array_split(columns, passes)):
            stage = (number, passes + 1)
            weights = self._train(data, trained[:, part[:, 0]], grid[part[:, 1]], known, stage)
            for positions, block in chunks(data.rows, judged):
                scores = weights.scores(widened(block).astype(np.float32))
                for p, (f, c) in enumerate(part):
                    mine = fold_of[positions] == f
                    seen = positions[mine]
                    right[f, c] += (scores[mine, :, p].argmax(1) == data.codes[seen]).sum()
                    if kept.size:
                        kept[c, np.searchsorted(judged, seen)] = scores[mine, :, p]
        chosen = best(right / np.bincount(fold_of[judged])[:, None])
        if kept.size:
            self.temperature_ = temperature(data.codes[judged], kept[chosen].astype(np.float64))
        return chosen, passes

    def _passes(self, data: Labelled, columns: int) -> int:
        """Return in how many parts columns are trained, so that weights take half the memory."""
        one = _COLUMN_BYTES * data.rows.shape[1] * len(self.classes_)
        return -(-columns // max(1, self._memory // (2 * one)))

    def _train(
        self,
        data: Labelled,
        trained: NDArray[np.bool_],
        penalties: Float,
        known: Moments,
        stage: tuple[int, int],
    ) -> _Weights:
        """Return the weights of all columns, each of its own `trained` rows ``(n, P)``.

        It is the training of this number, of so many.
        """
        k, d = len(self.classes_), data.rows.shape[1]
        weights = _Weights.zero(d, k, len(penalties), known.mean, known.extent)
        rng = np.random.default_rng(self.random_state)
        read = np.flatnonzero(trained.any(1))
        total, seen = self.epochs * len(read), 0
        # A softmax of two columns, where others have one: half of C gives the same classifier.
        columns = 2 if k == 2 and self.loss == "logistic" else 1
        sums = data.weight @ trained
        share = (columns / (penalties * sums)).astype(np.float32)
        relative = len(read) / sums
        # With a small C weights end near the first gradient over the penalty: steps of that size.
        most = np.minimum(_STEP / np.sqrt(d), _NEAR * known.pull / share).astype(np.float32)
        batch = min(self.batch_size, max(_SMALLEST, len(read) // _BATCHES))
        for _ in range(self.epochs):
            for positions, X in self._batches(data.rows, read, batch, rng):
                weight = data.weight[positions, None] * trained[positions] * relative
                slope = _SLOPES[self.loss](weights.scores(X), data.codes[positions])
                slope *= (weight / len(positions)).astype(np.float32)[:, None]
                weights.step(X, slope, share, most * 0.5 * (1 + np.cos(np.pi * seen / total)))
                seen += len(positions)
                data.tell((stage[0] + seen / total) / stage[1])
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

    def step(self, X: Single, slope: Single, penalty: Single, rate: Float) -> None:
        """Take one step of Adam along the gradient."""
        self.steps += 1
        rate = rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        flat, some = slope.reshape(len(X), -1), max(1, _STEPPED // slope[0].size)
        for first in range(0, len(self.W), some):  # a part that stays in the caches
            part = slice(first, first + some)
            W = self.W[part]
            gradient = (X[:, part].T @ flat).reshape(W.shape)
            gradient += penalty * W
            _adam(W, gradient, [moment[part] for moment in self.moments[:2]], rate)
        _adam(self.b, slope.sum(0), self.moments[2:], rate)


def _adam(value: Single, gradient: Single, moments: list[Single], rate: Float) -> None:
    """Move `value` in place, and Adam's two moments with it."""
    first, second = moments
    scratch = gradient * np.float32(0.1)
    first *= np.float32(0.9)
    first += scratch
    np.multiply(gradient, gradient, out=scratch)
    scratch *= np.float32(0.001)
    second *= np.float32(0.999)
    second += scratch
    np.sqrt(second, out=scratch)
    scratch += np.float32(1e-12)
    np.divide(first, scratch, out=scratch)
    scratch *= rate.astype(np.float32)
    value -= scratch


@dataclass(frozen=True)
class Moments:
    """What one pass over the rows tells of them.

    Attributes
    ----------
    mean : ndarray of shape (d,), float32
    extent : float
        Root of the mean squared norm.
    pull : float
        Root of the mean square of the gradient of the mean loss in the weights, at zero weights, of
        rows that are centred and divided by their extent.
    """

    mean: Single
    extent: float
    pull: float


def moments(data: Labelled) -> Moments:
    """Return the mean of the rows, their extent, and how strongly they pull weights from zero."""
    sums = np.zeros((int(data.codes.max()) + 1, data.rows.shape[1]))
    squares = 0.0
    for positions, block in data.rows.blocks(_rows_at_once(data.rows)):
        wide, codes = widened(block), data.codes[positions]
        for code in np.unique(codes):
            sums[code] += wide[codes == code].sum(0, dtype=np.float64)
        squares += float(np.einsum("ij,ij->", wide, wide, dtype=np.float64))
    n = data.rows.shape[0]
    mean, extent = sums.sum(0) / n, float(np.sqrt(squares / n)) or 1.0
    sums -= np.bincount(data.codes)[:, None] * mean
    return Moments(mean.astype(np.float32), extent, float(np.sqrt(np.mean(sums**2))) / n / extent)


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
        d, memory = data.rows.shape[1], self._memory
        needed = self._needed(data.rows.shape, len(self.classes_))[0]
        penalties = sorted((float(a) for a in np.atleast_1d(self.alpha)), reverse=True)
        # Sums of each fold, and of the rest; a fold is trained on the sums of all others.
        room = 1 + (memory - needed) // (_FOLD_BYTES * d * d)
        folds = data.folds(_FOLDS, self.random_state, enough=_ENOUGH)[:room]
        part_of = np.full(len(data.codes), len(folds))
        for number, (_, test) in enumerate(folds):
            part_of[test] = number
        judged = np.flatnonzero(part_of < len(folds))
        sums = [_Sums.zero(d, len(self.classes_)) for _ in range(len(folds) + 1)]
        read = 0
        for positions, block in data.rows.blocks(_rows_at_once(data.rows, memory)):
            read += len(positions)
            data.tell(read / len(data.codes))
            for number, total in enumerate(sums):
                mine = part_of[positions] == number
                if mine.any():
                    at = positions[mine]
                    total.add(block[mine], data.codes[at], data.weight[at])
        everything = reduce(_Sums.__add__, sums)
        apart = len(judged) < len(data.codes) or len(folds) > 1
        candidates = [
            (everything - total if apart else everything).solve(penalties) for total in sums[:-1]
        ]
        del sums
        scores = np.empty((len(penalties), len(judged), len(self.classes_)))
        for positions, block in chunks(data.rows, judged, memory):
            X, place = widened(block), np.searchsorted(judged, positions)
            for number, solutions in enumerate(candidates):
                mine = part_of[positions] == number
                for p, (W, b) in enumerate(solutions):
                    scores[p, place[mine]] = X[mine] @ W + b
        chosen = int(np.argmax((scores.argmax(2) == data.codes[judged]).mean(1)))
        self.alpha_ = penalties[chosen]
        self.temperature_ = temperature(data.codes[judged], scores[chosen])
        W, b = everything.solve([self.alpha_])[0]
        self.coef_, self.intercept_ = W.T, b
        self.chosen_ = {"alpha": self.alpha_}
        return self

    def _needed(self, shape: tuple[int, int], classes: int) -> tuple[int, str]:
        del classes
        d = shape[1]
        words = f"ridge past memory, from the covariance of {d:,} features,"
        return _COVARIANCE_BYTES * d * d, words

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

    def __sub__(self, other: _Sums) -> _Sums:
        """Return the sums without the rows of the other."""
        mine, theirs = vars(self), vars(other)
        return _Sums(**{name: mine[name] - theirs[name] for name in mine})

    def solve(self, penalties: list[float]) -> list[tuple[Float, Float]]:
        """Return weights ``(d, k)`` and intercepts ``(k,)`` for each penalty."""
        mean, base = self.x / self.weight, self.t / self.weight
        square = float(np.trace(self.xx)) / self.weight or 1.0  # the mean squared norm
        centred = np.outer(mean, -self.weight * mean)
        centred += self.xx
        # Symmetric: the transpose lies as Fortran has it, and is overwritten without a copy.
        values, V = scipy.linalg.eigh(centred.T, overwrite_a=True, check_finite=False)
        del centred
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
        self.prepare()
        from headstart.heads.stack import Network, Schedule, train_on_batches

        chosen, held_out = data.folds(10, self.random_state)[0]
        self.unit_ = moments(data).extent / float(np.sqrt(d))
        rng, begun = np.random.default_rng(self.random_state), itertools.count()

        def batches() -> Iterator[tuple[NDArray[Any], Int, Float]]:
            data.tell(next(begun) / self.epochs)
            for positions, X in self._batches(data.rows, chosen, self.batch_size, rng):
                yield X / np.float32(self.unit_), data.codes[positions], data.weight[positions]

        def held() -> Iterator[tuple[NDArray[Any], Int, Float]]:
            for positions, block in chunks(data.rows, held_out):
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

    def _needed(self, shape: tuple[int, int], classes: int) -> tuple[int, str]:
        del classes
        # Weights and the best ones, their gradient, Adam's two moments.
        return 20 * shape[1] * self.units, f"the dense head on {shape[1]:,} features"

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
