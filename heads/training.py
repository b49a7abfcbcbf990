"""The chosen head on all training rows, as a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache import Store
from headstart.cache.catalog import now, versions
from headstart.errors import HeadError, ModelError
from headstart.heads.base import class_weights
from headstart.heads.card import A_FILE, MOST_PIXELS, Card, check_rule
from headstart.heads.comparison import compare
from headstart.heads.forms import Forms
from headstart.heads.metrics import wilson
from headstart.heads.model import Model
from headstart.heads.portable import Trained, portable
from headstart.heads.registry import make_head
from headstart.heads.rows import FeatureRows
from headstart.heads.rowspace import RowSpace
from headstart.heads.splits import labelled_rows, protocol

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from headstart.cache import Progress
    from headstart.cache.store import Pool
    from headstart.extract.weights import WeightsFile
    from headstart.heads.base import ClassWeight, Head
    from headstart.heads.comparison import Comparison
    from headstart.heads.evaluation import Predictions


def train(
    store: Store | str | PathLike[str],
    head: str = "logreg",
    *,
    layer: str | None = None,
    pool: Pool = "none",
    cv: int | None = None,
    seed: int = 0,
    class_weight: ClassWeight = None,
    group_by: str | ArrayLike | None = None,
    max_memory: int | None = None,
    bundle: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Measure a head as `compare` does, then fit it on all training rows.

    Where the store has a validation split, its rows are measured and never trained on; else
    accuracy is that of the folds, and the model is fitted on all labelled rows outside the test
    split. Hyperparameters are chosen anew on the rows it is fitted on. What cannot become a model
    is refused before anything is measured.

    Parameters
    ----------
    store : Store or path
    head : str
        Name of a head.
    layer, pool, cv, seed, class_weight, group_by, max_memory, progress
        As for `compare`.
    bundle : bool
        Whether the model carries the base's weights, which the extraction took, and which it names
        by their digest else.

    Returns
    -------
    Model
        Save it with `Model.save`.

    Raises
    ------
    HeadError
        If the head or a class is unknown, a class has too few rows, or the rows do not fit in
        memory.
    ModelError
        If this version makes other features of a picture than those of the store, or the weights
        to bundle are not those it was made with.
    WeightsError
        If the weights to bundle cannot be had.

    Examples
    --------
    >>> model = train("pets.features", "logreg")  # doctest: +SKIP
    >>> model.save("pets.model")  # doctest: +SKIP
    """
    store = Store.open(store)
    weights = class_weights(class_weight, store.classes)
    classifier = _new(head, random_state=seed, class_weight=weights)
    check_rule(store.stored(layer, pool)[0])
    rows = labelled_rows(store, group_by)
    split = protocol(store, rows, cv=cv, seed=seed, group_by=group_by)
    trained = split.trained
    source = FeatureRows(store, layer, rows.numbers[trained], pool)
    _check(source, rows.codes[trained], max_memory)
    bundled = _weights(store, source) if bundle else None
    found = compare(
        store,
        [head],
        layer=layer,
        pool=pool,
        cv=cv,
        seed=seed,
        class_weight=class_weight,
        group_by=group_by,
        max_memory=max_memory,
        progress=progress,
    )
    space = RowSpace(max_memory=max_memory).fit_rows(source, progress=progress)
    classifier.fit(space.coordinates_, rows.codes[trained], groups=rows.groups[trained])
    form = portable(classifier, Trained(space, source))
    counts = np.bincount(rows.codes[trained], minlength=len(store.classes))
    return Model(_card(source, found, classifier, form.kind, counts), form, bundled=bundled)


def _new(head: str, **options: Any) -> Head:
    """Return a new head with those of the options that it has."""
    classifier = make_head(head)
    known = classifier.get_params(deep=False)
    classifier.set_params(**{name: value for name, value in options.items() if name in known})
    return classifier


def _weights(store: Store, source: FeatureRows) -> WeightsFile:
    """Return the weights the features were made with, read.

    Raises
    ------
    WeightsError
        If they cannot be had.
    ModelError
        If they are others.
    """
    from headstart.extract.base import load_arrays
    from headstart.extract.weights import find_weights

    name = str(store.catalog.settings.get("weights", ""))
    file, expected = find_weights(name), store.stored(source.layer, source.pool)[0].weights
    arrays = load_arrays(file)
    if arrays.digest() != expected:
        raise ModelError(
            f"the store's features are of the weights {expected[:16]}..., but {name!r} gives "
            f"{arrays.digest()[:16]}... now: bring those back, or leave --bundle away"
        )
    return replace(file, arrays=arrays)


def _check(source: FeatureRows, codes: NDArray[np.int64], max_memory: int | None) -> None:
    """Refuse training rows of which no model can be made.

    Raises
    ------
    HeadError
        If a class has none, or they do not fit in memory.
    """
    missing = sorted(set(range(len(source.store.classes))) - set(codes.tolist()))
    if missing:
        raise HeadError(
            "every class of the store needs a training row; there is none of "
            f"{source.store.classes[missing[0]]!r}"
        )
    streamed = Forms(source, plain=False, max_memory=max_memory, progress=None).streamed
    if streamed:
        raise HeadError(
            f"a model is trained in memory, but {streamed}: use --pool avg, or a larger "
            "--max-memory"
        )


def _card(
    source: FeatureRows,
    found: Comparison,
    classifier: Head,
    kind: str,
    counts: NDArray[np.int64],
) -> Card:
    """Return what a model says of itself."""
    from headstart.extract.decode import MAX_PIXELS

    store, measured = source.store, found.heads[0]
    right = _right(measured.predictions)
    spec, rest = store.stored(source.layer, source.pool)
    return Card(
        head=measured.head,
        kind=kind,
        params=_numbers(classifier.chosen_),
        spec=replace(spec, augmentation=""),  # it predicts pictures themselves
        pool=rest,
        shape=store.shape(spec.name),
        weights=_called(str(store.catalog.settings.get("weights", ""))),
        max_pixels=min(int(store.catalog.settings.get("max_pixels", MAX_PIXELS)), MOST_PIXELS),
        classes=tuple(store.classes),
        rows=tuple(counts.tolist()),
        accuracy=right / len(measured.right),
        log_loss=float(measured.log_loss or 0.0),
        ci95=wilson(right, len(measured.right)),
        majority_accuracy=found.majority_accuracy,
        measured=found.protocol,
        created=now(),
        versions=versions(),
    )


def _right(predictions: Predictions) -> int:
    """Return how many rows a model names right: by the largest probability, also of an SVM."""
    if predictions.probability is None:
        return int((predictions.guess == predictions.true).sum())
    return int((predictions.probability.argmax(1) == predictions.true).sum())


def _called(weights: str) -> str:
    """Return a name of weights; the path of a file is the trainer's own business."""
    from headstart.extract.weights import is_name

    return weights if is_name(weights) else A_FILE


def _numbers(params: dict[str, Any]) -> dict[str, Any]:
    return {name: v.item() if isinstance(v, np.generic) else v for name, v in params.items()}
