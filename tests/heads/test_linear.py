"""Linear heads: the classifiers scikit-learn finds, and what must not change them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from headstart.errors import HeadError
from headstart.heads import (
    LogisticHead,
    NearestMeanHead,
    NeighboursHead,
    RidgeHead,
    SVMHead,
    logistic,
)
from headstart.heads.logistic import solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Draw = Callable[..., Any]

TIGHT: dict[str, Any] = {"tol": 1e-9, "max_iter": 5000}


def drawn(n: int, d: int, classes: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return rows and labels of every class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = rng.normal(size=(n, d)) + 0.7 * rng.normal(size=(classes, d))[y]
    return X / np.sqrt(np.mean(np.sum(X * X, 1))), y


def objective(X: Any, y: Any, coef: Any, intercept: Any, C: float) -> float:
    """Return what logistic regression minimises."""
    scores = X @ coef.T + intercept
    if scores.shape[1] == 1:
        scores = np.column_stack([np.zeros(len(X)), scores])
    loss = np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(X)), y]
    return float(C * loss.sum() + 0.5 * (coef**2).sum())


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("C", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize(("n", "d"), [(80, 300), (150, 20)])
def test_logistic_regression_is_scikit_learns(classes: int, C: float, n: int, d: int) -> None:
    """The same objective to 1e-6, the same coefficients and predictions."""
    X, y = drawn(n, d, classes, 0)
    ours = LogisticHead(C, **TIGHT).fit(X, y)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=20_000).fit(X, y)
    a = objective(X, y, ours.coef_, ours.intercept_, C)
    b = objective(X, y, theirs.coef_, theirs.intercept_, C)
    assert a <= b * (1 + 1e-6)
    assert np.allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3)
    assert np.array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("C", np.logspace(-2, 4, 10))
@pytest.mark.parametrize("classes", [2, 4])
def test_the_last_fit_is_converged_at_every_penalty(classes: int, C: float) -> None:
    """Within 1e-4 of the smallest objective by default, 1e-6 if tight, also after a choice.

    The reference is Newton's method, as far as it goes. With a large C the gradient of the mean
    loss is below scikit-learn's tolerance long before.
    """
    X, y = drawn(240, 200, classes, 11)
    peer = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(X, y)
    least = objective(X, y, peer.coef_, peer.intercept_, C)
    for tol, grid, share in ((1e-4, C, 1e-4), (1e-4, [C, 1.1 * C], 1e-4), (1e-7, C, 1e-6)):
        head = LogisticHead(grid, tol=tol, max_iter=5000).fit(X, y)
        if head.C_ == C:
            assert objective(X, y, head.coef_, head.intercept_, C) <= least * (1 + share)
    assert head.C_ == C


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
def test_the_choice_is_grid_searchs(scoring: Any, classes: int) -> None:
    """Given the same folds, the same penalty wins by the same scores."""
    X, y = drawn(150, 400, classes, 1)
    grid = np.logspace(-2, 3, 6)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))
    ours = LogisticHead(grid.tolist(), cv=folds, scoring=scoring, **TIGHT).fit(X, y)
    peer = LogisticRegression(tol=1e-8, max_iter=9000)
    theirs = GridSearchCV(peer, {"C": grid}, cv=folds, scoring=scoring).fit(X, y)
    assert theirs.best_params_ == ours.chosen_
    assert np.allclose(ours.scores_.mean(0), theirs.cv_results_["mean_test_score"], atol=1e-6)


def test_an_unknown_scoring_is_named() -> None:
    X, y = drawn(40, 5, 2, 0)
    scoring: Any = "f1"
    with pytest.raises(HeadError, match=r"scoring='f1': expected one of accuracy, neg_log_loss"):
        LogisticHead(scoring=scoring).fit(X, y)


@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_are_scikit_learns(weighted: bool) -> None:
    X, y = drawn(90, 30, 3, 2)
    keep = np.flatnonzero((y > 0) | (np.arange(90) % 2 == 0))
    X, y = X[keep], y[keep]
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y)) if weighted else None
    ours = LogisticHead(1.0, class_weight="balanced", **TIGHT).fit(X, y, weight)
    theirs = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-10, max_iter=9000)
    expected = theirs.fit(X, y, weight).predict_proba(X)
    assert np.allclose(ours.predict_proba(X), expected, atol=1e-4)


def test_every_problem_of_a_batch_is_solved_as_if_alone() -> None:
    """Penalties and folds do not disturb each other, and each gradient is below tol."""
    X, y = drawn(60, 40, 3, 3)
    weight = np.ones((60, 6))
    weight[:20, 3:] = 0
    C = np.tile([0.1, 10.0, 1000.0], 2)
    together = solve(X, y, 3, weight, C, tol=1e-8)
    assert together.converged.all()
    for p in range(6):
        alone = solve(X, y, 3, weight[:, [p]], C[[p]], tol=1e-8)
        assert np.allclose(alone.coef[0], together.coef[p], atol=1e-4 * np.abs(alone.coef).max())
        keep = weight[:, p] > 0
        P = X[keep] @ together.coef[p].T + together.intercept[p]
        P = np.exp(P - np.logaddexp.reduce(P, axis=1)[:, None])
        R = (P - np.eye(3)[y[keep]]) / keep.sum()
        gradient = R.T @ X[keep] + together.coef[p] / (C[p] * keep.sum())
        assert np.abs(gradient).max() < 1e-6
        assert np.abs(R.sum(0)).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_problem_that_was_given_up_is_not_converged(
    dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 rows are given up at a limit of their own; float64 goes on where float32 ends."""
    monkeypatch.setattr(logistic, "_SINGLE_ITERATIONS", 3)
    X, y = drawn(200, 40, 3, 0)
    done = solve(X.astype(dtype), y, 3, np.ones((200, 2)), np.array([1e-6, 1e4]))
    assert done.converged.tolist() == [True, dtype is np.float64]


def test_solved_problems_disturb_no_others() -> None:
    """Steps that end in rounding leave no overflow behind, on rows that are hardly separable."""
    X, y = load_iris(return_X_y=True)
    for seed in range(3):
        assert LogisticHead(random_state=seed).fit(X, y).n_iter_ >= 1


def test_giving_up_is_said() -> None:
    X, y = drawn(60, 40, 3, 3)
    fit = solve(X, y, 3, np.ones((60, 1)), np.array([1e4]), tol=1e-10, max_iter=2)
    assert not fit.converged[0]


@pytest.mark.parametrize("classes", [2, 3])
def test_svm_is_svc(classes: int) -> None:
    """Linear and RBF machines predict what SVC predicts, chosen as GridSearchCV chooses."""
    X, y = drawn(120, 200, classes, 4)
    new, _ = drawn(200, 200, classes, 5)
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(X, y))
    grid = {"C": [0.1, 1.0, 10.0, 100.0]}
    ours = SVMHead(grid["C"], cv=folds).fit(X, y)
    theirs = GridSearchCV(SVC(kernel="linear"), grid, cv=folds).fit(X, y)
    assert ours.chosen_ == theirs.best_params_
    assert np.array_equal(ours.predict(new), theirs.predict(new))
    assert np.allclose(ours.decision_function(new), theirs.decision_function(new), atol=1e-3)
    width = 0.5 / X.var(0).sum()
    rbf = SVMHead(1.0, kernel="rbf", gamma=0.5).fit(X, y)
    assert np.array_equal(rbf.predict(new), SVC(C=1.0, gamma=width).fit(X, y).predict(new))
    peer = CalibratedClassifierCV(
        SVC(C=ours.chosen_["C"], kernel="linear"), cv=folds, ensemble=False
    )
    expected = peer.fit(X, y).predict_proba(new)
    assert np.allclose(ours.predict_proba(new), expected, atol=1e-3)
    probability = rbf.predict_proba(new)
    assert np.allclose(probability.sum(1), 1)
    with pytest.raises(HeadError, match="linear, rbf"):
        SVMHead(kernel="cubic").fit(X, y)


def test_svm_class_weights_are_svcs() -> None:
    X, y = drawn(90, 60, 2, 6)
    X, y = X[: 60 + 1], y[: 60 + 1]
    ours = SVMHead(1.0, class_weight={0: 5.0, 1: 1.0}).fit(X, y)
    theirs = SVC(C=1.0, kernel="linear", class_weight={0: 5.0, 1: 1.0}).fit(X, y)
    assert np.allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-3)


@pytest.mark.parametrize(("n", "d"), [(60, 200), (120, 15)])
def test_ridge_is_ridge_classifier(n: int, d: int) -> None:
    """The same weights; and left-out scores are those of fits that really left the row out."""
    X, y = drawn(n, d, 3, 7)
    ours = RidgeHead(0.1).fit(X, y)
    theirs = RidgeClassifier(alpha=0.1).fit(X, y)
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-8)
    assert np.allclose(ours.decision_function(X), theirs.decision_function(X))
    right = 0
    for i in range(n):
        keep = np.arange(n) != i
        right += RidgeClassifier(alpha=0.1).fit(X[keep], y[keep]).predict(X[[i]])[0] == y[i]
    assert ours.accuracy_ == pytest.approx(right / n)


def test_ridge_leaves_groups_out_whole() -> None:
    """With every picture there twice, closed-form scores are those of leaving both out."""
    X = drawn(30, 100, 2, 8)[0]
    y = np.random.default_rng(0).integers(0, 2, 30)  # nothing to learn but a row's own copy
    X, y, group = np.repeat(X, 2, 0), np.repeat(y, 2), np.repeat(np.arange(30), 2)
    ours = RidgeHead(0.01).fit(X, y, groups=group)
    right = 0
    for g in range(30):
        keep = group != g
        peer = RidgeClassifier(alpha=0.01).fit(X[keep], y[keep])
        right += (peer.predict(X[~keep]) == y[~keep]).sum()
    assert ours.accuracy_ == pytest.approx(right / 60)
    assert RidgeHead(0.01).fit(X, y).accuracy_ > ours.accuracy_


def test_ridge_chooses_as_scikit_learn_does() -> None:
    X, y = drawn(80, 150, 3, 9)
    grid = [0.01, 0.1, 1.0, 10.0]
    theirs = RidgeClassifierCV(grid, scoring="accuracy").fit(X, y)
    best = [RidgeHead(alpha).fit(X, y).accuracy_ for alpha in grid]
    chosen = RidgeHead(grid).fit(X, y)
    assert chosen.accuracy_ == max(best)
    assert best[grid.index(theirs.alpha_)] == pytest.approx(max(best), abs=0.03)


def test_nearest_mean_and_neighbours() -> None:
    """Means are the nearest; neighbours vote by angle, and a row of one's own group does not."""
    X, y = drawn(90, 50, 3, 10)
    means = np.stack([X[y == c].mean(0) for c in range(3)])
    distance = ((X[:, None] - means) ** 2).sum(2)
    assert np.array_equal(NearestMeanHead().fit(X, y).predict(X), distance.argmin(1))
    head = NeighboursHead(1).fit(X, y)
    assert np.array_equal(head.predict(X), y)
    twice, group = np.repeat(X, 2, 0), np.repeat(np.arange(90), 2)
    noise = np.repeat(np.random.default_rng(0).integers(0, 3, 90), 2)
    assert NeighboursHead([1, 50]).fit(twice, noise).n_neighbors_ == 1
    grouped = NeighboursHead([1, 50]).fit(X, y, groups=np.arange(90))
    assert grouped.n_neighbors_ in {1, 50}
    assert NeighboursHead([1, 50]).fit(twice, noise, groups=group)._choose is not None


heads = st.sampled_from(
    [
        LogisticHead(1.0, **TIGHT),
        LogisticHead([0.1, 10.0], cv=2, **TIGHT),
        SVMHead(1.0, tol=1e-8),
        SVMHead(1.0, kernel="rbf", gamma=0.5, tol=1e-8),
        RidgeHead(0.1),
        NearestMeanHead(),
        NeighboursHead(3),
    ]
)
cases = st.tuples(
    st.integers(24, 40), st.sampled_from([3, 40]), st.integers(2, 3), st.integers(0, 999)
)


@settings(deadline=None, max_examples=40)
@given(heads, cases)
def test_a_rotation_changes_nothing(head: Any, case: tuple[int, int, int, int]) -> None:
    """Rotating all rows leaves the probabilities as they are."""
    X, y = drawn(*case)
    Q = np.linalg.qr(np.random.default_rng(case[3]).normal(size=(case[1], case[1])))[0]
    before = head.fit(X, y).predict_proba(X)
    # Where all support vectors of a machine are at their bound, rounding chooses its intercept.
    atol = 1e-2 if isinstance(head, SVMHead) else 1e-4
    assert np.allclose(before, head.fit(X @ Q, y).predict_proba(X @ Q), atol=atol)


@settings(deadline=None, max_examples=40)
@given(heads, cases)
def test_the_order_of_rows_changes_nothing(head: Any, case: tuple[int, int, int, int]) -> None:
    """Shuffled rows train the same head, given the same folds."""
    X, y = drawn(*case)
    order = np.random.default_rng(case[3]).permutation(len(y))
    half = np.arange(len(y)) // case[2] % 2 == 0
    folds = [(np.flatnonzero(half), np.flatnonzero(~half))]
    folds += [(test, train) for train, test in folds]
    place = np.argsort(order)
    shuffled = [(place[a], place[b]) for a, b in folds]
    if hasattr(head, "cv"):
        before = head.set_params(cv=folds).fit(X, y).predict_proba(X)
        after = head.set_params(cv=shuffled).fit(X[order], y[order]).predict_proba(X)
        head.set_params(cv=2)
    else:
        before = head.fit(X, y).predict_proba(X)
        after = head.fit(X[order], y[order]).predict_proba(X)
    assert np.allclose(before, after, atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(heads, cases)
def test_weight_0_is_a_row_dropped(head: Any, case: tuple[int, int, int, int]) -> None:
    """Whatever is chosen and calibrated, a row of weight 0 has no part in it."""
    X, y = drawn(*case)
    weight = np.random.default_rng(case[3]).uniform(0.5, 2, len(y))
    weight[3 * case[2] :: 2] = 0
    kept = weight > 0
    with_zeros = head.fit(X, y, weight).predict_proba(X)
    assert np.array_equal(with_zeros, head.fit(X[kept], y[kept], weight[kept]).predict_proba(X))


def _coefficients(head: Any, X: Any) -> Any:
    return np.column_stack([head.coef_, head.intercept_])


#: Heads whose choices and calibration are set aside, and what weighing rows must not change then.
#: Of k neighbours a row of weight 2 is one, with two votes; of one neighbour that is all the same.
WEIGHED: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
    "logreg": (LogisticHead(1.0, **TIGHT), _coefficients),
    "balanced logreg": (LogisticHead(1.0, class_weight="balanced", **TIGHT), _coefficients),
    "svm": (SVMHead(1.0, tol=1e-8), SVMHead.decision_function),
    "balanced svm": (SVMHead(1.0, class_weight="balanced", tol=1e-8), SVMHead.decision_function),
    "svm-rbf": (SVMHead(1.0, kernel="rbf", gamma=0.5, tol=1e-8), SVMHead.decision_function),
    "ridge": (RidgeHead(0.1), _coefficients),
    "balanced ridge": (RidgeHead(0.1, class_weight="balanced"), _coefficients),
    "ncm": (NearestMeanHead(), lambda head, _: head.means_),
    "knn": (NeighboursHead(1), NeighboursHead.predict),
}


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(WEIGHED)), cases)
def test_weights_0_and_2_are_rows_dropped_and_doubled(
    name: str, case: tuple[int, int, int, int]
) -> None:
    """A row of weight 2 counts as two rows, one of weight 0 as none."""
    head, told = WEIGHED[name]
    X, y = drawn(*case)
    weight = np.random.default_rng(case[3]).integers(0, 3, len(y))
    weight[: 2 * case[2]] = np.maximum(weight[: 2 * case[2]], 1)
    weighed = told(head.fit(X, y, weight), X)
    doubled = told(head.fit(np.repeat(X, weight, 0), np.repeat(y, weight)), X)
    assert np.allclose(weighed, doubled, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(heads, cases)
def test_a_constant_feature_adds_nothing(head: Any, case: tuple[int, int, int, int]) -> None:
    """A feature of zeros changes nothing; neither does a constant, where only shape counts."""
    X, y = drawn(*case)
    zero = np.column_stack([X, np.zeros(len(y))])
    before = head.fit(X, y).predict_proba(X)
    assert np.allclose(before, head.fit(zero, y).predict_proba(zero), atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(range(6)), st.integers(2, 4), st.integers(0, 999))
def test_one_row_per_class_is_enough(which: int, classes: int, seed: int) -> None:
    """With one row of each class nothing can be chosen, and every head still knows its rows."""
    X, y = drawn(classes, 30, classes, seed)
    kinds = [LogisticHead(), SVMHead(), SVMHead(kernel="rbf"), RidgeHead(), NearestMeanHead()]
    head: Any = [*kinds, NeighboursHead()][which].fit(X, y)
    probability = head.predict_proba(X)
    assert np.isfinite(probability).all()
    if not isinstance(head, NeighboursHead):
        assert np.array_equal(head.predict(X), y)
