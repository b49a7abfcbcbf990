"""Places of pictures: here, or away, where more threads wait."""

from __future__ import annotations

from pathlib import Path

from headstart.errors import UnreadableImageError
from headstart.extract.hashing import hash_files, read_file
from headstart.extract.places import AWAY_THREADS, Away, threads


class Elsewhere:
    """A picture that is no file; it notes what for it was fetched."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.again: list[bool] = []

    def fetch(self, *, again: bool) -> bytes:
        self.again.append(again)
        if self.content is None:
            raise UnreadableImageError("the line is cut")
        return self.content


def test_a_path_is_not_away(tmp_path: Path) -> None:
    assert isinstance(Elsewhere(b""), Away)
    assert not isinstance(tmp_path, Away)


def test_threads(tmp_path: Path) -> None:
    """Files of this machine are read by as many threads as ever."""
    assert threads([tmp_path, tmp_path], 2) == 2
    assert threads([tmp_path, Elsewhere(b"")], 2) == AWAY_THREADS
    assert threads([Elsewhere(b"")], AWAY_THREADS + 1) == AWAY_THREADS + 1


def test_hashing_and_reading(tmp_path: Path) -> None:
    """The same bytes have the same hash wherever they are; hashing says it will come again."""
    here, there, gone = tmp_path / "a.png", Elsewhere(b"bytes"), Elsewhere(None)
    here.write_bytes(b"bytes")
    local, away, lost = hash_files([here, there, gone], workers=2)
    assert local == away
    assert not isinstance(lost, str)
    assert lost.reason == "the line is cut"
    assert read_file(there) == b"bytes"
    assert there.again == [True, False]
