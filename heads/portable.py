"""Fitted heads as plain arrays on features: what is kept in a file and joined to the base."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import singledispatch
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from scipy.special import expit

from headstart.errors import HeadError
from headstart.heads.base import softmax
from headstart.heads.dense import DenseHead
from headstart.heads.logreg import LogisticHead
from headstart.heads.neighbours import NearestMeanHead, NeighboursHead
from headstart.heads.ridge import RidgeHead
from headstart.heads.svm import SVMHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from headstart.heads.rows import FeatureRows
    from headstart.heads.rowspace import RowSpace

    Float = NDArray[np.float64]
    Single = NDArray[np.float32]

_BLOCK = 256  # rows compared at a time
_TINY = 1e-300


class Portable(Protocol):
    """A classifier on features that is arrays and nothing else."""

    kind: ClassVar[str]

    def scores(self, X: Single) -> Float:
        """Return logits ``(m, k)`` of features ``(m, d)``: their softmax is the probability."""
        ...

    def check(self, d: int, k: int) -> None:
        """Refuse arrays that do not fit `d` features and `k` classes."""
        ...


def probabilities(classifier: Portable, X: Single) -> Float:
    """Return class probabilities ``(m, k)`` of features ``(m, d)``."""
    return softmax(classifier.scores(X))


class Expected(NamedTuple):
    """What an array must be.

    Attributes
    ----------
    shape : str
        A letter for each dimension: ``d`` features, ``k`` classes, ``p`` pairs of them, ``1``;
        any other stands for one length of at least 1.
    dtypes : tuple of str
    """

    shape: str
    dtypes: tuple[str, ...] = ("float32",)


_STORED = ("float16", "float32")


class Arrays:
    """Arrays of which it is known what they must be."""

    layout: ClassVar[dict[str, Expected]]

    def check(self, d: int, k: int) -> None:
        """Refuse arrays that do not fit `d` features and `k` classes.

        Raises
        ------
        HeadError
            If one has another dtype or shape, no rows, or a number that is not finite.
        """
        arrays = {name: getattr(self, name) for name in self.layout}
        self.check_layout({n: (a.dtype.name, a.shape) for n, a in arrays.items()}, d, k)
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise HeadError(f"{name} has numbers that are not finite")

    @classmethod
    def check_layout(cls, found: Mapping[str, tuple[str, tuple[int, ...]]], d: int, k: int) -> None:
        """Refuse dtypes and shapes that do not fit, before an array is read.

        Raises
        ------
        HeadError
            If an array has another dtype or shape, or no rows.
        """
        lengths = {"d": d, "k": k, "p": k * (k - 1) // 2, "1": 1}
        for name, expected in cls.layout.items():
            _check_shape(name, *found[name], expected, lengths)


def _check_shape(
    name: str, dtype: str, found: tuple[int, ...], expected: Expected, lengths: dict[str, int]
) -> None:
    """Refuse an array of another kind; note in `lengths` what its free dimensions are."""
    if dtype not in expected.dtypes or len(found) != len(expected.shape):
        raise HeadError(
            f"{name} is of {dtype} with {len(found)} dimensions; expected "
            f"{' or '.join(expected.dtypes)} with {len(expected.shape)}"
        )
    for letter, length in zip(expected.shape, found, strict=True):
        lengths.setdefault(letter, max(length, 1))
    shape = tuple(lengths[letter] for letter in expected.shape)
    if found != shape:
        raise HeadError(f"{name} has shape {found}; expected {shape}")


@dataclass(frozen=True)
class Linear(Arrays):
    """Logits are a linear function of the features.

    Attributes
    ----------
    weights : ndarray of shape (k, d), float32
    bias : ndarray of shape (k,), float32
    """

    weights: Single
    bias: Single
    kind: ClassVar[str] = "linear"
    layout: ClassVar[dict[str, Expected]] = {
        "weights": Expected("kd"),
        "bias": Expected("k"),
    }

    def scores(self, X: Single) -> Float:
        """Return logits ``(m, k)``."""
        logits: Float = (X @ self.weights.T).astype(np.float64) + self.bias
        return logits


@dataclass(frozen=True)
class Layers(Arrays):
    """One dense layer of relu units, and logits above it.

    Attributes
    ----------
    inner : ndarray of shape (u, d), float32
    inner_bias : ndarray of shape (u,), float32
    outer : ndarray of shape (k, u), float32
    outer_bias : ndarray of shape (k,), float32
    """

    inner: Single
    inner_bias: Single
    outer: Single
    outer_bias: Single
    kind: ClassVar[str] = "layers"
    layout: ClassVar[dict[str, Expected]] = {
        "inner": Expected("ud"),
        "inner_bias": Expected("u"),
        "outer": Expected("ku"),
        "outer_bias": Expected("k"),
    }

    def scores(self, X: Single) -> Float:
        """Return logits ``(m, k)``."""
        hidden = np.maximum(X @ self.inner.T + self.inner_bias, 0)
        logits: Float = (hidden @ self.outer.T).astype(np.float64) + self.outer_bias
        return logits


@dataclass(frozen=True)
class Machines(Arrays):
    """Support vector machines, one for each pair of classes, with calibrated probabilities.

    Attributes
    ----------
    weights : ndarray of shape (p, d), float32
        Linear machines for the pairs (0, 1), (0, 2), ..., (1, 2), ...: positive for the first.
    bias : ndarray of shape (p,), float32
    slope, offset : ndarray of shape (k,), float32
        Of the calibration: a class's share is ``expit(slope * value + offset)``; zero slopes
        everywhere take the values themselves as logits.
    """

    weights: Single
    bias: Single
    slope: Single
    offset: Single
    kind: ClassVar[str] = "machines"
    layout: ClassVar[dict[str, Expected]] = {
        "weights": Expected("pd"),
        "bias": Expected("p"),
        "slope": Expected("k"),
        "offset": Expected("k"),
    }

    def scores(self, X: Single) -> Float:
        """Return logits ``(m, k)``."""
        machines = (X @ self.weights.T).astype(np.float64) + self.bias
        return _calibrated(machines, self.slope, self.offset)


@dataclass(frozen=True)
class Kernels(Arrays):
    """Support vector machines with the kernel ``exp(-width |x - v|²)``, one for each pair.

    Attributes
    ----------
    vectors : ndarray of shape (s, d), float16 or float32
        Support vectors, as they are stored.
    dual : ndarray of shape (p, s), float32
    bias : ndarray of shape (p,), float32
    width : ndarray of shape (1,), float32
    slope, offset : ndarray of shape (k,), float32
        As in `Machines`.
    """

    vectors: NDArray[Any]
    dual: Single
    bias: Single
    width: Single
    slope: Single
    offset: Single
    kind: ClassVar[str] = "kernels"
    layout: ClassVar[dict[str, Expected]] = {
        "vectors": Expected("sd", _STORED),
        "dual": Expected("ps"),
        "bias": Expected("p"),
        "width": Expected("1"),
        "slope": Expected("k"),
        "offset": Expected("k"),
    }

    def scores(self, X: Single) -> Float:
        """Return logits ``(m, k)``."""
        own = np.einsum("ij,ij->i", X, X, dtype=np.float64)
        machines = np.zeros((len(X), len(self.dual))) + self.bias
        for first in range(0, len(self.vectors), _BLOCK):
            block = self.vectors[first : first + _BLOCK].astype(np.float32)
            theirs = np.einsum("ij,ij->i", block, block, dtype=np.float64)
            distance = np.maximum(own[:, None] - 2.0 * (X @ block.T) + theirs, 0)
            kernel = np.exp(-float(self.width[0]) * distance)
            machines += kernel @ self.dual[:, first : first + _BLOCK].T
        return _calibrated(machines, self.slope, self.offset)

    def check(self, d: int, k: int) -> None:
        """Refuse other arrays, and a width that makes far rows near."""
        super().check(d, k)
        if self.width[0] <= 0:
            raise HeadError(f"width must be above 0; found {float(self.width[0])}")


@dataclass(frozen=True)
class Neighbours(Arrays):
    """The nearest of some rows, by angle, vote.

    Attributes
    ----------
    rows : ndarray of shape (n, d), float16 or float32
        As they are stored.
    votes : ndarray of shape (n, k), float32
    count : ndarray of shape (1,), int64
        How many vote.
    """

    rows: NDArray[Any]
    votes: Single
    count: NDArray[np.int64]
    kind: ClassVar[str] = "neighbours"
    layout: ClassVar[dict[str, Expected]] = {
        "rows": Expected("nd", _STORED),
        "votes": Expected("nk"),
        "count": Expected("1", ("int64",)),
    }

    def scores(self, X: Single) -> Float:
        """Return logarithms of the shares of the votes ``(m, k)``."""
        likeness = np.empty((len(X), len(self.rows)), np.float64)
        for first in range(0, len(self.rows), _BLOCK):
            block = self.rows[first : first + _BLOCK].astype(np.float32)
            length = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
            likeness[:, first : first + _BLOCK] = (X @ block.T) / np.where(length > 0, length, 1)
        near = np.argsort(-likeness, axis=1, kind="stable")[:, : int(self.count[0])]
        votes = self.votes[near].sum(1, dtype=np.float64) + self.votes.max() / self.votes.shape[1]
        logits: Float = np.log(votes)
        return logits

    def check(self, d: int, k: int) -> None:
        """Refuse other arrays, and votes that elect nobody."""
        super().check(d, k)
        if self.count[0] < 1:
            raise HeadError(f"count must be 1 or more; found {int(self.count[0])}")
        if self.votes.min() < 0 or self.votes.max() <= 0:
            raise HeadError("votes must be 0 or more, and one of them above 0")


KINDS: dict[str, type[Any]] = {
    kind.kind: kind for kind in (Linear, Layers, Machines, Kernels, Neighbours)
}


def arrays_of(classifier: Portable) -> dict[str, NDArray[Any]]:
    """Return the arrays by name, in the order of the definition."""
    return {field.name: getattr(classifier, field.name) for field in fields(classifier)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Trained:
    """What a head was trained on: coordinates of a space, found on rows of a store."""

    space: RowSpace
    rows: FeatureRows

    def on_features(self, coef: NDArray[Any]) -> Single:
        """Return weights ``(k, d)`` on features of weights ``(k, rank)`` on coordinates."""
        return self.space.back(coef).astype(np.float32)

    def features(self, positions: NDArray[np.int64] | slice) -> NDArray[Any]:
        """Return training rows as they are stored."""
        return self.rows.take(positions).load()


@singledispatch
def portable(head: Any, trained: Trained) -> Portable:
    """Return a fitted head as arrays on features.

    Raises
    ------
    HeadError
        If this head has no such form.
    """
    del trained
    raise HeadError(
        f"a {type(head).__name__} cannot be kept in a model: there is no portable form of it; "
        "heads that have one are those of --heads"
    )


@portable.register
def _(head: LogisticHead, trained: Trained) -> Portable:
    weights, bias = head.coef_, head.intercept_
    if len(weights) == 1:
        weights = np.concatenate([np.zeros_like(weights), weights])
        bias = np.concatenate([np.zeros_like(bias), bias])
    return Linear(trained.on_features(weights), bias.astype(np.float32))


@portable.register
def _(head: RidgeHead, trained: Trained) -> Portable:
    weights = trained.on_features(head.coef_ / head.temperature_)
    return Linear(weights, (head.intercept_ / head.temperature_).astype(np.float32))


@portable.register
def _(head: NearestMeanHead, trained: Trained) -> Portable:
    """-|x - m|² is linear in x, but for |x|², which is the same for all classes."""
    weights = trained.on_features(2 * head.means_ / head.temperature_)
    norms = np.einsum("ij,ij->i", head.means_, head.means_)
    return Linear(weights, (-norms / head.temperature_).astype(np.float32))


@portable.register
def _(head: NeighboursHead, trained: Trained) -> Portable:
    return Neighbours(
        trained.features(slice(None)),
        head.votes_.astype(np.float32),
        np.array([head.n_neighbors_], dtype=np.int64),
    )


@portable.register
def _(head: SVMHead, trained: Trained) -> Portable:
    dual, bias = _pairwise(head)
    slope, offset = _calibration(head)
    used = np.flatnonzero(np.abs(dual).any(0))
    if head.gamma_ is None:
        coef = dual[:, used] @ head.X_fit_[used]
        return Machines(trained.on_features(coef), bias, slope, offset)
    width = head.gamma_ / head.unit_ / trained.space.scale_**2
    return Kernels(
        trained.features(used),
        dual[:, used].astype(np.float32),
        bias,
        np.array([width], dtype=np.float32),
        slope,
        offset,
    )


@portable.register
def _(head: DenseHead, trained: Trained) -> Portable:
    inner, inner_bias, outer, outer_bias = head.weights_
    coef = inner.T / head.unit_
    coef = coef if head.space_ is None else head.space_.back(coef)
    outer = outer.T
    if len(outer) == 1:
        outer = np.concatenate([np.zeros_like(outer), outer])
        outer_bias = np.concatenate([np.zeros_like(outer_bias), outer_bias])
    return Layers(
        trained.on_features(coef),
        inner_bias.astype(np.float32),
        np.ascontiguousarray(outer, dtype=np.float32),
        outer_bias.astype(np.float32),
    )


def pairs(k: int) -> list[tuple[int, int]]:
    """Return the pairs of `k` classes, in the order of their machines."""
    return [(i, j) for i in range(k) for j in range(i + 1, k)]


def _pairwise(head: SVMHead) -> tuple[Float, Single]:
    """Return libsvm's dual coefficients ``(p, n)`` and intercepts, one row a pair of classes.

    libsvm keeps the coefficients of a support vector of class i against class j in row j - 1 if
    j > i, else in row j (LIBSVM's README, ``sv_coef``).
    """
    svc, k = head.svc_, len(head.classes_)
    starts = np.cumsum([0, *svc.n_support_])
    sign = -1.0 if k == 2 else 1.0  # of two classes scikit-learn keeps the other sign
    dual = np.zeros((k * (k - 1) // 2, len(head.X_fit_)))
    for number, (i, j) in enumerate(pairs(k)):
        first, second = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        dual[number, svc.support_[first]] = sign * svc.dual_coef_[j - 1, first]
        dual[number, svc.support_[second]] = sign * svc.dual_coef_[i, second]
    return dual, (sign * svc.intercept_).astype(np.float32)


def _calibration(head: SVMHead) -> tuple[Single, Single]:
    """Return the slope and offset of each class's sigmoid; zeros where nothing was calibrated."""
    k = len(head.classes_)
    if head.calibrated_ is None:
        return np.zeros(k, np.float32), np.zeros(k, np.float32)
    sigmoids = head.calibrated_.calibrated_classifiers_[0].calibrators
    slope = np.array([-s.a_ for s in sigmoids], dtype=np.float32)
    offset = np.array([-s.b_ for s in sigmoids], dtype=np.float32)
    if k == 2:  # one sigmoid for the second class; the first has what is left
        slope, offset = np.repeat(slope, 2), np.repeat(offset, 2)
    return slope, offset


def _calibrated(machines: Float, slope: Single, offset: Single) -> Float:
    """Return logits ``(m, k)`` of the values ``(m, p)`` of pairwise machines."""
    k = len(slope)
    if k == 2:
        value = -machines[:, 0]
        if slope.any():
            value = slope[1] * value + offset[1]
        return np.column_stack([np.zeros_like(value), value])
    values = against_rest(machines, k)
    if not slope.any():
        return values
    share = expit(slope * values + offset)
    total = share.sum(1, keepdims=True)
    even = np.full_like(share, 1 / k)
    logits: Float = np.log(np.divide(share, total, out=even, where=total > 0) + _TINY)
    return logits


def against_rest(machines: Float, k: int) -> Float:
    """Return a value for each class ``(m, k)``: its votes, and its confidence between them.

    As scikit-learn's ``decision_function_shape="ovr"``.
    """
    votes, confidence = np.zeros((len(machines), k)), np.zeros((len(machines), k))
    for number, (i, j) in enumerate(pairs(k)):
        value = machines[:, number]
        confidence[:, i] += value
        confidence[:, j] -= value
        votes[:, i] += value > 0
        votes[:, j] += value <= 0
    values: Float = votes + confidence / (3 * (np.abs(confidence) + 1))
    return values
