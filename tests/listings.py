"""Folders made to be listed, and what a listing says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.extract.dataset import Dataset


def fill(root: Path, *names: str) -> Path:
    """Make files whose content is their own name."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode("utf-8", "surrogateescape"))
    return root


def paths(dataset: Dataset) -> list[str]:
    return [picture.path for picture in dataset.pictures]


def reasons(dataset: Dataset) -> dict[str, str]:
    return {item.path: item.reason for item in dataset.left_out}


def named(dataset: Dataset) -> dict[str, tuple[str, str]]:
    """Each picture's class name and split."""
    names = (*dataset.classes, "?")
    return {picture.path: (names[picture.label], picture.split) for picture in dataset.pictures}
