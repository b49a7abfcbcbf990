"""Pictures that are read once: known by their SHA-256 and, where it is wanted, decoded at once."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, NamedTuple, Self

from headstart.cache import LeftOut
from headstart.errors import UnreadableImageError
from headstart.extract._inorder import InOrder
from headstart.extract.hashing import read_file
from headstart.extract.picture import printable
from headstart.extract.pipeline import Job
from headstart.extract.places import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from headstart.cache import RowId
    from headstart.extract.picture import Picture
    from headstart.extract.pipeline import Decoding

    _Pixels = NDArray[np.uint8] | Exception


class _Read(NamedTuple):
    """What came of a file: its SHA-256 (hex) or why there is none, rows wanted, their pixels."""

    sha256: str | LeftOut
    rows: tuple[RowId, ...] = ()
    pixels: _Pixels | None = None


class Reading:
    """Threads that read, hash and decode pictures, some ahead of whoever takes them.

    The results come in the order of the pictures. Of identical ones the first is decoded.

    Parameters
    ----------
    pictures
        All of a dataset.
    decoding
        How bytes become pixels.
    wanted
        Called in the threads with a picture and its SHA-256 (hex); returns the rows to decode it
        for.
    passed
        Called for each picture, in order, in the thread that takes them, with its SHA-256 (hex) or
        why it cannot be read, and for how many rows it was decoded. What it raises ends it all.
    workers
        Number of threads, more where files are away.
    ahead
        How many pictures at most.

    Attributes
    ----------
    sha256
        Of each picture so far, or why it cannot be read.
    begun
        The rows that pictures so far were decoded for.
    vanished
        As for `Decoded`; what is read once cannot change meanwhile.
    crew
        As for `Decoded`.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        decoding: Decoding,
        *,
        wanted: Callable[[Picture, str], Sequence[RowId]],
        passed: Callable[[Picture, str | LeftOut, int], None],
        workers: int,
        ahead: int,
    ) -> None:
        self._decoding, self._wanted, self._passed = decoding, wanted, passed
        self.sha256: list[str | LeftOut] = []
        self.begun: set[RowId] = set()
        self.vanished: dict[str, str] = {}
        #: The number of the first picture seen that has a row; of which two may be decoded.
        self._first: dict[RowId, int] = {}
        self._line = InOrder(
            self._read,
            list(enumerate(pictures)),
            threads=threads([picture.file for picture in pictures], workers),
            ahead=ahead,
            name="decode",
        )
        self.crew = self._line.crew
        self._results = self._each()

    def __enter__(self) -> Self:
        """Return self: the threads are at work already."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the pictures not begun, and wait for those in hand."""
        self._line.__exit__(*error)

    def __iter__(self) -> Iterator[tuple[Job, _Pixels]]:
        """Yield a job for each picture that was decoded, with its pixels or why there are none."""
        return self._results

    def has_any(self) -> bool:
        """Go on until a picture was decoded; say whether there is one. It is yielded later."""
        first = list(itertools.islice(self._results, 1))
        self._results = itertools.chain(first, self._results)
        return bool(first)

    def _each(self) -> Iterator[tuple[Job, _Pixels]]:
        for (_, picture), (sha256, rows, pixels) in self._line:
            new = [place for place, row in enumerate(rows) if row not in self.begun]
            self.sha256.append(sha256)
            self.begun.update(rows)
            self._passed(picture, sha256, len(new))
            if pixels is not None and new:
                views = tuple(rows[place][1] for place in new)
                job = Job((rows[0][0], 0), picture.file, picture.path, views=views)
                if not isinstance(pixels, Exception) and len(new) < len(rows):
                    pixels = pixels[new]  # noqa: PLW2901
                yield job, pixels

    def _read(self, numbered: tuple[int, Picture]) -> _Read:
        number, picture = numbered
        try:
            data = read_file(picture.file)
        except UnreadableImageError as error:
            return _Read(LeftOut(printable(picture.path), str(error)))
        except MemoryError:  # the next run tries it again
            return _Read(LeftOut(printable(picture.path), "not enough memory to read it"))
        digest = hashlib.sha256(data).hexdigest()
        rows = tuple(
            row
            for row in self._wanted(picture, digest)
            if self._first.setdefault(row, number) >= number
        )
        if not rows:
            return _Read(digest)
        try:
            pixels = self._decoding(data, digest.encode(), [view for _, view in rows])
        except UnreadableImageError as error:
            return _Read(digest, rows, error)
        return _Read(digest, rows, pixels)
