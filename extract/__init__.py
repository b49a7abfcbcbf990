"""From pictures to features: datasets, decoding, the frozen base, and the run that joins them."""

from __future__ import annotations

import inspect
import sys
import types
from typing import TYPE_CHECKING, Any

from headstart.extract.mend import mend_store
from headstart.extract.parts import Part, PartSummary
from headstart.extract.plan import Settings
from headstart.extract.run import Speed, Summary, fill_part, fill_store

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from headstart.cache import Progress, Store

__all__ = [
    "Part",
    "PartSummary",
    "Settings",
    "Speed",
    "Summary",
    "extract",
    "fill_part",
    "fill_store",
    "mend_store",
]


def extract(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    store: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    layer: str | Sequence[str] | None = None,
    pool: str | None = None,
    size: int | None = None,
    weights: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    dtype: str | None = None,
    decoding: str | None = None,
    views: int | None = None,
    augment: str | None = None,
    validation: float | None = None,
    max_pixels: int | None = None,
    on_error: str = "ledger",
    batch_size: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """Run the frozen base once over a dataset and keep the features in a store.

    A second call computes only pictures that are new or changed. The store then has the rows
    of `data` and no others; features of pictures that are gone stay in its shards, and cost
    nothing should they come back. What is None is taken from the store if there is one, else
    from the defaults.

    Parameters
    ----------
    data
        A folder with a folder for each class; the same inside ``train``, ``validation``
        (or ``val``) and ``test``; a ``.csv`` or ``.parquet`` manifest with the columns
        ``path``, ``label`` and perhaps ``split``; or a list of paths.
    store
        The store's folder; made if it is not there.
    labels
        With a list of paths: the class of each.
    layer
        One layer or several, computed in one pass (default ``mixed7``).
    pool
        ``none`` (default), ``avg`` or ``max`` over height and width before storing.
    size
        Height and width pictures are stretched to, in pixels, at least 75 (default 150).
    weights
        ``imagenet`` (default), ``registry``, ``random[:SEED]`` or a file.
    engine
        ``keras``, ``openvino`` (the extra ``headstart[cpu]``), or ``auto`` (default): OpenVINO
        where it is installed and no GPU is present.
    precision
        Arithmetic of the base: ``float32``, ``bfloat16``, or ``auto`` (default): bfloat16
        where the hardware has it. Chosen once and recorded in the store.
    dtype
        Of the stored numbers: ``float16`` (default) or ``float32``.
    decoding
        ``full`` (default), or ``scaled``: large JPEGs are decoded at a half, a quarter or an
        eighth of their size, which is faster and gives slightly other features.
    views
        Augmented copies to keep of each picture that is not for validation or test (default 0).
    augment
        How they differ, as ``"rotation=0.1,flip=0"``; see `headstart.extract.augment`.
    validation
        Where the dataset has no split: the share of pictures for validation, chosen by a
        hash of their bytes (default 0: no split).
    max_pixels
        Pictures with more are left out (default 64 million).
    on_error
        ``"ledger"``: note a picture that cannot be used and go on; ``"fail"``: stop.
    batch_size, workers
        Pictures in a batch; threads that decode and, usually, compute. They change speed, never
        values.
    progress
        Called with stage, done, total; the stage may end in what limits it, in brackets.

    Returns
    -------
    Store

    Raises
    ------
    DataError
        If the dataset cannot be used.
    SpecMismatchError
        If the store was made under another spec.
    WeightsError, LayerError
        If the base cannot be had, or not be cut there.

    Examples
    --------
    >>> import headstart as hs
    >>> store = hs.extract("pets/", "pets.features", layer="mixed7")  # doctest: +SKIP
    """
    layers = (layer,) if isinstance(layer, str) else layer
    settings = Settings(
        layers=None if layers is None else tuple(layers),
        pool=pool,
        size=size,
        weights=weights,
        engine=engine,
        precision=precision,
        dtype=dtype,
        decoding=decoding,
        views=views,
        augment=augment,
        validation=validation,
        max_pixels=max_pixels,
    )
    speed = Speed(workers=workers) if batch_size is None else Speed(batch_size, workers)
    filled, _ = fill_store(
        data, store, settings, labels=labels, on_error=on_error, speed=speed, progress=progress
    )
    return filled


class _Callable(types.ModuleType):
    """The package itself, made callable.

    ``headstart.extract`` is both a function people call and the room it lives in; Python
    binds the name to the package as soon as anything imports a module of the room.
    """

    __signature__ = inspect.signature(extract)

    def __call__(self, *args: Any, **kwargs: Any) -> Store:
        return extract(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
