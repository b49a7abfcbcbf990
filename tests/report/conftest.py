"""A store with pictures of its own, all that can be run on it, and the page of that."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

import fakes
from headstart.cache import Store
from headstart.extract import Settings, fill_store
from headstart.heads import compare
from headstart.heads.benchmark import Benchmark
from headstart.heads.curve import learning_curve
from headstart.heads.modes import Record
from headstart.heads.sweep import sweep
from headstart.report.gather import gathered
from headstart.report.page import page

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.heads import Comparison
    from headstart.report.content import Report


@dataclass(frozen=True)
class Scene:
    """What the tests of this folder look at."""

    data: Path
    store: Store
    comparison: Comparison
    report: Report
    file: Path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    """Give three classes of pictures, one twice under two labels, one broken; and their store."""
    root = tmp_path_factory.mktemp("report")
    data = fakes.draw_classes(root / "pets", ("cat", "dog", "hen"), 16)
    shutil.copy(data / "cat" / "0000.png", data / "dog" / "0099.png")
    (data / "hen" / "broken.png").write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch)
        settings = Settings(layers=("mixed5", "mixed7"), size=16, weights="random")
        store, _ = fill_store(data, root / "pets.features", settings)
    return data, store


def benchmark(store: Store) -> Benchmark:
    """Return results of modes that were never run."""
    common = {"log_loss": 1.0, "trained_parameters": 9, "epochs": 2, "predict_ms_per_image": 1.0}
    modes = [
        ("frozen", "logreg", "1110", 2.0, 0.5),
        ("finetune:mixed8", "softmax", "1100", 2.0, 30.0),
        ("scratch", "convnet", "1000", 0.0, 60.0),
        ("majority", "-", "1000", 0.0, 0.0),
    ]
    records = tuple(
        Record(
            mode=mode,
            head=head,
            seed=seed,
            accuracy=right.count("1") / 4,
            right=right * 10,
            extract_seconds=extract,
            train_seconds=train,
            **common,  # type: ignore[arg-type]
        )
        for mode, head, right, extract, train in modes
        for seed in (0, 1)
    )
    cost = {"base_ms": {"mixed7": 1.0, "mixed8": 2.0, "all": 3.0}, "usual_ms": 5.0}
    found = Benchmark(records, 50, 40, "mixed7", store.classes, resampled=True, cost=cost)
    halves = [replace(record, share=0.5, rows=20) for record in records if record.mode == "scratch"]
    return replace(found, parts=tuple(halves))


@pytest.fixture(scope="session")
def scene(pictures: tuple[Path, Store], tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Give a report with every part, and its page."""
    data, store = pictures
    comparison = compare(store, ["logreg", "ridge", "knn"], layer="mixed7", cv=3)
    report = gathered(
        comparison,
        curve=learning_curve(store, ["logreg", "ridge"], cv=3, shares=(0.5, 1.0)),
        sweep=sweep(store),
        bench=benchmark(store),
        tsne=True,
    )
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page(report), encoding="utf-8")
    return Scene(data, store, comparison, report, file)
