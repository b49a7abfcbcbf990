"""Pictures to features inside scikit-learn's own pipelines, each picture computed once."""

from __future__ import annotations

import itertools
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin

from headstart.cache import Filling, Rows, Store
from headstart.errors import DataError, StoreError
from headstart.extract import Settings, Speed
from headstart.extract.computation import Computation, same_weights
from headstart.extract.live import as_pictures
from headstart.extract.plan import make_plan, read_source, remembered
from headstart.extract.run import asked_spec, require

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headstart.cache import LeftOut
    from headstart.cache.catalog import Catalog
    from headstart.cache.store import Pool
    from headstart.extract.plan import Source

_ATTEMPTS = 20  # to find one's rows in a store that others fill, too


class InceptionFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn pictures into the frozen base's features, kept by their content.

    A picture that a store has already, be it from `headstart.extract` or from here, is read from
    it; others are computed and added as rows without a label. So a pipeline with this in front
    can be cross-validated and searched, and no picture is computed twice.

    Parameters
    ----------
    cache : path, optional
        A store, made if it is not there. Without one features are computed each time.
    layer : str
    pool : {"none", "avg", "max"}
        Of the stored map, over height and width.
    size, weights, engine, precision
        As for `headstart.extract`; the store's by default.
    workers : int, optional
        Threads that decode and, usually, compute.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> pipeline = make_pipeline(InceptionFeatures("pets.features"), LogisticRegression())
    >>> pipeline.fit(["cat.jpg", "dog.jpg"], ["cat", "dog"])  # doctest: +SKIP
    """

    def __init__(
        self,
        cache: str | os.PathLike[str] | None = None,
        *,
        layer: str = "mixed7",
        pool: Pool = "none",
        size: int | None = None,
        weights: str | None = None,
        engine: str | None = None,
        precision: str | None = None,
        workers: int | None = None,
    ) -> None:
        self.cache = cache
        self.layer = layer
        self.pool = pool
        self.size = size
        self.weights = weights
        self.engine = engine
        self.precision = precision
        self.workers = workers

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn nothing: the base is frozen."""
        del X, y
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn that there is nothing to fit."""
        return True

    def transform(self, X: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
        """Return features ``(n, d)``, float32.

        Parameters
        ----------
        X : sequence of path, or of ndarray of shape (height, width, 3)
            Pictures in files, or decoded ones (uint8) of any size.

        Raises
        ------
        DataError
            If a picture cannot be used: it names the first.
        SpecMismatchError
            If the store was made under another spec.
        """
        with ExitStack() as stack:
            files = _files(as_pictures(X), stack)
            place = self.cache or stack.enter_context(tempfile.TemporaryDirectory())
            speed = Speed(workers=self.workers)
            source = read_source(list(map(str, dict.fromkeys(files))), workers=speed.threads)
            _refuse(source.left_out)
            order = {picture.file: n for n, picture in enumerate(source.dataset.pictures)}
            digests = [source.sha256[order[file]].encode() for file in files]
            for _ in range(_ATTEMPTS):
                store = self._filled(Path(place), source, speed)
                digests_of = zip(store.image_sha256(), store.views(), strict=True)
                row_of = {digest: row for row, (digest, n) in enumerate(digests_of) if n == 0}
                if all(digest in row_of for digest in digests):  # no other run has published since
                    rows = np.array([row_of[digest] for digest in digests])
                    return self._read(store, rows)
        raise StoreError(f"{place} is filled by many others at once; try again")

    def _read(self, store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        different, back = np.unique(rows, return_inverse=True)
        features = store.features(self.layer, rows=different, pool=self.pool, dtype="float32")
        result: NDArray[np.float32] = features.reshape(len(different), -1)[back]
        return result

    def _filled(self, place: Path, source: Source, speed: Speed) -> Store:
        """Return the store with rows for these pictures, computing only what it lacks."""
        started = time.perf_counter()
        filling = Filling(place)
        settings = Settings(
            layers=(self.layer,),
            size=self.size,
            weights=self.weights,
            engine=self.engine,
            precision=self.precision,
        )
        require(filling, settings)
        plan = make_plan(source, filling, settings)
        notes = remembered(filling, settings, None) | {"data": filling.settings.get("data", "")}
        work = Computation(filling, plan, asked_spec(filling, settings), notes, speed=speed)
        if work.total or not same_weights(filling, settings):
            work.compute()
        _refuse(source.usable(plan.unreadable | work.outcome.unreadable, {}).left_out)
        before = filling.before
        rows = _joined(before, source.rows())
        if before is None or len(rows.path) > len(before.path):
            filling.publish(
                rows,
                tuple(plan.cuts),
                left_out=before.left_out if before else (),
                unreadable=before.unreadable if before else {},
                settings=notes,
                seconds=time.perf_counter() - started if work.outcome.computed else 0.0,
            )
        return Store.open(place)


def _files(X: Any, stack: ExitStack) -> list[Path]:
    """Return a file for each picture; of arrays, lossless ones that the stack removes again."""
    files = []
    folder: Path | None = None
    for number, picture in enumerate(X):
        if not isinstance(picture, np.ndarray):
            files.append(Path(picture).absolute())
            continue
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(
                f"a picture is a path, or an array (height, width, 3) of uint8; found "
                f"{picture.shape} of {picture.dtype}"
            )
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files.append(folder / f"{number}.png")
        Image.fromarray(picture).save(files[-1], "PNG", compress_level=1)
    return files


def _refuse(left_out: Sequence[LeftOut]) -> None:
    if left_out:
        first = min(left_out)
        raise DataError(
            f"{first.path}: {first.reason}; features need every picture: leave this one out"
        )


def _joined(before: Catalog | None, more: Rows) -> Rows:
    """Return the rows that are published, and those of pictures which have none, without labels."""
    if before is None:
        return replace(more, label=[-1] * len(more.path))
    have, taken = set(before.image_sha256.tolist()), set(before.path)
    first = {digest: n for n, digest in reversed(list(enumerate(more.image_sha256)))}
    new = sorted(n for digest, n in first.items() if digest not in have)
    paths = [_unused(more.path[n], taken) for n in new]
    return Rows(
        classes=before.classes,
        path=[*before.path, *paths],
        split=[*before.split, *[""] * len(new)],
        label=[*before.label.tolist(), *[-1] * len(new)],
        image_sha256=[*before.image_sha256.tolist(), *(more.image_sha256[n] for n in new)],
        view=[*before.view.tolist(), *[0] * len(new)],
        columns={name: [*v, *[""] * len(new)] for name, v in before.columns.items()},
    )


def _unused(path: str, taken: set[str]) -> str:
    """Return the path, or the path with a number where another picture was there before."""
    names = itertools.chain([path], (f"{path} ({n})" for n in itertools.count(2)))
    found = next(name for name in names if name not in taken)
    taken.add(found)
    return found
