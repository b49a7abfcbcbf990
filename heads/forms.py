"""In which form a head is given the features: row space, as they are, or read as needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import HeadError
from headstart.heads.gram import seconds_per_row
from headstart.heads.rowspace import RowSpace, available_memory, megabytes, memory_needed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from headstart.heads.gram import Progress
    from headstart.heads.rows import FeatureRows

#: Rows beyond which the factorisation of their inner products takes too long.
MOST_GRAM_ROWS = 30_000

#: scikit-learn's classifiers whose predictions a rotation of all rows is known not to change, and
#: under which settings. Kernels of automatic width are not: it depends on the mean of all numbers.
_INVARIANT: dict[str, Callable[[dict[str, Any]], bool]] = {
    "DummyClassifier": lambda _: True,
    "KNeighborsClassifier": lambda p: (
        p["metric"] in {"euclidean", "cosine"} or (p["metric"] == "minkowski" and p["p"] == 2)
    ),
    "LinearSVC": lambda p: p["penalty"] == "l2",
    "LogisticRegression": lambda p: (
        p["penalty"] in {"l2", "deprecated"}
        and not p["l1_ratio"]
        and p["solver"] in {"lbfgs", "newton-cg", "newton-cholesky"}
    ),
    "NearestCentroid": lambda p: p["metric"] == "euclidean" and p["shrink_threshold"] is None,
    "RidgeClassifier": lambda p: not p["positive"],
    "SVC": lambda p: (
        p["kernel"] == "linear" or (p["kernel"] in {"rbf", "poly"} and isinstance(p["gamma"], Real))
    ),
}


def rotation_invariant(head: Any) -> bool:
    """Return whether rotating all rows, also those to predict, changes no prediction of a head.

    A head that has an attribute ``rotation_invariant`` says so itself; of scikit-learn's a few
    are known. The row space is a rotation found on all rows: to such a head it tells nothing of
    those held out, while another one could learn from its axes.

    Examples
    --------
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.svm import SVC
    >>> rotation_invariant(SVC(kernel="linear")), rotation_invariant(GaussianNB())
    (True, False)
    """
    own = getattr(head, "rotation_invariant", None)
    if own is not None:
        return bool(own)
    rule = _INVARIANT.get(type(head).__name__)
    if rule is None or not type(head).__module__.startswith("sklearn."):
        return False
    return rule(head.get_params(deep=False))


@dataclass(frozen=True)
class Form:
    """Rows as heads are given them.

    Attributes
    ----------
    name : {"row space", "plain", "streamed"}
    X : ndarray of shape (n, r), or FeatureRows
    words : str
        What that is.
    seconds_per_row : float
        To bring a new row into this form from its features, without reading them.
    """

    name: str
    X: NDArray[Any] | FeatureRows
    words: str
    seconds_per_row: float = 0.0


class Forms:
    """The forms of some rows, each made when a head asks for it.

    Attributes
    ----------
    streamed : str
        Why rows cannot be held in memory; empty if they can.
    """

    def __init__(
        self,
        source: FeatureRows,
        *,
        plain: bool,
        max_memory: int | None,
        progress: Progress | None,
    ) -> None:
        self._source, self._max_memory, self._progress = source, max_memory, progress
        self._all_plain = plain
        self._too_large = _features_past_memory(source, max_memory)
        self.streamed = self._too_large if plain else _space_past_memory(source, max_memory)

    def of(self, name: str, head: Any) -> Form:
        """Return the form for a head.

        Raises
        ------
        HeadError
            If the head needs features in memory that do not fit there.
        """
        if self.streamed:
            words = f"batches read from the store, because {self.streamed}"
            return Form("streamed", self._source, words)
        if not self._all_plain and rotation_invariant(head):
            return self._space
        if self._too_large:
            raise HeadError(
                f"head {name!r} is not known to be rotation invariant, so it needs the features "
                f"themselves, but {self._too_large}: use --pool avg, or a larger --max-memory"
            )
        return self._plain

    @cached_property
    def _space(self) -> Form:
        source = self._source
        space = RowSpace(max_memory=self._max_memory).fit_rows(source, progress=self._progress)
        cost = (
            f"computed in {space.seconds_:.1f} s" if space.seconds_ else "kept from an earlier run"
        )
        words = (
            f"row space of {len(source):,} rows, rank {space.rank_:,} of "
            f"{space.n_features_in_:,} features, {cost}"
        )
        return Form("row space", space.coordinates_, words, seconds_per_row(*source.shape))

    @cached_property
    def _plain(self) -> Form:
        X = self._source.load().astype(np.float32)
        X /= np.sqrt(np.mean(np.einsum("ij,ij->i", X, X, dtype=np.float64))) or 1
        return Form("plain", X, f"the features themselves, {X.shape[1]:,} numbers a row")


def described(given: Iterable[tuple[str, Form]]) -> str:
    """Return a sentence on which heads were given what; the names only where they differ."""
    names: dict[str, list[str]] = {}
    for name, form in given:
        names.setdefault(form.words, []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{', '.join(who)}: {words}" for words, who in names.items())


def _features_past_memory(source: FeatureRows, max_memory: int | None) -> str:
    n, d = source.shape
    return _too_much(f"features of {n:,} rows", 16 * n * d, max_memory)


def _space_past_memory(source: FeatureRows, max_memory: int | None) -> str:
    n, d = source.shape
    if min(n, d) > MOST_GRAM_ROWS:
        return f"a row space of {n:,} rows would take hours (the most is {MOST_GRAM_ROWS:,})"
    return _too_much(f"a row space of {n:,} rows", memory_needed((n, d)), max_memory)


def _too_much(what: str, needed: int, max_memory: int | None) -> str:
    """Return why something cannot be held, or nothing if it can."""
    budget = max_memory or available_memory()
    if needed <= budget:
        return ""
    return f"{what} would take {megabytes(needed)} of memory, and {megabytes(budget)} may be used"
