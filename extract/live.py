"""Features of pictures here and now, without a store: what a prediction needs."""

from __future__ import annotations

import collections
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headstart.errors import DataError, UnreadableImageError
from headstart.extract.decode import DECODING, MAX_PIXELS, decode
from headstart.extract.hashing import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from headstart.extract.base import Base

    Picture = str | os.PathLike[str] | NDArray[np.uint8]


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
        Decoding threads.
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
        If an array is no picture.
    """

    def one(picture: Picture) -> NDArray[np.uint8]:
        return decode(_encoded(picture), size, max_pixels=max_pixels, rule=rule)

    positions: list[int] = []
    pixels: list[NDArray[np.uint8]] = []
    unusable: dict[int, str] = {}
    with ThreadPoolExecutor(workers, "decode") as pool:
        for position, future in _ahead(pool, one, pictures, 2 * base.batch_size + workers):
            try:
                pixels.append(future.result())
                positions.append(position)
            except (UnreadableImageError, OSError) as error:
                unusable[position] = str(error)
            if len(pixels) == base.batch_size:
                yield positions, base(np.stack(pixels)), unusable
                positions, pixels, unusable = [], [], {}
    if pixels:
        yield positions, base(np.stack(pixels)), unusable
    elif unusable:
        yield [], {}, unusable


def _ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[Picture], NDArray[np.uint8]],
    pictures: Sequence[Picture],
    ahead: int,
) -> Iterator[tuple[int, Future[NDArray[np.uint8]]]]:
    """Yield each picture's position and future, with a bounded number under way."""
    waiting: collections.deque[tuple[int, Future[NDArray[np.uint8]]]] = collections.deque()
    for position, picture in enumerate(pictures):
        waiting.append((position, pool.submit(function, picture)))
        if len(waiting) >= ahead:
            yield waiting.popleft()
    yield from waiting


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
