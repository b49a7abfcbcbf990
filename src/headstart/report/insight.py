"""From a comparison to what it shows beyond its table."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import numpy as np

from headstart.heads import maps, metrics, mistakes
from headstart.heads.rowspace import RowSpace
from headstart.report.content import (
    Cell,
    ClassScore,
    Confusion,
    Insight,
    Map,
    Mistake,
    Named,
    Quality,
    Trust,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.cache import Progress
    from headstart.heads.comparison import Comparison, Evidence
    from headstart.heads.evaluation import HeadResult, Predictions
    from headstart.heads.folds import Folds

    Int = NDArray[np.int64]

#: Classes that a confusion matrix shows at most, those with most mistakes.
MOST_CLASSES = 16
#: Wrong answers and suspected labels that are shown, and the neighbours of each.
SHOWN, NEIGHBOURS = 12, 5
#: Rows whose space is looked at, and those of them that a map shows.
_SPACE, _POINTS = 8_000, 2_000
_CELL_ROWS = 60
_ALIKE = 0.98  # cosine of pictures that are almost the same
_MOST_ALIKE = 100_000


def insight(
    comparison: Comparison, *, tsne: bool = False, progress: Progress | None = None
) -> Insight:
    """Look closer at a comparison: what is confused, how sure, what is near to what.

    Parameters
    ----------
    comparison
        With at least one head.
    tsne
        Also make a map that keeps neighbours together, which takes seconds.
    progress
        Called with (description, done, total) while a row space is computed.
    """
    best = _judge(comparison)
    space = _Space(comparison.evidence, best.predictions, progress)
    answers = best.predictions
    places = space.places
    near = mistakes.nearest(
        space.Z, space.queries, answers.fold[places], space.splits, k=NEIGHBOURS
    )
    name = _Names(comparison)
    cards = _Cards(answers, space, near, name)
    return Insight(
        comparison=comparison,
        judged=best.head,
        neighbours=NEIGHBOURS,
        confusions=tuple(_confusion(result, name) for result in comparison.heads),
        classes=tuple(_classes(answers, comparison.classes)),
        curves=tuple(
            (comparison.classes[code], curve)
            for code in _worst(answers, len(comparison.classes))
            if (curve := mistakes.roc(answers, int(code))) is not None
        ),
        trust=tuple(
            Trust(result.head, tuple(bins))
            for result in comparison.heads
            if (bins := mistakes.reliability(result.predictions))
        ),
        mistakes=tuple(cards.wrong()),
        reasons=mistakes.reasons(answers, near, space.codes, places),
        sampled=len(places),
        maps=tuple(_maps(space, tsne=tsne)),
        quality=_quality(cards, space, name),
    )


def _judge(comparison: Comparison) -> HeadResult:
    """Return the best head that has probabilities, or else the best."""
    able = [head for head in comparison.heads if head.predictions.probability is not None]
    return (able or list(comparison.heads))[0]


class _Names:
    """Rows as people know them."""

    def __init__(self, comparison: Comparison) -> None:
        store = comparison.evidence.store
        self.classes, self._paths, self._labels = store.classes, store.paths(), store.labels()
        self._store = store

    def __call__(self, row: int) -> Named:
        code = int(self._labels[row])
        return Named(int(row), self._paths[row], self.classes[code] if code >= 0 else "")

    def split(self, row: int) -> str:
        """Return the split of a row."""
        return self._store.catalog.split[row]

    def identical(self) -> list[tuple[Named, ...]]:
        """Return the groups of rows that are the same picture."""
        groups: dict[bytes, list[int]] = collections.defaultdict(list)
        digests, views = self._store.image_sha256(), self._store.views()
        for row in np.flatnonzero(views == 0):
            groups[digests[row]].append(int(row))
        return [tuple(map(self, rows)) for rows in groups.values() if len(rows) > 1]


class _Space:
    """Rows in their row space: all labelled ones, or a sample where they are many.

    Attributes
    ----------
    Z : ndarray of shape (n, r)
    numbers, codes, groups : ndarray of shape (n,)
        Store rows, classes, and which are known to be the same picture.
    places, queries : ndarray of shape (q,)
        Measured rows, as places among the predictions and as positions in `Z`.
    splits : list of (train, test)
        Positions in `Z` of training rows to look for neighbours in, no picture twice; of those
        measured, none.
    """

    def __init__(self, evidence: Evidence, answers: Predictions, progress: Progress | None) -> None:
        rows = evidence.rows
        n = len(rows.numbers)
        position = np.searchsorted(rows.numbers, answers.rows)
        kept = np.arange(n)
        if n > _SPACE:
            first = position[_surest(answers)[: 4 * SHOWN]]
            rest = np.random.default_rng(0).permutation(n)
            kept = np.sort(np.array(list(dict.fromkeys([*first, *rest]))[:_SPACE]))
        inside = np.full(n, -1, dtype=np.int64)
        inside[kept] = np.arange(len(kept))
        source = evidence.source.take(kept)
        self.Z = RowSpace().fit_rows(source, progress=progress).coordinates_
        self.numbers, self.codes = rows.numbers[kept], rows.codes[kept]
        self.groups = rows.groups[kept]
        self.places = np.flatnonzero(inside[position] >= 0)
        self.queries = inside[position[self.places]]
        self.all = len(kept) == n
        self.splits: Folds = [
            (self._different(_within(inside, train[rows.first_view[train]])), test[:0])
            for train, test in evidence.splits
        ]
        self.first_view = rows.first_view[kept]

    def _different(self, positions: Int) -> Int:
        """Return the positions without those that repeat picture and class of another one."""
        pairs = np.column_stack([self.groups[positions], self.codes[positions]])
        return positions[np.sort(np.unique(pairs, axis=0, return_index=True)[1])]


def _within(inside: Int, positions: Int) -> Int:
    found = inside[positions]
    return found[found >= 0]


def _surest(answers: Predictions) -> Int:
    """Return the places of wrong answers, those of the highest probability first."""
    wrong = np.flatnonzero(answers.true != answers.guess)
    if answers.probability is None:
        return wrong
    sure = answers.probability[wrong, answers.guess[wrong]]
    return wrong[np.argsort(-sure, kind="stable")]


def _confusion(result: HeadResult, name: _Names) -> Confusion:
    answers, k = result.predictions, len(name.classes)
    counts = np.bincount(answers.true * k + answers.guess, minlength=k * k).reshape(k, k)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")
    shown = np.sort(order[:MOST_CLASSES])
    members = _members(answers)

    def cell(true: int, guess: int) -> Cell:
        return Cell(
            true=name.classes[true],
            guess=name.classes[guess],
            count=int(counts[true, guess]),
            share=float(counts[true, guess] / max(1, counts[true].sum())),
            rows=tuple(members.get((true, guess), ())[:_CELL_ROWS]),
            right=true == guess,
        )

    most = np.argsort(-wrong, axis=None, kind="stable")[:8]
    return Confusion(
        head=result.head,
        classes=tuple(name.classes[code] for code in shown),
        cells=tuple(tuple(cell(int(t), int(g)) for g in shown) for t in shown),
        left_out=int(wrong.sum() - wrong[np.ix_(shown, shown)].sum()),
        most=tuple(cell(int(p // k), int(p % k)) for p in most if wrong.flat[p]),
    )


def _members(answers: Predictions) -> dict[tuple[int, int], list[int]]:
    """Return the rows behind each cell, those answered with most confidence first."""
    order = np.arange(len(answers.true))
    if answers.probability is not None:
        sure = answers.probability[order, answers.guess]
        order = np.argsort(-sure, kind="stable")
    members: dict[tuple[int, int], list[int]] = collections.defaultdict(list)
    for place in order:
        members[int(answers.true[place]), int(answers.guess[place])].append(
            int(answers.rows[place])
        )
    return members


def _worst(answers: Predictions, k: int) -> Int:
    """Return the classes with the least share recognised, of those that were measured."""
    rows = np.bincount(answers.true, minlength=k)
    right = np.bincount(answers.true[answers.true == answers.guess], minlength=k)
    share = np.where(rows > 0, right / np.maximum(rows, 1), np.inf)
    order = np.argsort(share, kind="stable")
    return order[rows[order] > 0][:8]


def _classes(answers: Predictions, classes: tuple[str, ...]) -> list[ClassScore]:
    """Return the scores of every class, the least recognised first."""
    found = []
    for code, name in enumerate(classes):
        mine, said = answers.true == code, answers.guess == code
        rows = int(mine.sum())
        if not rows:
            continue
        right = int((mine & said).sum())
        curve = mistakes.roc(answers, code)
        found.append(
            ClassScore(
                name=name,
                rows=rows,
                recall=right / rows,
                ci95=metrics.wilson(right, rows),
                precision=right / int(said.sum()) if said.any() else None,
                area=curve.area if curve else None,
            )
        )
    return sorted(found, key=lambda score: score.recall)


class _Cards:
    """Measured rows as pictures to look at, beside the training rows nearest to them."""

    def __init__(
        self, answers: Predictions, space: _Space, near: mistakes.Nearest, name: _Names
    ) -> None:
        self._answers, self._space, self._near, self._name = answers, space, near, name
        self._at = {int(place): number for number, place in enumerate(space.places)}

    def wrong(self) -> list[Mistake]:
        """Return the wrong answers of the highest probability, no picture twice."""
        first: dict[int, int] = {}
        for place in map(int, _surest(self._answers)):
            if place in self._at:
                query = self._space.queries[self._at[place]]
                first.setdefault(int(self._space.groups[query]), place)
        chosen = list(first.values())[:SHOWN]
        return [self._of(place, int(self._answers.guess[place])) for place in chosen]

    def suspects(self) -> list[Mistake]:
        """Return rows whose label may be wrong, and most of whose neighbours agree."""
        doubtful = mistakes.suspects(self._answers)
        pairs = zip(doubtful.places.tolist(), doubtful.proposed.tolist(), strict=True)
        found = [self._of(place, proposed) for place, proposed in pairs if place in self._at]
        return [one for one in found if 2 * one.agree > len(one.near)]

    def _of(self, place: int, said: int) -> Mistake:
        answers, space = self._answers, self._space
        p = answers.probability
        positions = self._near.positions[self._at[place]]
        found = positions[positions >= 0]
        return Mistake(
            of=self._name(int(answers.rows[place])),
            guess=self._name.classes[said],
            probability=float("nan") if p is None else float(p[place, said]),
            of_label=float("nan") if p is None else float(p[place, answers.true[place]]),
            near=tuple(self._name(int(space.numbers[position])) for position in found),
            agree=int((space.codes[found] == said).sum()),
        )


def _maps(space: _Space, *, tsne: bool) -> list[Map]:
    positions = np.flatnonzero(space.first_view)
    if len(positions) > _POINTS:
        positions = np.sort(np.random.default_rng(0).choice(positions, _POINTS, replace=False))
    Z, rows = space.Z[positions], tuple(map(int, space.numbers[positions]))
    points, shares = maps.principal(Z)
    found = [Map("pca", points, rows, space.codes[positions], tuple(map(float, shares)))]
    kept = maps.neighbourhoods(Z) if tsne else None
    if kept is not None:
        found.append(Map("tsne", kept, rows, space.codes[positions]))
    return found


def _quality(cards: _Cards, space: _Space, name: _Names) -> Quality:
    pairs = mistakes.near_duplicates(space.Z, space.groups, similarity=_ALIKE, most=_MOST_ALIKE)
    doubtful, same = cards.suspects(), name.identical()
    return Quality(
        suspects=tuple(doubtful[:SHOWN]),
        suspected=len(doubtful),
        alike=tuple(
            (name(int(space.numbers[i])), name(int(space.numbers[j]))) for i, j in pairs[:SHOWN]
        ),
        alike_rows=len({position for pair in pairs for position in pair}),
        identical=sum(len(group) - 1 for group in same),
        across_splits=tuple(g for g in same if len({name.split(n.row) for n in g}) > 1),
        across_labels=tuple(g for g in same if len({n.label for n in g} - {""}) > 1),
    )
