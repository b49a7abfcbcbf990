"""What a notebook shows of stores and results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headstart.heads import compare
from headstart.heads.benchmark import Benchmark
from headstart.heads.curve import learning_curve
from headstart.heads.modes import Record
from headstart.heads.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMES = ["<script>1</script>", "cat & dog", "c"]


@pytest.fixture
def store(make_store: Callable[..., Any], draw: Callable[..., Any]) -> Any:
    return make_store(*draw(60), classes=_NAMES)


def test_a_store_shows_its_classes(store: Any) -> None:
    """Counts by class, every name as text."""
    shown = store._repr_html_()
    assert '<th scope="row">&lt;script&gt;1&lt;/script&gt;</th><td>20</td>' in shown
    assert "cat &amp; dog" in shown
    assert "<script" not in shown
    assert "60 rows" in shown


def test_results_show_their_tables(store: Any) -> None:
    """Comparison, curve and sweep have a line for each head or layer, the best in bold."""
    found = compare(store, ["ncm", "knn"])
    shown = found._repr_html_()
    assert f"<b>{found.heads[0].head}</b>" in shown
    assert f"{found.heads[1].accuracy:.3f}" in shown
    assert "<script" not in shown
    assert "&lt;script" in shown  # the most frequent class
    assert "ncm" in learning_curve(store, ["ncm"], shares=(1.0,))._repr_html_()
    layers = sweep(store)
    assert f"<b>{layers.best.layer}</b>" in layers._repr_html_()


def test_a_benchmark_shows_its_modes() -> None:
    """A line for each mode, and those that failed."""
    numbers = {"accuracy": 0.5, "log_loss": 1.0, "extract_seconds": 1.0, "train_seconds": 2.0}
    rest = {"trained_parameters": 1, "epochs": 1, "predict_ms_per_image": 1.0}
    record = Record("frozen", "svm", 0, right="10", **numbers, **rest)  # type: ignore[arg-type]
    cost = {"base_ms": {"mixed7": 1.0}}
    bench = Benchmark((record,), 2, 2, "mixed7", ("a", "b"), False, cost, {"scratch": "<why>"})
    shown = bench._repr_html_()
    assert "<b>frozen</b>" in shown
    assert "scratch failed: &lt;why&gt;" in shown
