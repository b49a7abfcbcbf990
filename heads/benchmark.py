"""The results of a benchmark, put together over seeds, as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.heads import metrics
from headstart.heads.curve import Curve, Point
from headstart.heads.modes import layer_of
from headstart.heads.splits import FOLDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headstart.heads.modes import Record

_HEADER = (
    *("mode", "head", "accuracy", "95%", "log loss", "extract s", "train s", "trained"),
    *("peak MB", "ms/image", "against the best"),
)
_SIGNIFICANT = 0.05
_COLUMNS = """\
extract s: features of all layers, once for every mode that reads them. train s: mean of a seed, \
with the choice of hyperparameters, the rows held out to know when to stop, and compilation. \
trained: parameters. peak MB: of the process that ran all seeds of a mode. ms/image: from decoded \
pixels, the base up to the layer in batches of 32, and what comes after it."""
_CURVE = """\
Parts of the training rows are stratified, and each holds the smaller ones; all are measured on \
the same rows as the table. Networks take as many steps, at most, with a part as with all, in more \
epochs."""
_MCNEMAR = "McNemar's exact test on the rows that were measured"
_EPOCHS = 20  # of a training without a cache, where no dense head was trained here


@dataclass(frozen=True)
class Summary:
    """One mode over all its seeds.

    Attributes
    ----------
    mode, head : str
    accuracy : float
        Mean over the measured rows of all seeds.
    ci95 : tuple of float
        Wilson interval; a row that several seeds measured counts once.
    log_loss : float
    extract_seconds : float
        Once.
    train_seconds : float
        Mean of a seed.
    trained_parameters : int
    epochs : float
        Mean of a seed.
    predict_ms_per_image : float
        From decoded pixels: the base, where there is one, and what comes after it.
    peak_mb : float
        Of the process that ran it, in 10^6 bytes.
    seeds : int
    p_value : float or None
        Of the paired test against the best, Holm-corrected; None for the best itself, and where
        no seed was run with both.
    """

    mode: str
    head: str
    accuracy: float
    ci95: tuple[float, float]
    log_loss: float
    extract_seconds: float
    train_seconds: float
    trained_parameters: int
    epochs: float
    predict_ms_per_image: float
    peak_mb: float
    seeds: int
    p_value: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """Every mode on the same rows, splits and seeds; printing it gives the table.

    Attributes
    ----------
    records : tuple of Record
    rows : int
        Labelled rows.
    trained : int
        Those of them that one seed trains on.
    layer : str
        What frozen heads are trained on.
    classes : tuple of str
    resampled : bool
        Whether each seed has a fold of its own; else all share the given validation split.
    cost : dict
        See `headstart.heads.modes.base_cost`.
    failed : dict of str to str
        Modes that could not be run to the end, and why.
    parts : tuple of Record
        Results with shares of the training rows, of the modes that a learning curve was asked of.
    runs : tuple of dict
        When, on what machine and with which versions results were added; ``where`` says on what
        share of a cluster, if on one.
    """

    records: tuple[Record, ...]
    rows: int
    trained: int
    layer: str
    classes: tuple[str, ...]
    resampled: bool
    cost: dict[str, Any]
    failed: dict[str, str] = field(default_factory=dict)
    parts: tuple[Record, ...] = ()
    runs: tuple[dict[str, Any], ...] = ()

    def summaries(self) -> list[Summary]:
        """Return every mode, best accuracy first, each tested against the best."""
        groups: dict[tuple[str, str], list[Record]] = {}
        for record in sorted(self.records, key=lambda record: record.seed):
            groups.setdefault((record.mode, record.head), []).append(record)
        found = [(self._summary(records), records) for records in groups.values()]
        found.sort(key=lambda pair: (-pair[0].accuracy, pair[0].log_loss))
        if not found:
            return []
        best = found[0]
        raw = [self._p_value(best[1], records) for _, records in found[1:]]
        corrected = iter(metrics.holm([p for p in raw if p is not None]))
        p_values = [None if p is None else next(corrected) for p in raw]
        others = zip(found[1:], p_values, strict=True)
        return [best[0], *(replace(summary, p_value=p) for (summary, _), p in others)]

    def curve(self) -> Curve | None:
        """Return accuracy against training rows of the modes with `parts`; None without any.

        Of the whole training rows it is what the table says.
        """
        modes = {(record.mode, record.head) for record in self.parts}
        whole = [record for record in self.records if (record.mode, record.head) in modes]
        points: dict[tuple[str, str, float], list[Record]] = {}
        trained: dict[float, dict[int, int]] = {}
        for record in (*self.parts, *whole):
            points.setdefault((record.mode, record.head, record.share), []).append(record)
            trained.setdefault(record.share, {})[record.seed] = record.rows or self.trained
        rows = {share: round(float(np.mean([*of.values()]))) for share, of in trained.items()}
        found = [
            Point(
                head=f"{mode} {head}" if mode.startswith("frozen") else mode,
                rows=rows[share],
                accuracy=self._accuracy(records)[0],
                ci95=self._accuracy(records)[1],
                fit_seconds=float(np.mean([record.train_seconds for record in records])),
            )
            for (mode, head, share), records in sorted(points.items(), key=lambda one: one[0][2])
        ]
        return Curve(tuple(found), self._how()) if self.parts else None

    def curve_notes(self) -> str:
        """Return how the learning curve was measured."""
        return f"{_CURVE} {self._how()[0].upper()}{self._how()[1:]}."

    def break_even(self) -> dict[str, float]:
        """Return after how many trainings extraction has paid for itself.

        Returns
        -------
        dict
            ``epochs``: of one training (the dense head's, as measured); ``usual_seconds``: what
            running an unmodified base on the training rows in each of them takes;
            ``extract_seconds``: what extraction took, once; ``trainings``: the ratio.
        """
        dense = [r.epochs for r in self.records if (r.mode, r.head) == ("frozen", "dense")]
        epochs = float(np.mean(dense)) if dense else float(_EPOCHS)
        # Of the pictures themselves: to add views is another trade.
        seconds = [r.extract_seconds for r in self.records if not r.mode.endswith("views")]
        extract = max(seconds, default=0.0)
        usual = epochs * self.trained * self.cost["usual_ms"] / 1e3
        return {
            "epochs": epochs,
            "usual_seconds": usual,
            "extract_seconds": extract,
            "trainings": extract / usual,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: ``modes`` (one a seed), ``summary`` and more."""
        return {
            "rows": self.rows,
            "trained": self.trained,
            "layer": self.layer,
            "classes": list(self.classes),
            "resampled": self.resampled,
            "cost": self.cost,
            "break_even": self.break_even() if self.cost else {},
            "modes": [record.to_dict() for record in self.records],
            "summary": [asdict(summary) for summary in self.summaries()],
            "failed": self.failed,
            "runs": list(self.runs),
            "curve": [record.to_dict() for record in self.parts],
            "learning_curve": curve.to_dict() if (curve := self.curve()) else {},
        }

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        from headstart.heads import notebook

        return notebook.benchmark(self)

    def __str__(self) -> str:
        """Return the table for a terminal."""
        cells = [list(_HEADER), *self._cells()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        curve = self.curve()
        learnt = [str(curve), self.curve_notes(), ""] if curve else []
        return "\n".join([*lines, "", *learnt, *self._notes()])

    def to_markdown(self) -> str:
        """Return the table and its notes for a document; not the learning curve."""
        cells = [list(_HEADER), ["---"] * len(_HEADER), *self._cells()]
        table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
        return "\n\n".join([table, *self._notes()]) + "\n"

    def _cells(self) -> list[list[str]]:
        return [_cells(summary, best=rank == 0) for rank, summary in enumerate(self.summaries())]

    def _notes(self) -> Iterator[str]:
        yield from (f"{name} failed: {why}" for name, why in self.failed.items())
        yield (
            f"{self.rows:,} rows, {len(self.classes)} classes; {self._how()}. The 95% is Wilson's "
            "interval; tests are paired "
            f"({'corrected resampled t' if self._many() else _MCNEMAR}, Holm's correction)."
        )
        formed = max((record.form_seconds for record in self.records), default=0.0)
        yield (
            f"{_COLUMNS} Not in train s: the row space of all rows, which frozen heads share, took "
            f"{formed:.2f} s, once (to read, where it had been computed before)."
        )
        for where in dict.fromkeys(run["where"] for run in self.runs if run.get("where")):
            yield (
                f"Some results are of {where}, perhaps on other machines: their seconds, "
                "milliseconds and megabytes compare only roughly."
            )
        paid = self.break_even()
        yield (
            f"Extraction took {paid['extract_seconds']:.1f} s, once. Running the usual base on "
            f"{self.trained:,} training rows in each epoch of a training of {paid['epochs']:.0f} "
            f"epochs takes {paid['usual_seconds']:.1f} s: the cache has paid for itself after "
            f"{paid['trainings']:.2g} trainings."
        )

    def _how(self) -> str:
        seeds = sorted({record.seed for record in self.records})
        how = "a fold of its own for each seed" if self.resampled else "the given validation split"
        return f"seeds {', '.join(map(str, seeds))}; {how}"

    def _many(self) -> bool:
        """Tell whether there is more than one round of folds, so that rows are measured again."""
        return self.resampled and len({record.seed for record in self.records}) > FOLDS

    def _summary(self, records: list[Record]) -> Summary:
        first = records[0]
        accuracy, ci95 = self._accuracy(records)
        layer = layer_of(first.mode, self.layer)
        base = self.cost["base_ms"][layer] if layer else 0.0
        return Summary(
            mode=first.mode,
            head=first.head,
            accuracy=accuracy,
            ci95=ci95,
            log_loss=float(np.mean([record.log_loss for record in records])),
            extract_seconds=first.extract_seconds,
            train_seconds=float(np.mean([record.train_seconds for record in records])),
            trained_parameters=first.trained_parameters,
            epochs=float(np.mean([record.epochs for record in records])),
            predict_ms_per_image=base
            + float(np.median([record.predict_ms_per_image for record in records])),
            peak_mb=max(record.peak_mb for record in records),
            seeds=len(records),
        )

    def _accuracy(self, records: Sequence[Record]) -> tuple[float, tuple[float, float]]:
        """Return the accuracy over seeds, and its interval: a row counts once."""
        measured = sum(len(record.right) for record in records)
        distinct = min(measured, self.rows) if self.resampled else len(records[0].right)
        accuracy = sum(record.right.count("1") for record in records) / measured
        return accuracy, metrics.wilson(round(accuracy * distinct), distinct)

    def _p_value(self, best: Sequence[Record], other: Sequence[Record]) -> float | None:
        """Return how likely such a difference is by chance, on the seeds that both have."""
        theirs = {record.seed: record for record in other}
        pairs = [(one, theirs[one.seed]) for one in best if one.seed in theirs]
        if not pairs:
            return None
        if self._many():
            differences = np.array([one.accuracy - two.accuracy for one, two in pairs])
            row = 1 / len(pairs[0][0].right)
            return metrics.corrected_t(differences, 1 / (FOLDS - 1), resolution=row)
        # Folds of one round measure each row once. A t-test of three of them, with two degrees of
        # freedom, would tell nothing apart.
        rows = _all if self.resampled else _mostly
        return metrics.mcnemar(*(rows(side) for side in zip(*pairs, strict=True)))


def _all(records: Sequence[Record]) -> NDArray[np.bool_]:
    """Return on which rows seeds were right that measured different ones."""
    return np.array([digit == "1" for record in records for digit in record.right])


def _mostly(records: Sequence[Record]) -> NDArray[np.bool_]:
    """Return on which rows more than half of the seeds were right."""
    right = np.array([[digit == "1" for digit in record.right] for record in records])
    mostly: NDArray[np.bool_] = right.mean(0) > 0.5
    return mostly


def _cells(summary: Summary, *, best: bool) -> list[str]:
    low, high = summary.ci95
    return [
        summary.mode,
        summary.head,
        f"{summary.accuracy:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{summary.log_loss:.3f}",
        f"{summary.extract_seconds:.1f}",
        f"{summary.train_seconds:.2f}",
        _short(summary.trained_parameters),
        f"{summary.peak_mb:,.0f}",
        f"{summary.predict_ms_per_image:.2f}",
        "best" if best else _verdict(summary.p_value),
    ]


def _short(count: int) -> str:
    """Return ``11.1M`` for 11,116,548."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e6:.1f}M" if count >= 1_000_000 else f"{count / 1e3:.0f}K"


def _verdict(p_value: float | None) -> str:
    if p_value is None:
        return "-"
    return "worse" if p_value < _SIGNIFICANT else "not distinguishable"
