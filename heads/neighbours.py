"""Heads that look at training rows themselves: the baselines of every linear one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from headstart.heads.base import Head, softmax
from headstart.heads.metrics import temperature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.heads.base import Training

    Float = NDArray[np.float64]

#: Numbers of neighbours that are tried.
NEIGHBOURS = (1, 3, 5, 10, 20, 50)


class NearestMeanHead(Head):
    """The class whose mean is nearest; nothing is chosen.

    Probabilities are a softmax of the negative squared distances, at the temperature that suits
    the training rows best, each measured against means it is not part of.

    Attributes
    ----------
    means_ : ndarray of shape (k, d)
    temperature_ : float
    """

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Find the class means of rows ``(n, d)``."""
        rows = self._training(X, y, sample_weight, groups)
        member = rows.codes[:, None] == np.arange(len(self.classes_))
        weight = member * rows.weight[:, None]
        total = weight.sum(0)
        self.means_ = weight.T @ rows.X / total[:, None]
        distance = _squared_distances(rows.X, self.means_)
        # Without a row, the mean of its class is further from it by this factor.
        rest = np.maximum(total[rows.codes] - rows.weight, 1e-12 * total[rows.codes])
        alone = rest <= 1e-9 * total[rows.codes]
        factor = np.where(alone, 1.0, total[rows.codes] / rest)
        distance[member] *= factor**2
        self.temperature_ = temperature(rows.codes, -distance)
        self.chosen_ = {}
        return self

    def predict_proba(self, X: ArrayLike) -> Float:
        """Return class probabilities ``(m, k)``."""
        return softmax(-_squared_distances(self._rows(X), self.means_) / self.temperature_)


class NeighboursHead(Head):
    """k nearest neighbours by the angle between rows.

    The number of neighbours is chosen by the accuracy on the training rows, each judged by the
    others; rows of its own group do not count. Neighbours vote with their weight; one vote is
    shared evenly among all classes, so that no probability is zero.

    Parameters
    ----------
    n_neighbors : int or sequence of int
        Of several, the best is chosen (first on ties).

    Attributes
    ----------
    n_neighbors_ : int
    """

    def __init__(self, n_neighbors: int | Sequence[int] = NEIGHBOURS) -> None:
        self.n_neighbors = n_neighbors

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Keep the rows ``(n, d)`` and choose the number of neighbours."""
        rows = self._training(X, y, sample_weight, groups)
        self.X_fit_ = _unit(rows.X)
        member = rows.codes[:, None] == np.arange(len(self.classes_))
        self.votes_ = member * rows.weight[:, None]
        wanted = [int(k) for k in np.atleast_1d(self.n_neighbors)]
        self.n_neighbors_ = wanted[0] if len(wanted) == 1 else self._choose(rows, wanted)
        self.chosen_ = {"n_neighbors": self.n_neighbors_}
        return self

    def predict_proba(self, X: ArrayLike) -> Float:
        """Return class probabilities ``(m, k)``."""
        near = _nearest(_unit(self._rows(X)) @ self.X_fit_.T, self.n_neighbors_)
        votes = self.votes_[near].sum(1) + self.votes_.max() / len(self.classes_)
        probability: Float = votes / votes.sum(1, keepdims=True)
        return probability

    def _choose(self, rows: Training, wanted: list[int]) -> int:
        similarity = self.X_fit_ @ self.X_fit_.T
        groups = np.arange(len(rows.codes)) if rows.groups is None else rows.groups
        similarity[groups[:, None] == groups] = -np.inf
        near = _nearest(similarity, max(wanted))
        votes = np.cumsum(self.votes_[near], axis=1)
        last = [min(k, near.shape[1]) - 1 for k in wanted]
        accuracy = [(votes[:, k].argmax(1) == rows.codes).mean() for k in last]
        return wanted[int(np.argmax(accuracy))]


def _squared_distances(X: Float, means: Float) -> Float:
    """Return squared distances ``(m, k)`` of rows from means."""
    own: Float = np.einsum("ij,ij->i", X, X)[:, None]
    other: Float = np.einsum("ij,ij->i", means, means)
    return np.maximum(own - 2 * X @ means.T + other, 0)


def _unit(X: Float) -> Float:
    """Return rows of length 1."""
    length = np.sqrt(np.einsum("ij,ij->i", X, X))
    result: Float = X / np.where(length > 0, length, 1)[:, None]
    return result


def _nearest(similarity: Float, k: int) -> NDArray[Any]:
    """Return the k most similar rows, nearest first, ``(m, k)``; ties: the first row."""
    k = min(k, similarity.shape[1])
    near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    near.sort(axis=1)
    order = np.argsort(-np.take_along_axis(similarity, near, 1), axis=1, kind="stable")
    return np.take_along_axis(near, order, 1)
