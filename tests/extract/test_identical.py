"""Identical pictures: splits that never move, and what contradicts itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.extract.dataset import Dataset, Picture
from headstart.extract.identical import conflicts, split_by_content


def pictures(digests: Iterable[str], split: str = "") -> Dataset:
    listed = tuple(
        Picture(f"{i:05d}.png", Path(f"{i}"), i % 2, split) for i, _ in enumerate(digests)
    )
    return Dataset(None, listed, ("a", "b"), (), 0)


def digest(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=40),
    st.lists(st.integers(0, 60), max_size=40),
    st.floats(0.05, 0.95),
)
def test_a_split_never_moves(old: list[int], new: list[int], share: float) -> None:
    """A picture keeps its side whatever is added, and identical pictures are on the same side."""
    before = [digest(i) for i in old]
    after = [digest(i) for i in new] + before
    sides: dict[str, set[str]] = {}
    for digests in (before, after):
        found = split_by_content(pictures(digests), digests, share)
        for picture, sha in zip(found.pictures, digests, strict=True):
            sides.setdefault(sha, set()).add(picture.split)
    assert all(len(side) == 1 for side in sides.values())
    assert set().union(*sides.values()) <= {"train", "validation"}


def test_a_split_takes_its_share_of_every_class() -> None:
    """The share is met within sampling error, in each class."""
    digests = [digest(i) for i in range(20_000)]
    found = split_by_content(pictures(digests), digests, 0.2)
    for label in (0, 1):
        members = [picture for picture in found.pictures if picture.label == label]
        share = sum(picture.split == "validation" for picture in members) / len(members)
        assert share == pytest.approx(0.2, abs=0.015)


def test_a_wider_split_contains_the_narrower() -> None:
    """Asking for more validation pictures moves none of them back to training."""
    digests = [digest(i) for i in range(500)]
    narrow, wide = (split_by_content(pictures(digests), digests, share) for share in (0.1, 0.3))
    for a, b in zip(narrow.pictures, wide.pictures, strict=True):
        assert (a.split, b.split) != ("validation", "train")


def test_a_given_split_is_kept() -> None:
    """Where the dataset brings a split, it stays; 0 makes none; nonsense is refused."""
    given_split = pictures([digest(1)] * 3, "train")
    assert split_by_content(given_split, [digest(1)] * 3, 0.5) is given_split
    bare = pictures([digest(1)])
    assert split_by_content(bare, [digest(1)], 0) is bare
    for share in (-0.1, 1, float("nan")):
        with pytest.raises(DataError, match="expected 0 to below 1"):
            split_by_content(bare, [digest(1)], share)


def test_conflicts() -> None:
    """Identical pictures are grouped; an unknown label contradicts no other."""
    rows = [
        ("1", 0, "train"),
        ("2", 0, "validation"),
        ("3", 1, "train"),
        ("4", -1, "train"),
        ("5", 1, "train"),
        ("6", 1, "train"),
    ]
    listed = tuple(Picture(name, Path(name), label, split) for name, label, split in rows)
    dataset = Dataset(None, listed, ("a", "b"), (), 0)
    found = conflicts(dataset, [digest(x) for x in ("x", "x", "y", "y", "z", "x")])
    assert found.duplicates == (("1", "2", "6"), ("3", "4"))
    assert found.across_splits == (("1", "2", "6"),)
    assert found.across_labels == (("1", "2", "6"),)
    with pytest.raises(ValueError, match="shorter"):
        conflicts(dataset, [digest("x")])
