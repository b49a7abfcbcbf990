"""What goes wrong and why: calibration, neighbours, labels that may be wrong, near duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.heads.evaluation import Predictions
    from headstart.heads.folds import Folds

    Float = NDArray[np.float64]
    Int = NDArray[np.int64]

_BLOCK = 1024  # rows whose distances to all others are held at a time


class Bin(NamedTuple):
    """Predictions of about the same confidence.

    Attributes
    ----------
    confidence : float
        Mean probability of the answers.
    accuracy : float
        Share of them that are right.
    rows : int
    """

    confidence: float
    accuracy: float
    rows: int


def reliability(answers: Predictions, bins: int = 10) -> list[Bin]:
    """Return confidence against accuracy in bins of equal width; empty without probabilities."""
    if answers.probability is None:
        return []
    confidence = answers.probability.max(1).astype(np.float64)
    right = answers.probability.argmax(1) == answers.true
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        Bin(float(confidence[mine].mean()), float(right[mine].mean()), int(mine.sum()))
        for bin_number in range(bins)
        if (mine := number == bin_number).any()
    ]


class Roc(NamedTuple):
    """One class against the rest: rates (m,) of false and true alarms, and the area below."""

    false: Float
    true: Float
    area: float


def roc(answers: Predictions, code: int) -> Roc | None:
    """Return the curve of one class; None without probabilities or without rows of either side."""
    from sklearn.metrics import auc, roc_curve

    mine = answers.true == code
    if answers.probability is None or mine.all() or not mine.any():
        return None
    false, true, _ = roc_curve(mine, answers.probability[:, code])
    return Roc(false, true, float(auc(false, true)))


class Nearest(NamedTuple):
    """The rows nearest to each query: positions and distances, ``(q, k)``, nearest first.

    Positions are -1, and distances infinite, where there are fewer than k.
    """

    positions: Int
    distances: Float


def nearest(Z: Float, queries: Int, folds: Int, splits: Folds, *, k: int) -> Nearest:
    """Return the training rows that are nearest to rows which they have not trained.

    Parameters
    ----------
    Z : ndarray of shape (n, r)
        Features, or their coordinates in the row space: distances are the same.
    queries : ndarray of shape (q,)
        Positions in `Z`.
    folds : ndarray of shape (q,)
        The split in which each query was measured.
    splits : list of (train, test)
        Positions in `Z`.
    k : int
    """
    square = np.einsum("ij,ij->i", Z, Z)
    positions = np.full((len(queries), k), -1, dtype=np.int64)
    distances = np.full((len(queries), k), np.inf)
    for fold, (train, _) in enumerate(splits):
        mine = np.flatnonzero(folds == fold)
        many = min(k, len(train))
        reference = Z[train]
        for first in range(0, len(mine) if many else 0, _BLOCK):
            some = mine[first : first + _BLOCK]
            rows = queries[some]
            D = square[rows][:, None] + square[train] - 2 * (Z[rows] @ reference.T)
            order = np.argsort(D, axis=1, kind="stable")[:, :many]
            positions[some, :many] = train[order]
            found = np.take_along_axis(D, order, 1)
            distances[some, :many] = np.sqrt(np.maximum(found, 0))
    return Nearest(positions, distances)


class Suspects(NamedTuple):
    """Rows whose label may be wrong: places among the predictions, and the likelier class."""

    places: Int
    proposed: Int


def suspects(answers: Predictions) -> Suspects:
    """Return the rows whose label another class beats with confidence, the clearest first.

    Confident learning (Northcutt, Jiang & Chuang, 2021): a class claims a row if the row's
    probability of it is at least the mean one of the rows that have this label. A row is
    suspect if another class claims it, its own does not, and the other one is likelier.

    Probabilities have to come from heads that were not trained on the row.
    """
    p, true = answers.probability, answers.true
    empty = np.empty(0, dtype=np.int64)
    if p is None or len(true) == 0:
        return Suspects(empty, empty)
    counts = np.bincount(true, minlength=p.shape[1])
    own = p[np.arange(len(true)), true].astype(np.float64)
    sums = np.bincount(true, own, p.shape[1])
    threshold = np.divide(sums, counts, out=np.full(p.shape[1], np.inf), where=counts > 0)
    claims = np.where(p >= threshold, p, -1.0)
    claims[np.arange(len(true)), true] = -1.0
    proposed = claims.argmax(1)
    strength = claims.max(1)
    places = np.flatnonzero((strength > own) & (own < threshold[true]))
    order = np.argsort(own[places] - strength[places], kind="stable")
    return Suspects(places[order], proposed[places[order]].astype(np.int64))


def near_duplicates(
    Z: Float, groups: Int, *, similarity: float, most: int
) -> list[tuple[int, int]]:
    """Return pairs of rows of different groups that are almost the same, the most alike first.

    Parameters
    ----------
    Z : ndarray of shape (n, r)
    groups : ndarray of shape (n,)
        Rows of equal value are known to be the same picture.
    similarity : float
        The least cosine.
    most : int
        Pairs to return at most.
    """
    unit = Z / np.maximum(np.sqrt(np.einsum("ij,ij->i", Z, Z)), 1e-30)[:, None]
    pairs, values = np.empty((0, 2), dtype=np.int64), np.empty(0)
    for first in range(0, len(Z), _BLOCK):
        cosine = np.triu(unit[first : first + _BLOCK] @ unit[first:].T, 1)
        found = np.argwhere(cosine >= similarity)
        value = cosine[found[:, 0], found[:, 1]]
        found += first
        apart = groups[found[:, 0]] != groups[found[:, 1]]
        pairs = np.concatenate([pairs, found[apart]])
        values = np.concatenate([values, value[apart]])
        order = np.argsort(-values, kind="stable")[:most]
        pairs, values = pairs[order], values[order]
    return [(int(one), int(other)) for one, other in pairs]


class Reasons(NamedTuple):
    """Among the mistakes of a head, how many look like what.

    Attributes
    ----------
    mistakes : int
    lookalikes : int
        Most of the nearest training rows carry the class that was answered.
    outvoted : int
        Most of them carry the right class, and yet the head answered another.
    isolated : int
        Farther from all training rows than 95% of the rows that were recognised.
    unsure : int
        The right class had nearly the probability of the answer (0.2 less at most).
    """

    mistakes: int
    lookalikes: int
    outvoted: int
    isolated: int
    unsure: int


def reasons(answers: Predictions, near: Nearest, codes: Int, places: Int) -> Reasons:
    """Count what mistakes look like.

    Parameters
    ----------
    answers : Predictions
    near : Nearest
        Of the predictions at `places`.
    codes : ndarray of shape (n,)
        The class of every position.
    places : ndarray of shape (q,)
        Among the predictions.
    """
    true, guess = answers.true[places], answers.guess[places]
    wrong = true != guess
    votes = np.where(near.positions >= 0, codes[near.positions], -1)
    most = near.positions.shape[1] / 2
    recognised = near.distances[~wrong, 0]
    recognised = recognised[np.isfinite(recognised)]
    far = np.quantile(recognised, 0.95) if len(recognised) else np.inf
    close: NDArray[Any] = np.zeros(len(places), dtype=bool)
    if answers.probability is not None:
        p = answers.probability[places]
        row = np.arange(len(places))
        close = p[row, guess] - p[row, true] <= 0.2
    return Reasons(
        mistakes=int(wrong.sum()),
        lookalikes=int((wrong & ((votes == guess[:, None]).sum(1) > most)).sum()),
        outvoted=int((wrong & ((votes == true[:, None]).sum(1) > most)).sum()),
        isolated=int((wrong & (near.distances[:, 0] > far)).sum()),
        unsure=int((wrong & close).sum()),
    )
