"""Status: what is there, counted right."""

from __future__ import annotations

import json
from pathlib import Path

from headstart.cache import LeftOut, Store, pack
from headstart.status import status
from stores import fill, make_store, rows_of


def test_counts(tmp_path: Path) -> None:
    """Rows, classes, splits, duplicates and bytes are those of the store."""
    rows = rows_of(["a", "b", "c", "a"])
    rows.path[:] = ["1", "2", "3", "4"]
    rows.label[:] = [0, 1, 1, -1]
    rows.split[:] = ["train", "train", "validation", ""]
    fill(tmp_path / "store", rows, left_out=[LeftOut("x", "why")], seconds=2.5)
    found = status(tmp_path / "store")
    assert (found.rows, found.duplicates, found.extract_seconds) == (4, 1, 2.5)
    assert found.classes == {"a": 1, "b": 2, "(unknown)": 1}
    assert found.splits == {"train": 2, "validation": 1, "": 1}
    assert found.left_out == (LeftOut("x", "why"),)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert found.bytes == sum(path.stat().st_size for path in files)
    assert found.unused_bytes == 0
    assert json.loads(json.dumps(found.to_dict()))["layers"]["mixed7"]["shape"] == [3, 3, 4]


def test_shards_no_row_needs_are_told(tmp_path: Path) -> None:
    """The space of removed pictures is seen."""
    fill(tmp_path / "store", rows_of(list("abcdefgh")), shard=4)
    fill(tmp_path / "store", rows_of(list("abcd")), shard=4)
    found = status(tmp_path / "store")
    last = Store.open(tmp_path / "store").catalog.layers["mixed7"].shards[-1]
    assert found.unused_bytes == last.bytes


def test_packed_file(tmp_path: Path) -> None:
    """A packed store answers like the folder."""
    path = pack(make_store(tmp_path / "store", ["a", "b"]), tmp_path / "one.h5")
    found = status(path)
    assert (found.rows, found.bytes) == (2, path.stat().st_size)
