"""The chosen head on all training rows, as a model."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache.catalog import versions
from headstart.errors import HeadError
from headstart.extract.decode import MAX_PIXELS
from headstart.heads.comparison import compare
from headstart.heads.forms import Forms
from headstart.heads.model import Card, Model
from headstart.heads.portable import Trained, portable
from headstart.heads.registry import make_head
from headstart.heads.rows import FeatureRows
from headstart.heads.rowspace import RowSpace
from headstart.heads.splits import labelled_rows, protocol

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from headstart.cache import Progress, Store
    from headstart.cache.store import Pool
    from headstart.heads.base import ClassWeight
    from headstart.heads.splits import Labelled


def train(
    store: Store,
    head: str = "logreg",
    *,
    layer: str | None = None,
    pool: Pool = "none",
    cv: int | None = None,
    seed: int = 0,
    class_weight: ClassWeight = None,
    group_by: str | ArrayLike | None = None,
    progress: Progress | None = None,
) -> Model:
    """Measure a head as `compare` does, then fit it on all training rows.

    Where the store has a validation split, its rows are measured and never trained on; else
    accuracy is that of the folds, and the model is fitted on all labelled rows outside the test
    split. Hyperparameters are chosen anew on the rows it is fitted on.

    Parameters
    ----------
    store : Store
    head : str
        Name of a head.
    layer, pool, cv, seed, class_weight, group_by, progress
        As for `compare`.

    Returns
    -------
    Model
        Save it with `Model.save`.

    Raises
    ------
    HeadError
        If the head is unknown, a class has too few rows, or the rows do not fit in memory.

    Examples
    --------
    >>> model = train(Store.open("pets.features"), "logreg")  # doctest: +SKIP
    >>> model.save("pets.model")  # doctest: +SKIP
    """
    make_head(head)
    found = compare(
        store,
        [head],
        layer=layer,
        pool=pool,
        cv=cv,
        seed=seed,
        class_weight=class_weight,
        group_by=group_by,
        progress=progress,
    )
    measured = found.heads[0]
    rows = labelled_rows(store, group_by)
    split = protocol(store, rows, cv=cv, seed=seed, grouped=group_by is not None)
    trained = split.trained
    source = FeatureRows(store, layer, rows.numbers[trained], pool)
    if Forms(source, plain=False, max_memory=None, progress=None).streamed:
        raise HeadError(
            f"a model of {len(source):,} rows needs their row space, which does not fit in "
            "memory: use --pool avg"
        )
    space = RowSpace().fit_rows(source, progress=progress)
    options = {"random_state": seed, "class_weight": class_weight}
    classifier = make_head(head)
    known = classifier.get_params(deep=False)
    classifier.set_params(**{name: value for name, value in options.items() if name in known})
    classifier.fit(space.coordinates_, rows.codes[trained], groups=rows.groups[trained])
    if len(classifier.classes_) < len(store.classes):
        raise HeadError("every class of the store needs a training row")
    form = portable(classifier, Trained(space, source))
    spec, rest = store.stored(layer, pool)
    card = Card(
        head=head,
        kind=form.kind,
        params=_numbers(classifier.chosen_),
        spec=spec,
        pool=rest,
        shape=store.shape(spec.name),
        weights=str(store.catalog.settings.get("weights", "")),
        max_pixels=int(store.catalog.settings.get("max_pixels", MAX_PIXELS)),
        classes=tuple(store.classes),
        rows=_counts(rows, trained, len(store.classes)),
        accuracy=measured.accuracy,
        log_loss=float(measured.log_loss or 0.0),
        ci95=measured.ci95,
        majority_accuracy=found.majority_accuracy,
        measured=found.protocol,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        versions=versions(),
    )
    return Model(card, form)


def _counts(rows: Labelled, trained: Any, classes: int) -> tuple[int, ...]:
    return tuple(int(n) for n in np.bincount(rows.codes[trained], minlength=classes))


def _numbers(params: dict[str, Any]) -> dict[str, Any]:
    return {name: v.item() if isinstance(v, np.generic) else v for name, v in params.items()}
