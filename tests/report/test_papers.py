"""Figures and tables for papers."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from headstart.errors import HeadstartError
from headstart.report.papers import as_csv, as_latex, write_figures
from payloads import PAYLOADS

if TYPE_CHECKING:
    from pathlib import Path


def test_every_figure_as_svg_and_pdf_every_table_as_csv_and_latex(
    scene: Any, tmp_path: Path
) -> None:
    """The files open, hold something, and are the same bytes when written again."""
    written = write_figures(scene.report, tmp_path / "figures")
    names = {path.name for path in written}
    for key in ("accuracy", "confusion", "roc", "reliability", "pca", "curve", "sweep", "modes"):
        assert {f"{key}.svg", f"{key}.pdf"} <= names
    assert {"heads.csv", "heads.tex", "confusion.csv", "classes.tex"} <= names
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".svg":
            assert ET.fromstring(content).tag.endswith("svg")
        elif path.suffix == ".pdf":
            assert content.startswith(b"%PDF")
            assert content.rstrip().endswith(b"%%EOF")
        else:
            assert content.count(b"\n") > 1
    heads = list(csv.DictReader(io.StringIO((tmp_path / "figures/heads.csv").read_text("utf-8"))))
    best = scene.comparison.heads[0]
    assert heads[0]["head"] == best.head
    assert float(heads[0]["accuracy"]) == pytest.approx(best.accuracy, abs=1e-4)
    before = (tmp_path / "figures" / "accuracy.svg").read_bytes()
    write_figures(scene.report, tmp_path / "figures")
    assert (tmp_path / "figures" / "accuracy.svg").read_bytes() == before


@pytest.mark.parametrize("name", PAYLOADS)
def test_names_are_text(name: str) -> None:
    """Any name is one cell of a table, and commands nothing."""
    rows = (("class", "rows"), (name, "1"))
    latex = as_latex(rows)
    assert latex.count("\n") == 7
    bare = latex.replace(r"\textbackslash{}", "").replace(r"\_", "").replace(r"\%", "")
    assert "_" not in bare
    assert "%" not in bare
    parsed = list(csv.reader(io.StringIO(as_csv(rows))))
    assert len(parsed) == 2
    assert len(parsed[1]) == 2


def test_a_file_is_no_folder(scene: Any, tmp_path: Path) -> None:
    """A place that is taken is named."""
    (tmp_path / "taken").touch()
    with pytest.raises(HeadstartError, match="needs a folder"):
        write_figures(scene.report, tmp_path / "taken")
