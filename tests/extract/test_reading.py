"""Pictures that are read once: every wanted row is decoded once, at the first that has it."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.cache import LeftOut, RowId
from headstart.errors import UnreadableImageError
from headstart.extract import reading
from headstart.extract.hashing import read_file as read_now
from headstart.extract.picture import Picture
from headstart.extract.reading import Reading


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fake_decoding(data: bytes, digest: bytes, views: Sequence[int]) -> Any:
    """Return "pixels" that say what they are of; a content that begins with "x" does not decode."""
    assert sha256(data).encode() == digest
    time.sleep(data[-1] % 3 / 5000)
    if data.startswith(b"x"):
        raise UnreadableImageError(f"odd: {data!r}")
    return np.stack([np.full((2, 2, 3), data[-1] + view, np.uint8) for view in views])


def write(folder: Path, contents: Sequence[bytes | None]) -> list[Picture]:
    """Write pictures; None is one that is gone."""
    pictures = []
    for number, content in enumerate(contents):
        file = folder / f"{number:03d}.png"
        if content is not None:
            file.write_bytes(content)
        pictures.append(Picture(file.name, file, 0, ""))
    return pictures


def every(picture: Picture, digest: str) -> list[RowId]:
    return [(digest.encode(), 0)]


def read(
    pictures: Sequence[Picture],
    wanted: Callable[[Picture, str], Sequence[RowId]] = every,
    passed: Callable[[Picture, str | LeftOut, int], None] = lambda *_: None,
    workers: int = 3,
    ahead: int = 16,
) -> Reading:
    decoding: Any = fake_decoding
    return Reading(pictures, decoding, wanted=wanted, passed=passed, workers=workers, ahead=ahead)


@settings(max_examples=40, deadline=None)
@given(
    contents=st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"xe", None]), max_size=40),
    known=st.sets(st.sampled_from([b"a", b"d", b"xe"])),
    workers=st.integers(1, 4),
    ahead=st.integers(1, 40),
)
def test_each_wanted_content_is_yielded_once_where_it_is_first(
    contents: list[bytes | None], known: set[bytes], workers: int, ahead: int
) -> None:
    """Every file has its digest, or the reason why not; and is told of, in order, once."""
    told: list[tuple[str, int]] = []
    unwanted = {sha256(content) for content in known}

    def wanted(picture: Picture, digest: str) -> list[RowId]:
        return [] if digest in unwanted else every(picture, digest)

    with tempfile.TemporaryDirectory() as folder:
        pictures = write(Path(folder), contents)
        found = read(pictures, wanted, lambda p, _, n: told.append((p.path, n)), workers, ahead)
        with found:
            jobs = list(found)
    first: dict[bytes, int] = {}
    for number, content in enumerate(contents):
        if content is not None and content not in known:
            first.setdefault(content, number)
    assert [job.path for job, _ in jobs] == [f"{n:03d}.png" for n in first.values()]
    for (job, pixels), content in zip(jobs, first, strict=True):
        assert job.row == (sha256(content).encode(), 0)
        if content == b"xe":
            assert isinstance(pixels, UnreadableImageError)
        else:
            assert not isinstance(pixels, Exception)
            assert pixels.shape == (1, 2, 2, 3)
            assert (pixels == content[-1]).all()
    assert found.begun == {job.row for job, _ in jobs}
    assert told == [(p.path, int(n in first.values())) for n, p in enumerate(pictures)]
    for digest, content in zip(found.sha256, contents, strict=True):
        if content is None:
            assert isinstance(digest, LeftOut)
            assert "No such file" in digest.reason
        else:
            assert digest == sha256(content)


def test_every_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also copies, and what is known already."""
    files = list[Any]()

    def read_file(file: Any) -> bytes:
        files.append(file)
        return read_now(file)

    monkeypatch.setattr(reading, "read_file", read_file)
    pictures = write(tmp_path, [b"a", b"b", b"a", b"c", b"b"] * 5)
    with read(pictures, lambda p, d: every(p, d) if d != sha256(b"c") else []) as found:
        assert len(list(found)) == 2
    assert sorted(files) == [picture.file for picture in pictures]


def test_a_copy_gives_the_views_that_the_first_was_not_wanted_for(tmp_path: Path) -> None:
    """One picture on two splits: what both want is decoded for the first."""
    pictures = write(tmp_path, [b"a"] * 3)
    views = {"000.png": [0], "001.png": [0, 1, 2], "002.png": [0, 2]}

    def wanted(picture: Picture, digest: str) -> list[RowId]:
        return [(digest.encode(), view) for view in views[picture.path]]

    for workers in (1, 3):
        with read(pictures, wanted, workers=workers) as found:
            jobs = list(found)
        assert [(job.path, job.views) for job, _ in jobs] == [
            ("000.png", (0,)),
            ("001.png", (1, 2)),
        ]
        values = [pixels[:, 0, 0, 0].tolist() for _, pixels in jobs]  # type: ignore[index]
        assert values == [[97], [98, 99]]


def test_two_copies_in_hand_at_once_become_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the later one was begun first, both are decoded; of it only what the first lacks."""
    later = threading.Event()

    def read_file(file: Any) -> bytes:
        if file.name == "000.png":
            assert later.wait(60)
        return read_now(file)

    def wanted(picture: Picture, digest: str) -> list[RowId]:
        views = [0] if picture.path == "000.png" else [0, 1]
        return [(digest.encode(), view) for view in views]

    def decoding(data: bytes, digest: bytes, views: Sequence[int]) -> Any:
        later.set()
        return fake_decoding(data, digest, views)

    monkeypatch.setattr(reading, "read_file", read_file)
    found = Reading(
        write(tmp_path, [b"a", b"a"]),
        decoding,  # type: ignore[arg-type]
        wanted=wanted,
        passed=lambda *_: None,
        workers=2,
        ahead=2,
    )
    with found:
        jobs = list(found)
    assert [(job.path, job.views) for job, _ in jobs] == [("000.png", (0,)), ("001.png", (1,))]
    assert [pixels[:, 0, 0, 0].tolist() for _, pixels in jobs] == [[97], [98]]  # type: ignore[index]
    assert len(found.sha256) == 2


def test_asking_whether_there_is_any_loses_none(tmp_path: Path) -> None:
    """It reads up to the first that is wanted, which is yielded afterwards."""
    pictures = write(tmp_path, [b"a", b"a", b"b", b"c"])
    with read(pictures, lambda p, d: every(p, d) if d != sha256(b"a") else []) as found:
        assert found.has_any()
        assert len(found.sha256) == 3
        assert found.has_any()
        assert [job.path for job, _ in found] == ["002.png", "003.png"]
    with read(pictures, lambda *_: []) as found:
        assert not found.has_any()
        assert len(found.sha256) == 4
        assert list(found) == []


def test_what_is_told_may_stop_it(tmp_path: Path) -> None:
    """An error there ends it all, after what came before was yielded."""
    pictures = write(tmp_path, [b"a", b"b", None, b"c"])

    def passed(picture: Picture, digest: str | LeftOut, count: int) -> None:
        if count == 0:
            raise ValueError(picture.path)

    taken = list[str]()

    def take() -> None:
        with read(pictures, passed=passed) as found:
            taken.extend(job.path for job, _ in found)

    with pytest.raises(ValueError, match=r"002\.png"):
        take()
    assert taken == ["000.png", "001.png"]


def test_a_file_that_finds_no_memory_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that cannot be read: the next run tries it again."""

    def read_file(file: Any) -> bytes:
        if file.name == "001.png":
            raise MemoryError
        return read_now(file)

    monkeypatch.setattr(reading, "read_file", read_file)
    with read(write(tmp_path, [b"a", b"b", b"c"])) as found:
        assert [job.path for job, _ in found] == ["000.png", "002.png"]
    assert found.sha256[1] == LeftOut("001.png", "not enough memory to read it")
