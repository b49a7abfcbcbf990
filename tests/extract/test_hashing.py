"""Bytes: hashed in order, refused with a reason, never waited for."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
from listings import fill

from headstart.cache import LeftOut
from headstart.errors import UnreadableImageError
from headstart.extract import hashing as module
from headstart.extract.hashing import _pieces, hash_files, read_file


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    """Answers come in the files' order, whatever the number of threads."""
    files = [tmp_path / f"{i}.bin" for i in range(50)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * (i * 70_000))
    expected = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    done: list[int] = []
    assert hash_files(files, workers=1) == expected
    assert hash_files(files, workers=4, progress=done.append) == expected
    assert sum(done) == 50
    assert hash_files([], workers=2) == []


def test_an_unreadable_file_answers_its_reason(tmp_path: Path) -> None:
    """A file gone, a folder and a pipe stop nothing: each answers why, without waiting."""
    fill(tmp_path, "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    names = ["gone.png", "pipe.png", "1.png", ".", "1.png/x"]
    began = time.monotonic()
    answers = hash_files([tmp_path / name for name in names], workers=2)
    assert time.monotonic() - began < 5
    assert answers[2] == hashlib.sha256(b"1.png").hexdigest()
    found = {item.path: item.reason for item in answers if isinstance(item, LeftOut)}
    assert found == {
        f"{tmp_path}": "not a regular file",
        f"{tmp_path}/1.png/x": "cannot be read: Not a directory",
        f"{tmp_path}/gone.png": "cannot be read: No such file or directory",
        f"{tmp_path}/pipe.png": "not a regular file",
    }


def test_many_small_files_hash_quickly(tmp_path: Path) -> None:
    """Thousands of files a second, so that a second run has its answer in seconds."""
    file = tmp_path / "x"
    file.write_bytes(bytes(2000))
    began = time.monotonic()
    assert len(set(hash_files([file] * 25_000, workers=2))) == 1
    assert time.monotonic() - began < 20


def test_an_interrupt_leaves_at_once(tmp_path: Path) -> None:
    """Ctrl-C does not wait for the files that are still to come."""
    file = tmp_path / "x"
    file.write_bytes(bytes(2_000_000))

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        hash_files([file] * 5000, workers=2, progress=interrupt)
    assert time.monotonic() - began < 5


def test_reading_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no regular file, or is too long to be held, is refused with its reason."""
    fill(tmp_path, "1.png")
    assert read_file(tmp_path / "1.png") == b"1.png"
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        read_file(tmp_path)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 3)
    with pytest.raises(UnreadableImageError, match="over the limit"):
        read_file(tmp_path / "1.png")


@pytest.mark.parametrize("length", [0, 900, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("more", [0, 1, 10, 1 << 20])
def test_a_file_that_grew_is_read_to_its_end(length: int, more: int, tmp_path: Path) -> None:
    """Whatever its length was when it was opened."""
    data = np.random.default_rng(0).bytes(length + more)
    (tmp_path / "file").write_bytes(data)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert b"".join(_pieces(descriptor, length)) == data
    finally:
        os.close(descriptor)
