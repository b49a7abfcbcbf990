"""The notebook runs, from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "quickstart.ipynb"
#: What is made smaller here: weights that need no network, and few pictures.
_CHANGED = {'"imagenet"': '"random"', "per_class=60": "per_class=6", "[::50]": "[::5]"}


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_the_quickstart_runs(tmp_path: Path) -> None:
    """Every cell runs, each result shows as a table, and a report and a model are there."""
    text = NOTEBOOK.read_text("utf-8")
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") for cell in notebook.cells)
    for cell in notebook.cells:
        for old, new in _CHANGED.items():
            assert old in text or old.replace('"', '\\"') in text
            cell.source = cell.source.replace(old, new)
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [
        output.data.get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    assert sum("<table>" in html for html in shown) >= 4
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "is best" in page
    assert (tmp_path / "best.model").is_file()
