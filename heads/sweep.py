"""Which layer to cut at: accuracy against layer, and what a picture's features weigh there."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.heads.evaluation import evaluate
from headstart.heads.forms import Forms
from headstart.heads.parallel import free_cores, parallel
from headstart.heads.registry import make_fitting
from headstart.heads.ridge import RidgeHead
from headstart.heads.rows import Maps
from headstart.heads.rowspace import available_memory, memory_needed
from headstart.heads.splits import labelled_rows, protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headstart.cache import Progress, Store
    from headstart.cache.store import Pool
    from headstart.heads.forms import Form
    from headstart.heads.rows import FeatureRows
    from headstart.heads.splits import Labelled, Protocol

POOLS: tuple[Pool, ...] = ("none", "avg")
_JUDGE = "logreg"
_INNER = 3  # folds in which its penalty is chosen, inside each training part
_HEADER = ("", "layer", "pool", "bytes/image", "ridge LOO", _JUDGE, "95%", "seconds")


@dataclass(frozen=True)
class Cut:
    """One layer, flat or pooled.

    Attributes
    ----------
    layer, pool : str
    bytes_per_image : int
        As float16, before compression.
    ridge : float or None
        Share of training rows that ridge regression recognises when their group is left out;
        None past memory.
    accuracy : float
        Of logistic regression on rows it was not trained on.
    ci95 : tuple of float
    seconds : float
        For judging this cut, its row space included.
    worth : bool
        No other cut is at least as accurate with fewer bytes.
    """

    layer: str
    pool: str
    bytes_per_image: int
    ridge: float | None
    accuracy: float
    ci95: tuple[float, float]
    seconds: float
    worth: bool = False


@dataclass(frozen=True)
class Sweep:
    """Every cut, in the order of the network; printing it gives the table."""

    store: str
    rows: int
    classes: tuple[str, ...]
    protocol: str
    extract_seconds: float
    cuts: tuple[Cut, ...]

    @property
    def best(self) -> Cut:
        """The most accurate cut; of equals the smallest."""
        return min(self.cuts, key=lambda cut: (-cut.accuracy, cut.bytes_per_image))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return vars(self) | {
            "classes": list(self.classes),
            "cuts": [asdict(cut) for cut in self.cuts],
            "best": asdict(self.best),
        }

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        from headstart.heads import notebook

        return notebook.sweep(self)

    def __str__(self) -> str:
        """Return the table for a terminal."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        best = self.best
        cells = [list(_HEADER), *(_cells(cut, best=cut is best) for cut in self.cuts)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        yield f"{self.store}: {self.rows:,} rows, {len(self.classes)} classes"
        yield ""
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield "  ".join(padded).rstrip()
        yield ""
        worth = any(cut.worth for cut in self.cuts if cut is not best)
        yield "> highest accuracy here, of many close ones: mind the intervals" + (
            "   * worth its bytes: nothing smaller is as accurate" if worth else ""
        )
        yield (
            f"Extraction of all layers took {self.extract_seconds:.1f} s, once. {_JUDGE}: "
            f"{self.protocol}, Wilson's interval; ridge LOO: leave-one-out on "
            "the training rows at the penalty that is best there, so a little too high."
        )


def sweep(
    store: Store,
    *,
    layers: Sequence[str] | None = None,
    pools: Sequence[Pool] = POOLS,
    cv: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sweep:
    """Judge every layer of a store, flat and pooled, by two heads in its row space.

    Parameters
    ----------
    store : Store
        With the layers to judge, unpooled.
    layers : sequence of str, optional
        All of the store's by default.
    pools : sequence of {"none", "avg", "max"}
    cv : int, optional
        Folds, where there is no validation split; 5 by default.
    seed : int
        Of the folds.
    progress : callable, optional
        Called with ("judging layers", done, total).

    Raises
    ------
    HeadError
        If a class has too few rows.
    """
    rows = labelled_rows(store, None)
    split = protocol(store, rows, cv=cv, seed=seed)
    wanted = tuple(layers or store.layers)
    judged = _Judged(len(wanted) * len(pools), progress)

    def judge(layer: str) -> list[Cut]:
        maps = Maps(store, layer, rows.numbers)
        return [judged.counted(_judge(maps.rows(pool), rows, split)) for pool in pools]

    beside = _memory(store, wanted, len(rows.numbers)) * free_cores() <= available_memory()
    found = parallel(judge, wanted) if beside else list(map(judge, wanted))
    cuts = list(itertools.chain.from_iterable(found))
    return Sweep(
        store=str(store.path),
        rows=len(rows.numbers),
        classes=tuple(store.classes),
        protocol=split.words,
        extract_seconds=store.extract_seconds,
        cuts=tuple(_marked(cuts)),
    )


class _Judged:
    """Counts the cuts that are judged, by several threads."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress = total, progress
        self._done, self._lock = 0, threading.Lock()
        self._tell()

    def counted(self, cut: Cut) -> Cut:
        """Count a cut, and return it."""
        with self._lock:
            self._done += 1
            self._tell()
        return cut

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress("judging layers", self._done, self._total)


def _memory(store: Store, layers: Sequence[str], n: int) -> int:
    """Return the bytes that the largest layer takes while it is judged: maps and row space."""
    widths = [int(np.prod(store.shape(layer))) for layer in layers]
    itemsize = np.dtype(store.spec.dtype).itemsize
    return max(n * d * itemsize + memory_needed((n, d)) for d in widths)


def _judge(source: FeatureRows, rows: Labelled, split: Protocol) -> Cut:
    started = time.perf_counter()
    forms = Forms(source, plain=False, max_memory=None, progress=None)
    head = make_fitting(_JUDGE, streamed=bool(forms.streamed))
    if not forms.streamed:
        head.set_params(cv=_INNER)
    form = forms.of(_JUDGE, head)
    found = evaluate(_JUDGE, head, form, rows=rows, splits=split.splits)
    return Cut(
        layer=str(source.layer),
        pool=source.pool,
        bytes_per_image=2 * source.shape[1],
        ridge=_left_out(form, rows, split.trained),
        accuracy=found.accuracy,
        ci95=found.ci95,
        seconds=time.perf_counter() - started,
    )


def _left_out(form: Form, rows: Labelled, trained: NDArray[np.int64]) -> float | None:
    if not isinstance(form.X, np.ndarray):
        return None
    ridge = RidgeHead().fit(form.X[trained], rows.codes[trained], groups=rows.groups[trained])
    return ridge.accuracy_


def _marked(cuts: Sequence[Cut]) -> Iterator[Cut]:
    """Yield the cuts, marking those than which nothing smaller is as accurate."""
    for cut in cuts:
        beaten = any(
            other.accuracy >= cut.accuracy and other.bytes_per_image < cut.bytes_per_image
            for other in cuts
        ) or any(
            other.accuracy > cut.accuracy and other.bytes_per_image == cut.bytes_per_image
            for other in cuts
        )
        yield replace(cut, worth=not beaten)


def _cells(cut: Cut, *, best: bool) -> list[str]:
    low, high = cut.ci95
    return [
        ">" if best else "*" if cut.worth else "",
        cut.layer,
        cut.pool,
        f"{cut.bytes_per_image:,}",
        "-" if cut.ridge is None else f"{cut.ridge:.3f}",
        f"{cut.accuracy:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{cut.seconds:.1f}",
    ]
