"""Progress bars: only on a terminal, only for what takes time."""

from __future__ import annotations

import io

import pytest

from headstart import _bars
from headstart._bars import Bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("quiet", "terminal"), [(True, True), (False, False)])
def test_silent(monkeypatch: pytest.MonkeyPatch, quiet: bool, terminal: bool) -> None:
    """With ``--quiet``, or where nobody watches, nothing is written."""
    screen = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(_bars, "_PATIENCE", -1.0)
    with Bars(quiet=quiet) as bars:
        bars("reading", 1, 2)
    assert screen.getvalue() == ""


def test_bar_with_rate_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that takes time shows its name, counts and unit; a quick one nothing."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with Bars() as bars:
        bars("reading", 1, 2)
        assert screen.getvalue() == ""
        monkeypatch.setattr(_bars, "_PATIENCE", -1.0)
        bars("extracting", 5, 50)
        bars("extracting", 50, 50)
    shown = screen.getvalue()
    assert "extracting" in shown
    assert "images" in shown
    assert "reading" not in shown


def test_one_bar_while_only_the_brackets_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """What limits a stage is said beside it, and the counts go on; a new stage starts anew."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(_bars, "_PATIENCE", -1.0)
    with Bars() as bars:
        bars("extracting", 1, 9)
        first = bars._bar
        bars("extracting (limited by decoding)", 2, 9)
        assert bars._bar is first
        assert first.n == 2
        assert first.desc.startswith("extracting (limited by decoding)")
        bars("judging layers", 1, 9)
        assert bars._bar is not first
