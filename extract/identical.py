"""Identical pictures: a split that follows the bytes, and copies that contradict each other."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headstart.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headstart.extract.picture import Dataset, Picture

_SPLIT_SALT = b"headstart split 1:"


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Groups of identical pictures, as paths: all; on several splits; under several labels."""

    duplicates: tuple[tuple[str, ...], ...]
    across_splits: tuple[tuple[str, ...], ...]
    across_labels: tuple[tuple[str, ...], ...]


def split_by_content(dataset: Dataset, sha256: Sequence[str], validation: float) -> Dataset:
    """Give a dataset without splits one, decided by each picture's bytes alone.

    A picture keeps its side when others come or go, and identical pictures share one. Being a
    threshold on a hash, it takes about the wanted share of every class.

    Parameters
    ----------
    dataset
        Returned as it is where it brings a split.
    sha256
        Of each picture's bytes, as hexadecimal text.
    validation
        The share of the validation pictures, at least 0 and below 1; 0 makes no split.
    """
    if not 0 <= validation < 1:
        raise DataError(f"the share for validation is {validation}; expected 0 to below 1")
    if validation == 0 or any(picture.split for picture in dataset.pictures):
        return dataset
    pictures = tuple(
        replace(picture, split=side(digest, validation))
        for picture, digest in zip(dataset.pictures, sha256, strict=True)
    )
    return replace(dataset, pictures=pictures)


def side(sha256: str, validation: float) -> str:
    """Return the split of a picture with this SHA-256 (hex), where a share is for validation."""
    return "validation" if _position(sha256) < validation else "train"


def _position(sha256: str) -> float:
    """Return a picture's place in [0, 1); salted, for others may split by the bare digest."""
    mixed = hashlib.sha256(_SPLIT_SALT + sha256.encode("ascii")).digest()
    return int.from_bytes(mixed[:6], "big") / 2**48


def conflicts(dataset: Dataset, sha256: Sequence[str]) -> Conflicts:
    """Find identical pictures, and those of them on several splits or under several labels.

    `sha256` belongs to the dataset's pictures, one for each; unknown labels contradict nothing.
    """
    same: dict[str, list[Picture]] = defaultdict(list)
    for picture, digest in zip(dataset.pictures, sha256, strict=True):
        same[digest].append(picture)
    groups = [group for group in same.values() if len(group) > 1]
    return Conflicts(
        duplicates=_paths(groups),
        across_splits=_paths(g for g in groups if len({p.split for p in g}) > 1),
        across_labels=_paths(g for g in groups if len({p.label for p in g} - {-1}) > 1),
    )


def _paths(groups: Iterable[Sequence[Picture]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(picture.path for picture in group) for group in groups)
