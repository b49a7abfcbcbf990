"""Digests of weights files are kept only where a later change would show."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from headstart.extract import _files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file be written long ago."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 3600 * 10**9)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the digests that were made by reading a file."""
    made: list[str] = []
    digest = hashlib.file_digest

    def counted(file: Any, kind: str) -> Any:
        made.append(kind)
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return made


def test_a_file_that_is_as_it_was_is_not_read_again(tmp_path: Path, reads: list[str]) -> None:
    """Each kind of digest is known by itself; other bytes are another digest."""
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    for _ in range(2):
        assert _files.digest_of(path, "sha256") == hashlib.sha256(b"one").hexdigest()
    assert _files.digest_of(path, "md5") == hashlib.md5(b"one").hexdigest()
    assert reads == ["sha256", "md5"]
    path.write_bytes(b"other")
    assert _files.digest_of(path, "sha256") == hashlib.sha256(b"other").hexdigest()


def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest may be of neither its old nor its new bytes."""
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    digest = hashlib.file_digest

    def changing(file: Any, kind: str) -> Any:
        found = digest(file, kind)
        path.write_bytes(b"two, longer")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", changing)
        _files.digest_of(path, "sha256")
    assert not [known for known in _files._known if known[0] == path]
    assert _files.digest_of(path, "sha256") == hashlib.sha256(b"two, longer").hexdigest()


def test_a_file_that_was_written_a_moment_ago_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further change might not show in its times."""
    monkeypatch.undo()
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    assert _files.digest_of(path, "sha256") == _files.digest_of(path, "sha256")
    assert not [known for known in _files._known if known[0] == path]
