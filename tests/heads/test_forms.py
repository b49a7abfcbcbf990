"""Which classifiers are given coordinates, and which the features themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from headstart.heads import HEAD_NAMES, DenseHead, make_head
from headstart.heads.forms import rotation_invariant
from headstart.heads.gram import seconds_per_row

INVARIANT = [
    KNeighborsClassifier(3),
    KNeighborsClassifier(3, metric="cosine"),
    LinearSVC(tol=1e-8, max_iter=100_000),
    LogisticRegression(C=10, tol=1e-8, max_iter=5000),
    NearestCentroid(),
    RidgeClassifier(),
    SVC(kernel="linear"),
    SVC(kernel="rbf", gamma=0.3),
    SVC(kernel="poly", gamma=0.3),
]
OTHERS = [
    DecisionTreeClassifier(),
    GaussianNB(),
    KNeighborsClassifier(metric="manhattan"),
    LogisticRegression(l1_ratio=0.5, solver="saga"),
    NearestCentroid(metric="manhattan"),
    RandomForestClassifier(),
    SVC(),
    make_pipeline(StandardScaler(), LogisticRegression()),
    object(),
]


@pytest.mark.parametrize("head", INVARIANT, ids=str)
def test_what_is_called_invariant_is(head: Any) -> None:
    """A rotation of all rows leaves the predictions of each of them as they are."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = rng.normal(size=(90, 40)) + rng.normal(size=(3, 40))[y] / 2
    Q = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    before = clone(head).fit(X[:60], y[:60]).predict(X)
    assert rotation_invariant(head)
    assert np.array_equal(before, clone(head).fit(X[:60] @ Q, y[:60]).predict(X @ Q))


@pytest.mark.parametrize("head", OTHERS, ids=lambda head: type(head).__name__)
def test_what_is_not_known_to_be_is_not(head: Any) -> None:
    assert not rotation_invariant(head)


def test_ours_say_so_themselves() -> None:
    """All of ours are, but the dense head on the features themselves."""
    assert all(rotation_invariant(make_head(name)) for name in HEAD_NAMES)
    assert not rotation_invariant(DenseHead(plain=True))


def test_a_class_of_the_same_name_is_not_scikit_learns() -> None:
    other = type("NearestCentroid", (NearestCentroid,), {"__module__": "mine"})
    assert not rotation_invariant(other())


def test_a_row_of_coordinates_takes_time() -> None:
    """More with more features than one timed product has."""
    assert 0 < seconds_per_row(200, 64) < seconds_per_row(200, 409600)
