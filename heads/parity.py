"""Does a network answer as the head that was measured? Asked before it is published."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache import Store
from headstart.errors import DataError, ModelError, ParityError, StoreError, UnreadableImageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from headstart.extract.weights import WeightsFile
    from headstart.heads.model import Model

    Float = NDArray[np.float64]

#: Rows of the store whose answers are compared.
ROWS = 100
#: Probabilities may differ by this.
TOLERANCE = 1e-3
#: Of an 8-bit network, this share of the labels must be the same.
AGREEMENT = 0.95
#: Features in bfloat16 must be as near to those in float32, by the cosine of their angle.
_COSINE = 0.995


@dataclass(frozen=True)
class Sample:
    """Some rows of a store with their pictures.

    Attributes
    ----------
    paths : tuple of str
    pixels : ndarray of shape (n, size, size, 3), uint8
    cached : ndarray of shape (n, ...)
        Features as they are stored.
    further : ndarray of shape (m, size, size, 3), uint8
        Other pictures of the store, to calibrate 8-bit numbers on; the same ones where there are
        no others.
    """

    paths: tuple[str, ...]
    pixels: NDArray[np.uint8]
    cached: NDArray[Any]
    further: NDArray[np.uint8]


@dataclass(frozen=True)
class Parity:
    """How near a file's answers are.

    Attributes
    ----------
    rows : int
        Compared.
    same_labels : int
        Of the file and the head.
    largest_difference : float
        Between their probabilities.
    cached_precision : str
        What the store's features were computed in: ``float32`` or ``bfloat16``.
    same_cached_labels : int
        Of the head on features in float32, and on those of the store.
    largest_cached_difference : float
        Between their probabilities: what bfloat16 did; 0 of a store in float32.
    """

    rows: int
    same_labels: int
    largest_difference: float
    cached_precision: str
    same_cached_labels: int
    largest_cached_difference: float


@dataclass(frozen=True)
class Expected:
    """What the head says of the pictures of a sample.

    Attributes
    ----------
    probabilities : ndarray of shape (n, k)
        On features in float32.
    cached : ndarray of shape (n, k)
        On the features of the store.
    """

    probabilities: Float
    cached: Float


def store_for(model: Model, store: Store | str | os.PathLike[str] | None, near: Path) -> Store:
    """Return the store on whose rows a model is held against its file.

    Parameters
    ----------
    model
    store
        The one that is given, if any.
    near
        Else that in this folder, of those with features of the model's spec, which is most like the
        one it was trained on: by its classes, then by how many rows each has; then the first.

    Raises
    ------
    ModelError
        If the store has no such features, or there is none.
    """
    spec = model.card.spec
    if store is not None:
        opened = Store.open(store)
        if spec in _specs(opened):
            return opened
        held = next(iter(opened.catalog.layers.values())).spec
        fields = ", ".join(
            f"{name} {mine!r}, there {theirs!r}"
            for name, (mine, theirs) in spec.differences(held).items()
        )
        raise ModelError(f"{opened.path} has no features of the model's kind: {fields}")
    fitting = []
    for folder in sorted(near.iterdir()):
        if (folder / "features.h5").is_file():
            try:
                opened = Store.open(folder)
            except (StoreError, OSError):
                continue
            if spec in _specs(opened):
                fitting.append(opened)
    if fitting:
        return min(fitting, key=lambda one: _unlike(model, one))
    raise ModelError(
        f"no store in {near} has features of the model's kind: name the one it was trained on "
        "with --store, so that the file can be held against its rows"
    )


def has_classes(model: Model, store: Store) -> bool:
    """Tell whether a store has the model's classes, as the one it was trained on has."""
    return store.classes == model.card.classes


def _unlike(model: Model, store: Store) -> tuple[bool, int]:
    """Return how a store differs from what the model was trained on: in classes, by how many rows.

    Rows of the test split are not trained on, nor are those of a validation split.
    """
    if not has_classes(model, store):
        return True, 0
    splits, labels = store.splits(), store.labels()
    trained = labels[~np.isin(splits, ("validation", "test")) & (labels >= 0)]
    counts = np.bincount(trained, minlength=len(store.classes))
    return False, int(np.abs(counts - np.array(model.card.rows)).sum())


def _specs(store: Store) -> list[Any]:
    return [replace(index.spec, augmentation="") for index in store.catalog.layers.values()]


def draw_sample(
    model: Model, store: Store, data: str | os.PathLike[str] | None, *, further: bool
) -> Sample:
    """Return rows of a store, drawn at random but always the same, with their pictures.

    Rows of a validation or test split come first. Rows whose picture is gone, or is another one
    now, are passed over.

    Parameters
    ----------
    model, store
    data
        Where the pictures are; where they were at the last extraction by default.
    further
        Whether other pictures are wanted too.

    Raises
    ------
    DataError
        If there is not one picture of the store.
    """
    remembered = store.catalog.settings.get("data") or ""
    if not (data or remembered):
        raise DataError(f"{store.path} does not know where its pictures are; give --data DATA")
    place = data or Path(remembered)  # as a path, so that a store can make nobody fetch
    wanted = 2 * ROWS if further else ROWS
    rows, pictures = [], []
    for row, pixels in _pictures(model, store, place):
        rows.append(row)
        pictures.append(pixels)
        if len(rows) == wanted:
            break
    if not rows:
        raise DataError(
            f"not one picture of {store.path} is at {place} as it was: name where they are with "
            "--data, or run extract again"
        )
    kept = rows[:ROWS]
    paths, name = store.paths(), model.card.spec.name
    return Sample(
        tuple(paths[row] for row in kept),
        np.stack(pictures[:ROWS]),
        store.features(name, rows=np.array(kept), dtype=model.card.spec.dtype),
        np.stack(pictures[ROWS:] or pictures[:ROWS]),
    )


def _pictures(
    model: Model, store: Store, place: str | os.PathLike[str]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield row after row with its decoded picture, each picture once."""
    from headstart.extract.dataset import list_dataset
    from headstart.extract.decode import decode
    from headstart.extract.hashing import read_file

    files = {picture.path: picture.file for picture in list_dataset(place).pictures}
    paths, digests, views = store.paths(), store.image_sha256(), store.views()
    seen: set[bytes] = set()
    order = np.random.default_rng(0).permutation(len(paths))
    held = np.isin(store.splits()[order], ("validation", "test"))
    for row in order[np.argsort(~held, kind="stable")].tolist():
        digest = bytes(digests[row])
        if views[row] or digest in seen or paths[row] not in files:
            continue
        try:
            content = read_file(files[paths[row]])
            if hashlib.sha256(content).hexdigest().encode() == digest:
                seen.add(digest)
                limit, rule = model.card.max_pixels, model.card.spec.decoding
                size = model.card.spec.size
                yield row, decode(content, size, max_pixels=limit, rule=rule)
        except UnreadableImageError:
            continue


def expected(model: Model, sample: Sample, weights: WeightsFile) -> Expected:
    """Return what the head says of a sample's pictures.

    The exported network computes in float32. A store in float32 is itself the measure of it. One
    in bfloat16 is not: rounding to 8 bits moves probabilities by more than `TOLERANCE`. Then the
    base, as extraction runs it, computes the pictures again in float32, which must be what is
    stored but for that rounding; and the head's answers on those features are the measure.

    Raises
    ------
    ParityError
        If the stored features are not those of the pictures.
    """
    cached = model.probabilities(sample.cached)
    spec = model.card.spec
    if spec.precision == "float32":
        return Expected(cached, cached)
    from headstart.extract import base as bases

    base = bases.load_base(
        weights,
        size=spec.size,
        layers=[spec.layer],
        pool=spec.pool,
        engine="keras",
        precision="float32",
    )
    features = base(sample.pixels)[spec.layer]
    near = _cosines(features, sample.cached)
    worst = int(near.argmin())
    if not near[worst] >= _COSINE:
        raise ParityError(
            f"the stored features of {sample.paths[worst]} are not those that the base computes "
            f"of it (cosine {near[worst]:.3f}, expected {_COSINE} or more); nothing was written: "
            "verify the store"
        )
    return Expected(model.probabilities(features), cached)


def _cosines(a: NDArray[Any], b: NDArray[Any]) -> Float:
    x, y = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (a, b))
    lengths = np.sqrt(np.einsum("ij,ij->i", x, x) * np.einsum("ij,ij->i", y, y))
    found: Float = np.einsum("ij,ij->i", x, y) / np.where(lengths > 0, lengths, 1)
    return np.where((x == y).all(1), 1.0, found)


def compare(
    model: Model, sample: Sample, wanted: Expected, found: NDArray[Any], *, quantized: bool
) -> Parity:
    """Hold a file's answers against the head's.

    Parameters
    ----------
    found : ndarray of shape (n, k)
        What the file says, run by its own runtime.
    quantized : bool
        It computes in 8 bits: then `AGREEMENT` holds, not `TOLERANCE`.

    Raises
    ------
    ParityError
        If they differ by more: which row, what was expected and what found.
    """
    found = np.asarray(found, np.float64)
    if found.shape != wanted.probabilities.shape:
        raise ParityError(
            f"the file gives {found.shape}; expected {wanted.probabilities.shape}; nothing was "
            "written"
        )
    difference = np.nan_to_num(np.abs(found - wanted.probabilities), nan=np.inf).max(1)
    same = (found.argmax(1) == wanted.probabilities.argmax(1)) & np.isfinite(difference)
    ours = wanted.cached.argmax(1) == wanted.probabilities.argmax(1)
    right = same if quantized else same & (difference <= TOLERANCE)
    rows = len(found)
    if not right.mean() >= (AGREEMENT if quantized else 1):
        worst = int(np.where(right, -1, difference).argmax())
        raise ParityError(
            f"the file does not answer as the model does: of {rows} rows {rows - right.sum()} "
            f"differ, most of all {sample.paths[worst]}: expected "
            f"{_said(model, wanted.probabilities[worst])}, found {_said(model, found[worst])}; "
            "nothing was written"
        )
    return Parity(
        rows,
        int(same.sum()),
        float(difference.max()),
        model.card.spec.precision,
        int(ours.sum()),
        float(np.abs(wanted.cached - wanted.probabilities).max()),
    )


def _said(model: Model, probabilities: Float) -> str:
    label = model.card.classes[int(probabilities.argmax())]
    return f"{label!r} with {probabilities.max():.4f}"
