"""Learning curves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headstart.errors import HeadError
from headstart.heads import compare
from headstart.heads import curve as module
from headstart.heads.curve import learning_curve

Make = Callable[..., Any]


def test_more_rows_help_where_there_is_something_to_learn(make_store: Make, draw: Make) -> None:
    """Accuracy rises with the rows, from near chance; all points measure the same rows."""
    store = make_store(*draw(240, signal=0.25))
    told: list[tuple[str, int, int]] = []
    found = learning_curve(store, ["logreg", "ncm"], progress=lambda *step: told.append(step))
    sizes = [point.rows for point in found.points if point.head == "logreg"]
    assert sizes == [12, 24, 48, 96, 192]
    accuracy = [point.accuracy for point in found.points if point.head == "logreg"]
    assert accuracy[0] < accuracy[-1] - 0.1
    assert accuracy[-1] > 0.7
    assert all(low <= p.accuracy <= high for p in found.points for low, high in [p.ci95])
    assert found.gain("logreg") == pytest.approx(accuracy[-1] - accuracy[-2])
    assert [step for step in told if step[0] == "learning curve"][-1] == ("learning curve", 10, 10)
    assert json.loads(json.dumps(found.to_dict()))["points"][0]["rows"] == 12
    assert str(found).splitlines()[1].split() == ["rows", *map(str, sizes), "last", "step"]


def test_all_rows_give_what_the_comparison_gives(make_store: Make, draw: Make) -> None:
    """The last point of a curve is the accuracy in the table."""
    store = make_store(*draw(90, signal=0.2))
    table = {head.head: head.accuracy for head in compare(store, ["logreg", "svm"]).heads}
    curve = learning_curve(str(store.path), ["logreg", "svm"], shares=[0.5, 1.0])
    assert {p.head: p.accuracy for p in curve.points if p.rows == 72} == table


def test_parts_are_stratified_and_nested() -> None:
    """A larger part holds a smaller one, and classes keep their shares."""
    codes = np.repeat([0, 1], [60, 20])
    train = np.arange(0, 80, 2)
    parts = [module._some(train, codes, share, seed=3) for share in (0.25, 0.5, 1.0)]
    assert set(parts[0]) < set(parts[1]) < set(parts[2]) == set(train)
    assert [list(np.bincount(codes[part])) for part in parts] == [[8, 2], [15, 5], [30, 10]]


def test_too_few_rows_are_refused(make_store: Make, draw: Make) -> None:
    """A part needs two rows of every class; where none has, that is said."""
    store = make_store(*draw(15))
    assert {point.rows for point in learning_curve(store, ["ncm"]).points} == {6, 12}
    with pytest.raises(HeadError, match="two training rows of every class"):
        learning_curve(store, ["ncm"], shares=[0.1])
