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
from headstart.heads.splits import Labelled

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


def test_a_single_point_is_no_step(make_store: Make, draw: Make) -> None:
    """What more rows would buy was not measured then."""
    curve = learning_curve(make_store(*draw(60)), ["ncm"], shares=[1.0], cv=3)
    assert str(curve).splitlines()[-1].split()[-1] == "-"
    assert ">-<" in curve._repr_html_()


def test_classes_are_weighted_by_name(make_store: Make, draw: Make) -> None:
    """As in the table, and the protocol says so."""
    store = make_store(*draw(90, signal=0.2))
    options: dict[str, Any] = {"class_weight": {"class 2": 30}, "cv": 3}
    (head,) = compare(store, ["logreg"], **options).heads
    (point,) = (found := learning_curve(store, ["logreg"], shares=[1.0], **options)).points
    assert point.accuracy == head.accuracy
    assert "class 2 weighs 30 (others 1)" in found.protocol
    with pytest.raises(HeadError, match="'class 3', which is not a class"):
        learning_curve(store, ["logreg"], class_weight={"class 3": 2})


def _rows(codes: Any, groups: Any = None) -> Labelled:
    """Return labelled rows of these classes and groups."""
    each = np.arange(len(codes))
    none = np.zeros(len(codes), bool)
    return Labelled(each, codes, each if groups is None else groups, each, none, ~none)


def test_parts_are_stratified_and_nested() -> None:
    """A larger part holds a smaller one, and classes keep their shares."""
    codes = np.repeat([0, 1], [60, 20])
    train = np.arange(0, 80, 2)
    parts = [module._some(train, _rows(codes), share, seed=3) for share in (0.25, 0.5, 1.0)]
    assert set(parts[0]) < set(parts[1]) < set(parts[2]) == set(train)
    assert [list(np.bincount(codes[part])) for part in parts] == [[8, 2], [15, 5], [30, 10]]


def test_parts_keep_groups_whole() -> None:
    """Of a group all training rows are in a part or none, also under two labels."""
    draw = np.random.default_rng(0)
    groups, codes = draw.integers(0, 60, 200), draw.integers(0, 3, 200)
    train = np.flatnonzero(groups % 5 > 0)
    parts = [module._some(train, _rows(codes, groups), 2.0**-n, seed=1) for n in range(4)]
    for part, larger in zip(parts[1:], parts[:-1], strict=True):
        assert set(part) < set(larger) <= set(train)
        rest = np.setdiff1d(train, part)
        assert not set(groups[part]) & set(groups[rest])
    assert 0.5 <= len(parts[1]) / len(train) < 0.7


def test_the_table_for_a_document(make_store: Make, draw: Make) -> None:
    """A line a head, a column a number of rows."""
    lines = learning_curve(make_store(*draw(30)), ["ncm"]).to_markdown().splitlines()
    assert lines[0] == "| rows | 6 | 12 | 24 | last step |"
    assert lines[2].startswith("| ncm | 0.")


def test_too_few_rows_are_refused(make_store: Make, draw: Make) -> None:
    """A part needs two rows of every class; where none has, that is said."""
    store = make_store(*draw(15))
    assert {point.rows for point in learning_curve(store, ["ncm"]).points} == {6, 12}
    with pytest.raises(HeadError, match="two training rows of every class"):
        learning_curve(store, ["ncm"], shares=[0.1])
