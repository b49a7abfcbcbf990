"""Results of several seeds put together."""

from __future__ import annotations

import json
from dataclasses import replace
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
    return Benchmark(
        records=records,
        rows=100,
        trained=80,
        layer="mixed7",
        classes=("a", "b"),
        resampled=resampled,
        cost={"base_ms": {"mixed7": 4.0, "mixed9": 6.0}, "usual_ms": 10.0},
    )


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


def test_folds_of_a_second_round_measure_no_new_rows() -> None:
    """Five seeds measure all 100 rows; more of them do not make the interval narrower."""
    seeds = [record("frozen", "1" * 15 + "0" * 5, seed) for seed in range(7)]
    five, three = benchmark(*seeds[:5]).summaries()[0], benchmark(*seeds[:3]).summaries()[0]
    assert benchmark(*seeds).summaries()[0].ci95 == five.ci95
    assert three.ci95[1] - three.ci95[0] > five.ci95[1] - five.ci95[0]


def _wrong(*counts: int) -> list[str]:
    """Return results of 50 rows each with these many wrong."""
    return ["0" * count + "1" * (50 - count) for count in counts]


@pytest.mark.parametrize("resampled", [True, False])
def test_best_comes_first_and_others_are_tested_against_it(resampled: bool) -> None:
    """A clear difference is told from one that may be chance, by folds and by rows."""
    wrong = {
        "scratch": _wrong(25, 27, 24),
        "frozen": _wrong(1, 2, 1),
        "finetune:mixed9": _wrong(2, 1, 3),
    }
    records = [
        record(mode, right, seed)
        for mode, results in wrong.items()
        for seed, right in enumerate(results)
    ]
    found = benchmark(*records, resampled=resampled)
    best, second, last = found.summaries()
    assert (best.mode, best.p_value) == ("frozen", None)
    assert second.mode == "finetune:mixed9"
    assert last.p_value is not None
    assert last.p_value < 0.05
    table = str(found).splitlines()[1:4]
    assert [line.split()[0] for line in table] == [s.mode for s in found.summaries()]
    verdicts = ("best", "not distinguishable", "worse")
    assert all(line.endswith(verdict) for line, verdict in zip(table, verdicts, strict=True))


def test_rows_measured_again_are_no_new_rows_for_the_test() -> None:
    """Of one round of folds the rows are tested; of more rounds the folds, by the corrected t."""
    records = [
        record(mode, "1" * (18 - 2 * worse) + "0" * (2 + 2 * worse), seed)
        for worse, mode in enumerate(("frozen", "scratch"))
        for seed in range(7)
    ]
    one = [one for one in records if one.seed < 5]
    assert benchmark(*one).summaries()[1].p_value == pytest.approx(2 / 2**10)
    assert "McNemar's exact test" in str(benchmark(*one))
    many = benchmark(*records)
    assert many.summaries()[1].p_value != pytest.approx(2 / 2**14)
    assert "corrected resampled t" in str(many)


def test_modes_without_a_seed_in_common_are_not_tested() -> None:
    """There is nothing to pair; the correction is for the tests that were made."""
    records = [record("frozen", "1" * 10, 0), record("scratch", "1" * 9 + "0", 1)]
    found = benchmark(*records, record("majority", "0" * 10, 0))
    assert [summary.p_value for summary in found.summaries()] == [None, None, 2 / 2**10]
    lines = str(found).splitlines()
    assert lines[1].endswith("  best")
    assert lines[2].endswith("  -")


def test_a_failed_mode_is_named() -> None:
    """Under the table, with the reason, and in the answer for machines."""
    why = "finetune:mixed9 diverged at seed 0"
    found = replace(benchmark(record("frozen", "10")), failed={"finetune:mixed9 softmax": why})
    assert f"finetune:mixed9 softmax failed: {why}" in str(found).splitlines()
    assert found.to_dict()["failed"] == {"finetune:mixed9 softmax": why}


def test_the_base_is_paid_for_up_to_the_cut() -> None:
    """Above mixed9 a network waits for more of the base than a head at mixed7."""
    found = benchmark(record("frozen", "11"), record("finetune:mixed9", "10"))
    assert [summary.predict_ms_per_image for summary in found.summaries()] == [5.0, 7.0]


def test_the_row_space_is_accounted_for() -> None:
    """It is in no one's training time, so a note says what it took."""
    records = [record("frozen", "11", seed, form_seconds=3.25 - 3 * seed) for seed in range(2)]
    assert "row space of all rows, which frozen heads share, took 3.25 s" in str(
        benchmark(*records)
    )


def test_what_needs_no_features_pays_for_no_base() -> None:
    """From scratch, a prediction takes what the network takes."""
    found = benchmark(record("scratch", "1100", extract_seconds=0.0)).summaries()[0]
    assert found.predict_ms_per_image == 1.0


def test_break_even_is_extraction_over_a_training_without_a_cache() -> None:
    """12 s of extraction against 30 epochs of 80 pictures at 10 ms: half a training."""
    paid = benchmark(record("frozen", "1", head="dense", epochs=30)).break_even()
    assert paid == {
        "epochs": 30.0,
        "usual_seconds": 24.0,
        "extract_seconds": 12.0,
        "trainings": pytest.approx(0.5),
    }


def test_the_learning_curve_ends_in_the_table() -> None:
    """Parts are points; the last one is what the mode reached on all rows."""
    parts = [
        record("frozen", "1010", seed, share=0.5, rows=40 + seed, train_seconds=1.0)
        for seed in (0, 1)
    ]
    whole = [record("frozen", "1110", seed, rows=80 + seed) for seed in (0, 1)]
    others = [record("scratch", "1000", seed, rows=80 + seed) for seed in (0, 1)]
    found = benchmark(*whole, *others)
    assert found.curve() is None
    found = replace(found, parts=tuple(parts))
    curve = found.curve()
    assert curve is not None
    points = [(point.head, point.rows, point.accuracy) for point in curve.points]
    assert points == [("frozen logreg", 40, 0.5), ("frozen logreg", 80, 0.75)]
    assert curve.points[0].fit_seconds == 1.0
    assert curve.points[1].ci95 == next(s.ci95 for s in found.summaries() if s.mode == "frozen")
    assert "as many steps" in str(found)
    content = json.loads(json.dumps(found.to_dict()))
    assert [entry["share"] for entry in content["curve"]] == [0.5, 0.5]
    assert len(content["modes"]) == 4
    assert len(content["learning_curve"]["points"]) == 2


def test_results_without_a_count_of_rows_have_the_usual_one() -> None:
    """Files of before did not keep it."""
    found = benchmark(record("frozen", "11"))
    curve = replace(found, parts=(record("frozen", "10", share=0.25, rows=20),)).curve()
    assert curve is not None
    assert [point.rows for point in curve.points] == [20, 80]


def test_answers_for_machines_and_documents() -> None:
    """JSON has a record a seed and a summary a mode; the document has a row a mode."""
    found = benchmark(record("frozen", "10", 0), record("scratch", "00", 0))
    content = json.loads(json.dumps(found.to_dict()))
    assert [entry["mode"] for entry in content["modes"]] == ["frozen", "scratch"]
    assert len(content["summary"]) == 2
    lines = found.to_markdown().splitlines()
    assert lines[0].startswith("| mode | head |")
    assert lines[2].startswith("| frozen | logreg | 0.500 |")
