"""Features of pictures here and now, without a store: what a prediction needs."""

from __future__ import annotations

import functools
import io
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headstart.errors import DataError, UnreadableImageError
from headstart.extract._bases import Bases
from headstart.extract._inorder import InOrder
from headstart.extract.decode import DECODING, MAX_PIXELS, decode
from headstart.extract.hashing import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headstart.extract.base import Base

    Picture = str | os.PathLike[str] | NDArray[np.uint8]

_Place = tuple[int, dict[int, str]]  # of a picture, and why those before it are of no use


def as_pictures(given: Any) -> Sequence[Picture]:
    """Return a list of pictures, also of a single path or of a single decoded picture."""
    decoded = isinstance(given, np.ndarray) and given.ndim == 3
    return [given] if decoded or isinstance(given, str | os.PathLike) else given


def live_features(
    pictures: Sequence[Picture],
    base: Base,
    *,
    size: int,
    workers: int,
    max_pixels: int = MAX_PIXELS,
    rule: str = DECODING,
) -> Iterator[tuple[list[int], dict[str, NDArray[np.float32]], dict[int, str]]]:
    r"""Decode pictures by the rule of extraction and push them through the base.

    Parameters
    ----------
    pictures
        Files, or decoded pictures (height, width, 3) uint8 of any size, which are brought to
        `size` as a file's would be.
    base
        Its batch size is kept, whatever pictures cannot be used.
    size
        The base's input height and width, in pixels.
    workers
        Threads that decode and, usually, compute.
    max_pixels
        Pictures with more are not used.
    rule
        Of decoding, as a spec names it.

    Yields
    ------
    positions : list of int
        Which of the pictures these are, in order.
    features : dict
        Layer to (len(positions), \*shape) float32; of no rows where nothing could be used.
    unusable : dict
        Position to the reason, of pictures since the last batch.

    Raises
    ------
    DataError
        If an array is no picture; what was computed before is yielded first.
    """
    unusable: dict[int, str] = {}

    def usable() -> Iterator[tuple[_Place, NDArray[np.uint8]]]:
        """Yield pixels, each with its position and with those that could not be used before it."""
        nonlocal unusable
        for position, (_, found) in enumerate(line):
            if isinstance(found, Exception):
                unusable[position] = str(found)
            else:
                yield (position, unusable), found
                unusable = {}

    ahead = 2 * base.batch_size + workers
    one = functools.partial(_decoded, size=size, max_pixels=max_pixels, rule=rule)
    with InOrder(one, pictures, threads=workers, ahead=ahead, name="decode") as line:
        bases = Bases[_Place]([base], line.crew)
        try:
            with bases:
                for places, features in bases.compute(usable()):
                    yield _batch(places, features)
        except DataError:
            yield from itertools.starmap(_batch, bases.left())
            raise
    if unusable:
        yield [], {}, unusable


def _batch(
    places: list[_Place], features: dict[str, NDArray[np.float32]]
) -> tuple[list[int], dict[str, NDArray[np.float32]], dict[int, str]]:
    passed = {position: reason for _, some in places for position, reason in some.items()}
    return [position for position, _ in places], features, passed


def _decoded(picture: Picture, **options: Any) -> NDArray[np.uint8] | Exception:
    try:
        return decode(_encoded(picture), **options)
    except (UnreadableImageError, OSError) as error:
        return error


def _encoded(picture: Picture) -> bytes:
    """Return a picture's file; of an array, a lossless one, so that one rule decodes both."""
    if not isinstance(picture, np.ndarray):
        return read_file(Path(picture))
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise DataError(
            f"a picture is an array (height, width, 3) of uint8; found {picture.shape} of "
            f"{picture.dtype}"
        )
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
