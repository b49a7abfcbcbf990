"""Results of several seeds put together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headstart.heads.benchmark import Benchmark
from headstart.heads.modes import Record


def record(mode: str, right: str, seed: int = 0, **options: Any) -> Record:
    """Return a result with these rows right."""
    known: dict[str, Any] = {
        "head": "logreg",
        "log_loss": 0.5,
        "extract_seconds": 12.0,
        "train_seconds": 2.0,
        "trained_parameters": 1000,
        "epochs": 0,
        "predict_ms_per_image": 1.0,
    }
    accuracy = right.count("1") / len(right)
    return Record(mode, seed=seed, accuracy=accuracy, right=right, **(known | options))


def benchmark(*records: Record, resampled: bool = True) -> Benchmark:
    """Return a benchmark of 100 rows of two classes."""
    return Benchmark(records, 100, ("a", "b"), resampled, {"base_ms": 4.0, "usual_ms": 10.0})


def test_seeds_are_pooled() -> None:
    """Accuracy is over all rows measured, times are means, memory is the most."""
    found = benchmark(
        record("frozen", "1111011111", 0, train_seconds=1.0, peak_mb=100.0),
        record("frozen", "1111000000", 1, train_seconds=3.0, peak_mb=300.0),
    ).summaries()
    assert len(found) == 1
    assert found[0].accuracy == 13 / 20
    assert found[0].ci95 == pytest.approx((0.433, 0.819), abs=0.001)
    assert (found[0].train_seconds, found[0].peak_mb, found[0].seeds) == (2.0, 300.0, 2)
    assert found[0].predict_ms_per_image == 5.0  # the base, and what comes after it


def test_rows_that_several_seeds_measured_count_once() -> None:
    """On a given validation split, more seeds do not make the interval narrower."""
    one = benchmark(record("frozen", "1101111111"), resampled=False).summaries()[0]
    three = [record("frozen", "1101111111", seed) for seed in range(3)]
    assert benchmark(*three, resampled=False).summaries()[0].ci95 == one.ci95


def test_best_comes_first_and_others_are_tested_against_it() -> None:
    """A clear difference is told from one that may be chance, by folds and by rows."""
    good, near, bad = "1" * 49 + "0", "1" * 48 + "00", "01" * 25
    for resampled in (True, False):
        records = [
            record(mode, right, seed)
            for mode, right in (("scratch", bad), ("frozen", good), ("finetune:mixed9", near))
            for seed in range(3 if resampled else 1)
        ]
        best, second, last = benchmark(*records, resampled=resampled).summaries()
        assert (best.mode, best.p_value) == ("frozen", None)
        assert second.mode == "finetune:mixed9"
        assert last.p_value is not None
        assert last.p_value < 0.05
        table = str(benchmark(*records, resampled=resampled))
        assert "worse" in table.splitlines()[3]
        assert "not distinguishable" in table or resampled


def test_what_needs_no_features_pays_for_no_base() -> None:
    """From scratch, a prediction takes what the network takes."""
    found = benchmark(record("scratch", "1100", extract_seconds=0.0)).summaries()[0]
    assert found.predict_ms_per_image == 1.0


def test_break_even_is_extraction_over_a_training_without_a_cache() -> None:
    """12 s of extraction against 30 epochs of 100 pictures at 10 ms: 0.4 trainings."""
    paid = benchmark(record("frozen", "1", head="dense", epochs=30)).break_even()
    assert paid == {
        "epochs": 30.0,
        "usual_seconds": 30.0,
        "extract_seconds": 12.0,
        "trainings": pytest.approx(0.4),
    }


def test_answers_for_machines_and_documents() -> None:
    """JSON has a record a seed and a summary a mode; the document has a row a mode."""
    found = benchmark(record("frozen", "10", 0), record("scratch", "00", 0))
    content = json.loads(json.dumps(found.to_dict()))
    assert [entry["mode"] for entry in content["modes"]] == ["frozen", "scratch"]
    assert len(content["summary"]) == 2
    lines = found.to_markdown().splitlines()
    assert lines[0].startswith("| mode | head |")
    assert lines[2].startswith("| frozen | logreg | 0.500 |")
