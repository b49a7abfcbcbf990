"""What goes wrong and why, on answers whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart.heads import compare, mistakes
from headstart.heads.evaluation import Predictions

if TYPE_CHECKING:
    from collections.abc import Callable


def answers(true: Any, probability: Any) -> Predictions:
    p = np.asarray(probability, dtype=np.float32)
    rows = np.arange(len(true))
    return Predictions(rows, np.asarray(true), p.argmax(1), np.zeros(len(true), int), p)


def two(first: list[float]) -> list[list[float]]:
    return [[p, 1 - p] for p in first]


def test_a_comparison_keeps_what_each_head_answered(
    make_store: Callable[..., Any], draw: Callable[..., Any]
) -> None:
    """Every measured row once, by its number in the store, with the guess that was counted."""
    store = make_store(*draw(60))
    found = compare(store, ["logreg", "ncm"])
    for head in found.heads:
        kept = head.predictions
        assert sorted(kept.rows) == list(range(60))
        np.testing.assert_array_equal(kept.true, store.labels()[kept.rows])
        assert (kept.true == kept.guess).mean() == pytest.approx(head.accuracy)
        assert kept.probability is not None
        np.testing.assert_allclose(kept.probability.sum(1), 1, rtol=1e-5)
        for number, (_, test) in enumerate(found.evidence.splits):
            np.testing.assert_array_equal(kept.rows[kept.fold == number], test)
        assert "predictions" not in head.to_dict()
    assert "evidence" not in found.to_dict()


def test_reliability_counts_every_row_once() -> None:
    """Confidence and accuracy of each bin, and how many rows are behind it."""
    found = mistakes.reliability(answers([0, 0, 1, 1], two([0.95, 0.91, 0.92, 0.35])))
    assert [bin_.rows for bin_ in found] == [1, 3]
    assert found[1].accuracy == pytest.approx(2 / 3)
    assert found[1].confidence == pytest.approx((0.95 + 0.91 + 0.92) / 3)


def test_roc_of_a_class_against_the_rest() -> None:
    """The area is that of chance, or of perfection, where it should be; none without rows."""
    perfect = mistakes.roc(answers([0, 0, 1, 1], two([0.9, 0.8, 0.2, 0.1])), 0)
    assert perfect is not None
    assert perfect.area == 1
    assert mistakes.roc(answers([0, 0], two([0.9, 0.8])), 1) is None


def test_nearest_looks_at_training_rows_alone() -> None:
    """Neighbours come from the training part of the query's own split, nearest first."""
    Z = np.array([[0.0], [1.0], [3.0], [10.0], [11.0]])
    splits = [(np.array([1, 3]), np.array([0])), (np.array([0, 2, 4]), np.array([3]))]
    found = mistakes.nearest(Z, np.array([0, 3]), np.array([0, 1]), splits, k=3)
    assert found.positions.tolist() == [[1, 3, -1], [4, 2, 0]]
    assert found.distances[0].tolist() == [1, 10, np.inf]
    assert found.distances[1].tolist() == [1, 7, 10]


def test_a_swapped_label_is_suspected_first() -> None:
    """A row that is surely of the other class is the first suspect; sound rows are none."""
    true = [0] * 5 + [1] * 5
    p = [0.9, 0.8, 0.95, 0.85, 0.02, 0.1, 0.2, 0.05, 0.15, 0.1]
    found = mistakes.suspects(answers(true, two(p)))
    assert found.places.tolist() == [4]
    assert found.proposed.tolist() == [1]


def test_no_probabilities_no_suspects() -> None:
    """A head without probabilities accuses nobody."""
    rows = np.arange(3)
    blind = Predictions(rows, rows, rows[::-1], rows * 0, None)
    assert len(mistakes.suspects(blind).places) == 0
    assert mistakes.reliability(blind) == []
    assert mistakes.roc(blind, 0) is None


def test_near_duplicates_are_pairs_of_different_groups() -> None:
    """Almost parallel rows, the most alike first; those known to be the same are no news."""
    Z = np.array([[1.0, 0.0], [1.0, 0.01], [2.0, 0.1], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    groups = np.array([0, 1, 2, 3, 3, 4])
    found = mistakes.near_duplicates(Z, groups, similarity=0.99, most=10)
    assert found[0] == (0, 1)
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    assert len(mistakes.near_duplicates(Z, groups, similarity=0.99, most=1)) == 1


def test_reasons_of_mistakes() -> None:
    """Look-alikes, rows among their own, strangers and close calls are told apart."""
    codes = np.array([0, 0, 0, 1, 1, 1])
    given = answers([0, 0, 1, 1], two([0.1, 0.45, 0.9, 0.2]))  # three wrong, the last one right
    near = mistakes.Nearest(
        np.array([[3, 4, 5], [0, 1, 2], [0, 1, 3], [3, 4, 5]]),
        np.array([[1.0, 1, 1], [1, 1, 1], [9, 9, 9], [1, 1, 1]]),
    )
    found = mistakes.reasons(given, near, codes, np.arange(4))
    assert found == mistakes.Reasons(mistakes=3, lookalikes=2, outvoted=1, isolated=1, unsure=1)
