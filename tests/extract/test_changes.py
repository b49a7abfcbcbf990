"""What has become of rows: each path is told once, under what happened to it."""

from __future__ import annotations

from pathlib import Path

from headstart.cache import Filling
from headstart.extract.changes import changes
from stores import fill, rows_of


def test_every_kind_of_change(tmp_path: Path) -> None:
    """Class and split are compared by name, pictures by their bytes."""
    before = rows_of(["stays", "edited", "moves", "goes", "label", "split"])
    fill(tmp_path / "store", before)
    after = rows_of(["stays", "other bytes", "moves", "label", "split", "new"])
    after.path[:] = ["stays", "edited", "moved", "label", "split", "new"]
    after.label[3] = 1
    after.split[4] = "test"
    found = changes(Filling(tmp_path / "store"), after)
    assert found.counts() == {
        "new": 1,
        "changed": 1,
        "moved": 1,
        "removed": 2,
        "relabelled": 1,
        "resplit": 1,
        "before": 6,
        "in_common": 4,
    }
    assert (found.new, found.changed, found.moved) == (("new",), ("edited",), ("moved",))
    assert found.removed == ("moves", "goes")
    assert (found.relabelled, found.resplit) == (("label",), ("split",))


def test_nothing_was_before(tmp_path: Path) -> None:
    """For a new store every row is new."""
    found = changes(Filling(tmp_path / "store"), rows_of(["a", "b"]))
    assert (found.new, found.before, found.in_common) == (("a", "b"), 0, 0)
