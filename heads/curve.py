"""Learning curves: what more pictures would buy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache import Store
from headstart.errors import HeadError
from headstart.heads.base import class_weights, weighted
from headstart.heads.comparison import DEFAULT_HEADS, prepared
from headstart.heads.evaluation import evaluate
from headstart.heads.forms import Forms
from headstart.heads.rows import FeatureRows
from headstart.heads.splits import labelled_rows, protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from headstart.cache import Progress
    from headstart.cache.store import Pool
    from headstart.heads.base import ClassWeight
    from headstart.heads.folds import Folds
    from headstart.heads.splits import Labelled

    Int = NDArray[np.int64]

#: Shares of the training rows.
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
_FEWEST = 2  # rows of each class
_INNER = 3  # folds in which hyperparameters are chosen, inside each training part


@dataclass(frozen=True)
class Point:
    """One head, trained on a part of the training rows.

    Attributes
    ----------
    head : str
    rows : int
        Trained on (the mean over folds).
    accuracy : float
        On the same rows for every point.
    ci95 : tuple of float
        Wilson interval.
    fit_seconds : float
    """

    head: str
    rows: int
    accuracy: float
    ci95: tuple[float, float]
    fit_seconds: float


@dataclass(frozen=True)
class Curve:
    """Accuracy against training rows, fewest first; printing it gives the table."""

    points: tuple[Point, ...]
    protocol: str

    def gain(self, head: str) -> float:
        """Return what the last step to more rows has bought a head, in accuracy."""
        mine = [point.accuracy for point in self.points if point.head == head]
        return mine[-1] - mine[-2] if len(mine) > 1 else 0.0

    def last_step(self, head: str) -> str:
        """Return the gain as a cell of a table; of a single point there is none."""
        several = sum(point.head == head for point in self.points) > 1
        return f"{self.gain(head):+.3f}" if several else "-"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"protocol": self.protocol, "points": [asdict(point) for point in self.points]}

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        from headstart.heads import notebook

        return notebook.curve(self)

    def __str__(self) -> str:
        """Return the table for a terminal: a line a head, a column a number of rows."""
        return "\n".join(self._lines())

    def to_markdown(self) -> str:
        """Return the table for a document."""
        header, *lines = self._cells()
        table = [header, ["---"] * len(header), *lines]
        return "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"

    def _cells(self) -> list[list[str]]:
        heads = list(dict.fromkeys(point.head for point in self.points))
        sizes = sorted({point.rows for point in self.points})
        found = {(point.head, point.rows): f"{point.accuracy:.3f}" for point in self.points}
        cells = [["rows", *(f"{size:,}" for size in sizes), "last step"]]
        cells += [
            [head, *(found.get((head, size), "-") for size in sizes), self.last_step(head)]
            for head in heads
        ]
        return cells

    def _lines(self) -> Iterator[str]:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        yield "Accuracy against training rows:"
        for row in cells:
            padded = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            yield "  ".join([row[0].ljust(widths[0]), *padded])


def learning_curve(
    store: Store | str | PathLike[str],
    heads: str | Sequence[str | Any] = DEFAULT_HEADS,
    *,
    layer: str | None = None,
    pool: Pool = "none",
    cv: int | None = None,
    seed: int = 0,
    class_weight: ClassWeight = None,
    group_by: str | ArrayLike | None = None,
    plain: bool = False,
    average_views: bool = False,
    max_memory: int | None = None,
    shares: Sequence[float] = SHARES,
    progress: Progress | None = None,
) -> Curve:
    """Train heads on growing parts of the training rows, and measure all on the same rows.

    Parts are stratified, keep identical pictures and groups together, and each holds the one
    before; a part with fewer than two rows of a class is left out. Splits are those of `compare`.

    Parameters
    ----------
    store : Store or path
    heads : str, or sequence of str or scikit-learn classifier
    layer, pool, cv, seed, class_weight, group_by, plain, average_views, max_memory
        As for `compare`.
    shares : sequence of float
        Of the training rows, rising.
    progress : callable, optional
        Called with ("learning curve", done, total).

    Raises
    ------
    HeadError
        If a head or a class is unknown, or no part has two rows of every class.
    """
    store = Store.open(store)
    weights = class_weights(class_weight, store.classes)
    rows = labelled_rows(store, group_by, progress=progress)
    split = protocol(store, rows, cv=cv, seed=seed, group_by=group_by)
    source = FeatureRows(store, layer, rows.numbers, pool)
    forms = Forms(source, plain=plain, max_memory=max_memory, progress=progress)
    entries = prepared(
        heads,
        forms,
        max_memory=max_memory,
        random_state=seed,
        class_weight=weights,
        plain=plain or None,
        cv=_INNER if len(split.splits) > 1 else None,  # as `compare` does
    )
    parts = [part for share in shares if (part := part_of_splits(split.splits, rows, share, seed))]
    if not parts:
        raise HeadError("a learning curve needs two training rows of every class or more")
    points: list[Point] = []
    steps = len(entries) * len(parts)
    for name, head, form in entries:
        for part in parts:
            if progress is not None:
                progress("learning curve", len(points), steps)
            found = evaluate(name, head, form, rows=rows, splits=part, average_views=average_views)
            trained = round(float(np.mean([len(train) for train, _ in part])))
            points.append(Point(name, trained, found.accuracy, found.ci95, found.fit_seconds))
    if progress is not None:
        progress("learning curve", steps, steps)
    return Curve(tuple(points), split.words + weighted(weights, store.classes))


def part_of_splits(splits: Folds, rows: Labelled, share: float, seed: int) -> Folds:
    """Return splits with a share of their training rows, measured on the same rows.

    Parts are stratified and keep groups whole, and each holds the smaller ones of the same seed.
    There are none if a class has fewer than two rows in one.

    Parameters
    ----------
    splits : list of (train, test)
        Positions among the labelled rows.
    rows : Labelled
    share : float
        Above 0, and up to 1.
    seed : int
        Decides which rows.
    """
    parts = [(_some(train, rows, share, seed), test) for train, test in splits]
    codes, most = rows.codes, rows.codes.max() + 1
    enough = all(
        (np.bincount(codes[part], minlength=most)[codes[train]] >= _FEWEST).all()
        for (part, _), (train, _) in zip(parts, splits, strict=True)
    )
    return parts if enough else []


def _some(train: Int, rows: Labelled, share: float, seed: int) -> Int:
    """Return a share of each class's rows, and what is in a group with one of them."""
    codes, groups = rows.codes, rows.groups
    shuffled = np.random.default_rng(seed).permutation(train)
    _, first, group = np.unique(groups[shuffled], return_index=True, return_inverse=True)
    shuffled = shuffled[np.argsort(first[group], kind="stable")]
    chosen = []
    for code in np.unique(codes[train]):
        mine = shuffled[codes[shuffled] == code]
        chosen.append(mine[: round(share * len(mine))])
    return np.sort(train[np.isin(groups[train], groups[np.concatenate(chosen)])])
