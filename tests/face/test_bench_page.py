"""A benchmark as a page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from headstart import _bench_page, _words, plots
from headstart._bench_page import MARK, check_page, write_page
from headstart.errors import HeadError
from headstart.heads.benchmark import Benchmark
from headstart.heads.modes import Record

if TYPE_CHECKING:
    from pathlib import Path

RUN = {"date": "2026-01-31", "machine": "2 cores", "versions": {"headstart": "0.1.0"}}


@pytest.fixture
def found() -> Benchmark:
    """Return a benchmark of two modes and a learning curve."""
    known: dict[str, Any] = {"head": "svm", "seed": 0, "log_loss": 0.5, "extract_seconds": 12.0}
    known |= {"trained_parameters": 9, "epochs": 0, "predict_ms_per_image": 1.0, "rows": 80}
    frozen = Record("frozen", accuracy=0.75, right="1110", train_seconds=2.0, **known)
    return Benchmark(
        records=(frozen, replace(frozen, mode="scratch", accuracy=0.5, right="1100")),
        rows=100,
        trained=80,
        layer="mixed7",
        classes=("a", "b_*"),
        resampled=True,
        cost={"base_ms": {"mixed7": 4.0}, "usual_ms": 10.0},
        parts=(replace(frozen, share=0.5, rows=40),),
        runs=(RUN,),
    )


def test_a_page_says_what_ran_when_and_on_what(found: Benchmark, tmp_path: Path) -> None:
    """Table, notes, learning curve, command, machine and versions, plots beside it."""
    page = tmp_path / "speed.md"
    write_page(found, page, name="pets", command="headstart bench pets -o out")
    text = page.read_text("utf-8")
    assert text.startswith(f"{MARK}\n# Frozen, fine-tuned, from scratch: pets\n")
    for words in (
        "100 labelled rows, 2 classes",
        "```sh\nheadstart bench pets -o out\n```",
        "Run on 2026-01-31, 2 cores; headstart 0.1.0.",
        "| frozen | svm | 0.750 |",
        "| frozen svm | 0.750 | 0.750 | +0.000 |",
        "(speed-accuracy.svg)",
        "(speed-time.svg)",
        "(speed-curve.svg)",
    ):
        assert words in text
    assert len(list(tmp_path.glob("speed-*.svg"))) == 3


def test_without_a_curve_or_matplotlib_a_page_has_less(
    found: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No section, and no link to a plot that is not there."""
    monkeypatch.setattr(plots, "available", lambda: False)
    write_page(replace(found, parts=()), tmp_path / "page.md", name="pets", command="")
    text = (tmp_path / "page.md").read_text("utf-8")
    assert "svg" not in text
    assert "training rows\n" not in text
    assert "```" not in text
    assert [file.name for file in tmp_path.iterdir()] == ["page.md"]
    assert "headstart[plots]" in _words.benched("out", None)
    assert "\n" not in _words.benched("out", None)


def test_a_page_goes_over_nothing_but_a_page(found: Benchmark, tmp_path: Path) -> None:
    """Other files stay as they are; the place is refused before anything is computed."""
    page = tmp_path / "page.md"
    assert check_page(page) == page
    write_page(found, page, name="pets", command="")
    assert check_page(str(page)) == page
    page.write_text("# Mine\n")
    with pytest.raises(HeadError, match="is there already"):
        check_page(page)
    page.write_bytes(b"\xff" * 200)
    with pytest.raises(HeadError, match="is there already"):
        check_page(page)
    for place in (tmp_path / "page.html", tmp_path / "nowhere" / "page.md"):
        with pytest.raises(HeadError, match="a folder that exists"):
            check_page(place)
    assert _bench_page.MARK.startswith("<!--")
