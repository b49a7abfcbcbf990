"""Before anything is computed: the layers, the pictures, and what extraction would cost."""

from __future__ import annotations

import collections
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache import LeftOut, Spec
from headstart.errors import UnreadableImageError
from headstart.extract.base import LayerInfo, batch_seconds, layer_table, load_base
from headstart.extract.decode import MAX_PIXELS
from headstart.extract.layers import check_layers
from headstart.extract.pipeline import Decoder, Decoding, distance, shard_rows
from headstart.extract.plan import jobs, read_source
from headstart.extract.run import Speed
from headstart.extract.weights import find_weights

if TYPE_CHECKING:
    import os

    from headstart.cache import Progress
    from headstart.extract.plan import Source

_MEASURED_BATCHES = 3  # after the one that starts the engine
_BATCHES = 4  # of features beside those in the base: one put, two that wait, one packed
_COPIES = 3  # of a shard: its rows, in one array, and as they are written


@dataclass(frozen=True)
class Cost:
    """What extraction would take on this machine, from a few measured batches."""

    layers: tuple[str, ...]
    pool: str
    seconds: float
    images_per_second: float
    bytes: int
    memory: int


@dataclass(frozen=True)
class Pictures:
    """What a dataset consists of."""

    data: str
    usable: int
    distinct: int
    classes: dict[str, int]
    splits: dict[str, int]
    other_files: int
    other_kinds: tuple[tuple[str, int], ...]
    empty_classes: tuple[str, ...]
    across_splits: tuple[tuple[str, ...], ...]
    across_labels: tuple[tuple[str, ...], ...]
    cost: Cost


@dataclass(frozen=True)
class Inspection:
    """The layers one can cut at and, if a dataset was given, its pictures."""

    size: int
    layers: tuple[LayerInfo, ...]
    left_out: tuple[LeftOut, ...]
    pictures: Pictures | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "left_out": [row._asdict() for row in self.left_out]}


def inspect(
    data: str | os.PathLike[str] | None = None,
    *,
    size: int = Spec.size,
    layers: tuple[str, ...] = (Spec.layer,),
    pool: str = Spec.pool,
    all_layers: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Inspection:
    """List the layers; with `data`, also read and decode every picture, and cost a run.

    Parameters
    ----------
    data
        A dataset, as for `extract`.
    size
        Input height and width, in pixels.
    layers
        Layers to cost.
    pool
        Pooling to cost them with: ``none``, ``avg`` or ``max``.
    all_layers
        List every layer one can cut at, not only the ``mixed`` ones.
    max_pixels
        Pictures with more would be left out.
    progress
        Called with stage, done, total.

    Raises
    ------
    DataError
        If the dataset cannot be used.
    LayerError
        If a layer is unknown, or `size` is below 75.
    """
    check_layers(layers)
    table = [row for row in layer_table(size) if all_layers or row.name.startswith("mixed")]
    pictures, left_out = None, tuple[LeftOut, ...]()
    if data is not None:
        speed = Speed()
        source = read_source(data, workers=speed.threads, progress=progress)
        source, seconds = _usable(source, size, max_pixels, speed, progress)
        left_out = source.left_out
        cost = _cost(source, size, layers, pool, speed=speed, decode_seconds=seconds)
        pictures = _pictures(str(data), source, cost)
    return Inspection(size, tuple(table), left_out, pictures)


def _usable(
    source: Source, size: int, max_pixels: int, speed: Speed, progress: Progress | None
) -> tuple[Source, float]:
    """Decode each different picture; return those that can be used, and the seconds it took."""
    wanted, started = jobs(source), time.perf_counter()
    unreadable: dict[str, str] = {}
    decoding = Decoding(size, max_pixels)
    decoder = Decoder(wanted, decoding, workers=speed.threads, ahead=4 * speed.threads)
    with decoder:
        for done, (job, result) in enumerate(decoder, 1):
            if isinstance(result, UnreadableImageError):
                unreadable[job.row[0].decode()] = str(result)
            if progress is not None:
                progress("decoding", done, len(wanted))
    return source.usable(unreadable, decoder.vanished), time.perf_counter() - started


def _pictures(data: str, source: Source, cost: Cost) -> Pictures:
    counts = collections.Counter(picture.label for picture in source.dataset.pictures)
    return Pictures(
        data=data,
        usable=len(source),
        distinct=len(set(source.sha256)),
        classes={name: counts[n] for n, name in enumerate(source.dataset.classes)},
        splits=dict(collections.Counter(picture.split for picture in source.dataset.pictures)),
        other_files=source.dataset.other_files,
        other_kinds=source.dataset.other_kinds,
        empty_classes=source.dataset.empty_classes,
        across_splits=source.conflicts.across_splits,
        across_labels=source.conflicts.across_labels,
        cost=cost,
    )


def _cost(
    source: Source,
    size: int,
    layers: tuple[str, ...],
    pool: str,
    *,
    speed: Speed,
    decode_seconds: float,
) -> Cost:
    """Estimate a run: decoding (measured) and the base (a few batches)."""
    distinct = len(set(source.sha256))
    base = load_base(
        find_weights("random"),
        size=size,
        layers=layers,
        pool=pool,
        engine="auto",
        precision="auto",
    )
    pixels = np.zeros((base.batch_size, size, size, 3), np.uint8)
    taken = batch_seconds(base, [pixels] * _MEASURED_BATCHES)
    # Decoding and the base share the cores, so their times add up.
    seconds = distinct * taken / len(pixels) + decode_seconds
    rows = [2 * int(np.prod(base.shapes[layer])) for layer in base.layers]
    ahead = distance(size, views=1, batch_size=base.batch_size, workers=speed.threads)
    return Cost(
        layers=base.layers,
        pool=pool,
        seconds=seconds,
        images_per_second=distinct / seconds,
        bytes=distinct * sum(rows),
        memory=_peak_memory()
        + _held(
            rows,
            size,
            decoded=min(ahead, distinct),
            computed=(base.at_once + _BATCHES) * base.batch_size,
            distinct=distinct,
        ),
    )


def _held(rows: list[int], size: int, *, decoded: int, computed: int, distinct: int) -> int:
    """Return the bytes a run holds beside the base, from the bytes of a row of each layer.

    Those are pixels of pictures `decoded` ahead, float32 features of pictures `computed` and on
    their way to the writer, and of each layer a shard that fills.
    """
    pixels = 3 * size**2 * decoded
    features = computed * 2 * sum(rows)
    shards = _COPIES * sum(min(distinct, shard_rows(row)) * row for row in rows)
    return pixels + features + shards


def _peak_memory() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
