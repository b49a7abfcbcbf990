"""Publication: whole or not at all; seals: kept or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.cache import _files
from headstart.errors import CorruptStoreError, StoreVersionError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_publish_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    """The new content is there, and nothing else is."""
    target = tmp_path / "a"
    _files.publish_bytes(target, b"old")
    _files.publish_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file_and_no_temporary(tmp_path: Path, error: BaseException) -> None:
    """Whatever goes wrong half-way, the published file is as it was."""
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def half_way() -> None:
        with _files.publishing(target) as temporary:
            temporary.write_bytes(b"ne")
            raise error

    with pytest.raises(type(error)):
        half_way()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@settings(max_examples=50)
@given(body=st.binary(max_size=400), data=st.data())
def test_any_changed_byte_breaks_the_seal(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, data: st.DataObject
) -> None:
    """A sealed file is accepted; with one bit flipped anywhere it is refused."""
    path = tmp_path_factory.mktemp("seal") / "f"
    sealed = _files.sealed(body)
    path.write_bytes(sealed)
    digest = _files.check_seal(path)
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    flipped = bytearray(sealed)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    with pytest.raises(CorruptStoreError):
        _files.check_seal(path)
    assert len(digest) == 64


def test_truncated_and_extended_files_are_refused(tmp_path: Path) -> None:
    """A file cut anywhere, or with something behind its seal, is not the one published."""
    path, sealed = tmp_path / "f", _files.sealed(b"x" * 300)
    for wrong in (*(sealed[:size] for size in range(len(sealed))), sealed + b" "):
        path.write_bytes(wrong)
        with pytest.raises(CorruptStoreError, match="damaged"):
            _files.check_seal(path)


def test_newer_format_says_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seal of a newer format is told apart from damage."""
    path = tmp_path / "f"
    with monkeypatch.context() as newer:
        newer.setattr(_files, "FORMAT_VERSION", 2)
        path.write_bytes(_files.sealed(b"body"))
    with pytest.raises(StoreVersionError, match=r"format 2.*upgrade"):
        _files.check_seal(path)


def test_only_temporaries_of_dead_processes_are_removed(tmp_path: Path) -> None:
    """What a live process is writing stays; so does everything that is not ours."""
    mine = _files.temporary_name(tmp_path / "a")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{child}-"))
    other_host = dead.with_name(dead.name.replace(dead.name[5:13], "0" * 8))
    for path in (mine, dead, other_host, tmp_path / ".tmp-notes", tmp_path / "a"):
        path.write_bytes(b"")
    _files.remove_stale_temporaries(tmp_path)
    assert set(names(tmp_path)) == {mine.name, other_host.name, ".tmp-notes", "a"}
