"""Figures: what they show is what they were given, in the same bytes every time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from headstart import plots
from headstart.errors import MissingExtraError
from headstart.heads.benchmark import Summary
from headstart.heads.curve import Curve, Point


def summary(mode: str, accuracy: float, *, extract: float = 12.0, train: float = 1.0) -> Summary:
    """Return one line of a table."""
    ci95 = (accuracy - 0.1, accuracy + 0.05)
    head = "svm" if mode == "frozen" else "-"
    return Summary(mode, head, accuracy, ci95, 0.5, extract, train, 9, 0.0, 1.0, 100.0, 3)


TABLE = [
    summary("frozen", 0.75, train=0.5),
    summary("finetune:mixed8", 0.7, train=20.0),
    summary("scratch+augment", 0.5, extract=0.0, train=60.0),
    summary("majority", 0.25, extract=0.0, train=0.0),
]
CURVE = Curve(
    tuple(
        Point(head, rows, accuracy, (accuracy - 0.1, accuracy + 0.1), 1.0)
        for head, values in {"frozen svm": (0.4, 0.6, 0.7), "scratch": (0.3, 0.4, 0.6)}.items()
        for rows, accuracy in zip((10, 20, 40), values, strict=True)
    ),
    "5 folds",
)


def test_every_mode_has_its_accuracy_and_interval() -> None:
    """Best first from above, named, in the colour and with the marker of its family."""
    (axes,) = plots.accuracies(TABLE).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["frozen svm", "finetune:mixed8", "scratch+augment", "majority"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    for place, (line, _, (bar,)) in enumerate(axes.containers):
        assert line.get_xydata().tolist() == [[TABLE[place].accuracy, place]]
        low, high = TABLE[place].ci95
        assert bar.get_segments()[0].tolist() == [
            [pytest.approx(low), place],
            [pytest.approx(high), place],
        ]
    looks = {(line.get_color(), line.get_marker()) for line, *_ in axes.containers}
    assert len({colour for colour, _ in looks}) == len({marker for _, marker in looks}) == 4


def test_time_is_extraction_and_training() -> None:
    """On a logarithmic scale, so what takes none is left out; the front is drawn."""
    (axes,) = plots.trade_off(TABLE).axes
    shown = sorted(tuple(point) for kind in axes.collections for point in kind.get_offsets())
    assert shown == [(12.5, 0.75), (32.0, 0.7), (60.0, 0.5)]
    assert axes.lines[0].get_xydata().tolist() == [[12.5, 0.75]]
    assert {text.get_text() for text in axes.texts} == set(map(_name, TABLE[:3]))


def _name(line: Summary) -> str:
    return plots.name_of(line.mode, line.head)


def test_names_of_close_points_do_not_cover_each_other() -> None:
    """Each has a line of its own."""
    close = [summary("frozen", 0.7 + 0.0001 * n, train=0.5 + 0.01 * n) for n in range(6)]
    figure = plots.trade_off([*close, TABLE[2]])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without its line
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_every_head_has_a_line_through_its_points() -> None:
    """A mark a point, and the axis names the numbers of rows."""
    (axes,) = plots.learning_curves(CURVE).axes
    found = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert found == {
        "frozen svm": [[10, 0.4], [20, 0.6], [40, 0.7]],
        "scratch": [[10, 0.3], [20, 0.4], [40, 0.6]],
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20", "40"]


def test_the_same_figure_has_the_same_bytes() -> None:
    """Of SVG without a date; a second figure of the same numbers too."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: plots.accuracies(TABLE),
        lambda: plots.trade_off(TABLE),
        lambda: plots.learning_curves(CURVE),
    )
    for make in makers:
        first = plots.svg(make())
        assert first == plots.svg(make())
        assert b"<dc:date>" not in first
        assert ET.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"


@given(
    st.lists(
        st.tuples(st.sampled_from([1.0, 2.0, 3.0, 9.0]), st.sampled_from([0.2, 0.5, 0.8])),
        min_size=1,
    )
)
def test_on_the_front_nothing_quicker_is_as_accurate(points: list[tuple[float, float]]) -> None:
    """And whatever is not on it is beaten by something that is."""
    timed = [summary("frozen", accuracy, train=seconds) for seconds, accuracy in points]
    best = plots.front(timed)
    for one in timed:
        better = [s for s in best if s.train_seconds <= one.train_seconds and s is not one]
        assert (one in best) or any(s.accuracy >= one.accuracy for s in better)
    assert all(
        a.train_seconds < b.train_seconds and a.accuracy < b.accuracy
        for a, b in itertools.pairwise(best)
    )


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line."""
    monkeypatch.setattr(plots, "available", lambda: False)
    with pytest.raises(MissingExtraError, match=r"headstart\[plots\]"):
        plots.accuracies(TABLE)
