"""The pictures behind rows: found where they were, checked, and made small for a page."""

from __future__ import annotations

import base64
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from headstart._hardware import cores
from headstart.errors import DataError, UnreadableImageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from headstart.cache import Progress, Store
    from headstart.extract.places import Place

#: Edge in pixels of pictures beside text, and of those in a crowd of so many.
LARGE, _SMALL = 128, ((600, 96), (1300, 72), (2000, 56))
#: Small pictures on a page at most, and the bytes that all pictures may take there.
MOST, _BYTES = 2000, 3_900_000
_AHEAD = 64  # pictures in hand


@dataclass(frozen=True)
class Gallery:
    """Small pictures by row, as ``data:`` addresses.

    Attributes
    ----------
    large, small : dict of int to str
    wanted : int
        Rows that could have had one.
    words : str
        Which pictures are shown, and why others are not.
    """

    large: dict[int, str]
    small: dict[int, str]
    wanted: int
    words: str

    def of(self, row: int) -> str:
        """Return the better picture of a row, or nothing."""
        return self.large.get(row) or self.small.get(row, "")


def gather(
    store: Store,
    large: Sequence[int],
    small: Sequence[int],
    *,
    data: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """Make small pictures of rows, under the store's own rule of decoding.

    A file is shown only if its bytes are those whose features the store holds.

    Parameters
    ----------
    store
    large, small
        Row numbers, those that matter most first.
    data
        The dataset; where it was at the last extraction by default.
    progress
        Called with "pictures", done, total.

    Raises
    ------
    DataError
        If `data` is given and is no dataset.
    """
    wanted = len(set(small) | set(large))
    place = data or store.catalog.settings.get("data") or ""
    if not place:
        return Gallery({}, {}, wanted, "The store does not know where its pictures are.")
    try:
        files = _files(data or Path(place))  # as a path, so that a store can make nobody fetch
    except DataError:
        if data:
            raise
        return Gallery({}, {}, wanted, f"The pictures are not where they were, {place}.")
    found = _Found(store, files)
    small = list(dict.fromkeys(small))[:MOST]
    edge = next((edge for most, edge in _SMALL if len(small) <= most), _SMALL[-1][1])
    budget = _BYTES
    result: list[dict[int, str]] = []
    for rows, size in ((list(dict.fromkeys(large)), LARGE), (small, edge)):
        made, budget = found.pictures(rows, size, budget, progress)
        result.append(made)
    shown = len(result[0].keys() | result[1].keys())
    there = int((store.views() == 0).sum())  # a view has no picture of its own
    return Gallery(result[0], result[1], wanted, _words(shown, wanted, there, place))


def _words(shown: int, wanted: int, rows: int, place: object) -> str:
    if shown == 0:
        return f"None of the pictures could be read as they were from {place}."
    which = "all" if shown == rows else f"a sample of {shown:,} of {rows:,}"
    lost = "" if shown >= min(wanted, MOST) else " (others are gone, have changed, or had no room)"
    return f"Pictures: {which}{lost}, made small and square as the base sees them."


def _files(place: str | os.PathLike[str]) -> dict[str, Place]:
    from headstart.extract.dataset import list_dataset

    return {picture.path: picture.file for picture in list_dataset(place).pictures}


class _Found:
    """Reads the files behind rows."""

    def __init__(self, store: Store, files: dict[str, Place]) -> None:
        limit = int(store.catalog.settings.get("max_pixels", 0) or 0)
        self._limit: dict[str, Any] = {"max_pixels": limit} if limit else {}
        self._paths, self._digests, self._files = store.paths(), store.image_sha256(), files

    def pictures(
        self, rows: Sequence[int], size: int, budget: int, progress: Progress | None
    ) -> tuple[dict[int, str], int]:
        """Return pictures by row until the bytes are spent, and the bytes that are left."""
        made: dict[int, str] = {}
        with ThreadPoolExecutor(cores()) as pool:
            for first in range(0, len(rows), _AHEAD):
                some = rows[first : first + _AHEAD]
                for row, picture in zip(
                    some, pool.map(lambda row: self._one(row, size), some), strict=True
                ):
                    if picture and len(picture) <= budget:
                        made[row] = picture
                        budget -= len(picture)
                if progress is not None:
                    progress("pictures", min(first + _AHEAD, len(rows)), len(rows))
        return made, budget

    def _one(self, row: int, size: int) -> str:
        from headstart.extract.decode import decode
        from headstart.extract.hashing import read_file

        file = self._files.get(self._paths[row])
        try:
            if file is None:
                return ""
            data = read_file(file)
            if hashlib.sha256(data).hexdigest().encode() != self._digests[row]:
                return ""
            pixels = decode(data, size, **self._limit)
        except (OSError, UnreadableImageError):
            return ""
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", quality=55, method=4)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def distinct(*groups: Iterable[int]) -> list[int]:
    """Return the rows of all groups, each once, in order.

    Examples
    --------
    >>> distinct([3, 1], [1, 2])
    [3, 1, 2]
    """
    return list(dict.fromkeys(row for group in groups for row in group))
