"""What a report shows, as plain data: no files, no figures, no HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headstart.heads.benchmark import Benchmark
    from headstart.heads.comparison import Comparison
    from headstart.heads.curve import Curve
    from headstart.heads.mistakes import Bin, Reasons, Roc
    from headstart.heads.sweep import Sweep
    from headstart.report.pictures import Gallery

#: How heads are called in a sentence.
WORDS = {
    "logreg": "logistic regression",
    "svm": "a linear SVM",
    "svm-rbf": "an SVM with an RBF kernel",
    "ridge": "ridge regression",
    "ncm": "the nearest class mean",
    "knn": "k nearest neighbours",
    "dense": "a dense network",
}


@dataclass(frozen=True)
class Named:
    """A row of the store, as people know it."""

    row: int
    path: str
    label: str


@dataclass(frozen=True)
class Cell:
    """One field of a confusion matrix: how many, and the rows of some of them, surest first."""

    true: str
    guess: str
    count: int
    share: float
    rows: tuple[int, ...]
    right: bool


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of a head, of all classes or of those with most mistakes."""

    head: str
    classes: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    left_out: int
    most: tuple[Cell, ...]


@dataclass(frozen=True)
class ClassScore:
    """How the best head does on one class."""

    name: str
    rows: int
    recall: float
    ci95: tuple[float, float]
    precision: float | None
    area: float | None


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, and the training rows nearest to the picture."""

    of: Named
    guess: str
    probability: float
    of_label: float
    near: tuple[Named, ...]
    agree: int


@dataclass(frozen=True)
class Trust:
    """How far probabilities of a head can be trusted."""

    head: str
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Map:
    """Rows as points; `shares` of the variance where they are principal components."""

    key: str
    points: NDArray[np.float64]
    rows: tuple[int, ...]
    codes: NDArray[np.int64]
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Quality:
    """What is odd about the data."""

    across_splits: tuple[tuple[Named, ...], ...]
    across_labels: tuple[tuple[Named, ...], ...]
    identical: int
    alike: tuple[tuple[Named, Named], ...]
    alike_rows: int
    suspects: tuple[Mistake, ...]
    suspected: int


@dataclass(frozen=True)
class Facts:
    """What is in the store, and what it cost."""

    store: str
    rows: int
    classes: dict[str, int]
    splits: dict[str, int]
    layers: dict[str, str]
    bytes: int
    extract_seconds: float
    spec: dict[str, Any]
    settings: dict[str, str]
    created: str
    versions: dict[str, str]
    left_out: tuple[tuple[str, int, str], ...]
    duplicates: int


@dataclass(frozen=True)
class Insight:
    """What a comparison shows beyond its table.

    `judged` is the head that mistakes are looked at of: the best one with probabilities. Of
    `sampled` pictures the nearest training pictures were sought, `neighbours` each.
    """

    comparison: Comparison
    judged: str
    neighbours: int
    confusions: tuple[Confusion, ...]
    classes: tuple[ClassScore, ...]
    curves: tuple[tuple[str, Roc], ...]
    trust: tuple[Trust, ...]
    mistakes: tuple[Mistake, ...]
    reasons: Reasons
    sampled: int
    maps: tuple[Map, ...]
    quality: Quality


@dataclass(frozen=True)
class Report:
    """All a page shows."""

    title: str
    answer: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: Facts
    insight: Insight
    gallery: Gallery
    named: dict[int, Named]
    commands: tuple[str, ...]
    curve: Curve | None = None
    sweep: Sweep | None = None
    bench: Benchmark | None = None
    bench_answer: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: the answer, the comparison, and which pictures to look at."""
        quality, why = self.insight.quality, self.insight.reasons
        more = {"curve": self.curve, "sweep": self.sweep, "bench": self.bench}
        return {
            "answer": list(self.answer),
            "warnings": list(self.warnings),
            "comparison": self.insight.comparison.to_dict(),
            "mistakes": why._asdict(),
            "suspected_labels": [one.of.path for one in quality.suspects],
            "pictures": self.gallery.words,
            **{name: found.to_dict() for name, found in more.items() if found is not None},
        }
