"""Verification finds whatever is not as it was published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.cache import Filling, LeftOut, Store, pack, verify
from headstart.errors import CorruptStoreError, StoreError, StoreNotFoundError
from stores import SPEC, make_store, picture_id, values

NAMES = list("abcdefg")


def test_sound_store(tmp_path: Path) -> None:
    """All rows and shards are counted, and nothing is reported; likewise when packed."""
    store = make_store(tmp_path / "store", NAMES)
    found = verify(tmp_path / "store")
    assert (found.sound, found.rows, found.shards, found.unlisted) == (True, 7, 2, ())
    packed = verify(pack(store, tmp_path / "one.h5"))
    assert (packed.sound, packed.rows) == (True, 7)


@pytest.mark.parametrize("how", ["flip", "cut", "gone", "empty"])
@pytest.mark.parametrize("what", ["features.h5", "ledger.jsonl", "shards"])
def test_damage_is_found_and_named(tmp_path: Path, what: str, how: str) -> None:
    """Whatever happens to whatever file, that file is named, and no other."""
    make_store(tmp_path / "store", NAMES, left_out=[LeftOut("x", "y")])
    path = tmp_path / "store" / what
    if what == "shards":
        path = min(path.iterdir())
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        damaged = {"cut": data[:-1], "empty": b"", "flip": data[:9] + b"\xff" + data[10:]}[how]
        path.write_bytes(damaged)
    if (what, how) == ("features.h5", "gone"):
        with pytest.raises(StoreNotFoundError, match="not finished"):
            verify(tmp_path / "store")
        return
    found = verify(tmp_path / "store")
    assert not found.sound
    assert {problem.file.split("/")[-1] for problem in found.problems} == {path.name}
    assert found.to_dict()["sound"] is False


def test_damaged_packed_file(tmp_path: Path) -> None:
    """One bit in one file."""
    path = pack(make_store(tmp_path / "store", NAMES), tmp_path / "one.h5")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert [problem.file for problem in verify(path).problems] == ["one.h5"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 500])
def test_what_is_no_store_is_said(tmp_path: Path, content: bytes) -> None:
    """A file of another kind is not called damaged."""
    path = tmp_path / "thesis.tex"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"thesis\.tex is not a store"):
        verify(path)


def test_a_packed_file_with_a_damaged_first_byte_is_damaged(tmp_path: Path) -> None:
    """Its seal tells that it is ours."""
    path = pack(make_store(tmp_path / "store", NAMES), tmp_path / "one.h5")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert [problem.file for problem in verify(path).problems] == ["one.h5"]
    with pytest.raises(CorruptStoreError, match=r"one\.h5 is damaged.*pack the store again"):
        Store.open(path)


def test_sound_shards_of_a_stopped_run_are_no_damage(tmp_path: Path) -> None:
    """They are told apart, so that nobody deletes what the next run can use."""
    make_store(tmp_path / "store", NAMES)
    filling = Filling(tmp_path / "store")
    row = (picture_id("new"), 0)
    filling.add(SPEC, [row], values(row)[None], {})
    found = verify(tmp_path / "store")
    assert found.sound
    assert len(found.unlisted) == 1


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    """The bytes reported add up to all bytes."""
    make_store(tmp_path / "store", NAMES)
    told: list[tuple[str, int, int]] = []
    verify(tmp_path / "store", lambda *step: told.append(step))
    assert [step[0] for step in told] == ["verifying"] * 2
    assert told[-1][1] == told[-1][2] > 0
    assert np.all(np.diff([step[1] for step in told]) > 0)
