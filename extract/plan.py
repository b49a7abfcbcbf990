"""What an extraction would do: the dataset, compared with what a store holds already."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cache import Filling, LeftOut, Rows, Spec
from headstart.errors import DataError
from headstart.extract.dataset import (
    Conflicts,
    Dataset,
    Picture,
    conflicts,
    hash_files,
    list_dataset,
    split_by_content,
)
from headstart.extract.decode import DECODING, MAX_PIXELS, RESAMPLING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headstart.cache import RowId

    #: What a progress bar needs: the stage, how much is done, how much there is.
    Progress = Callable[[str, int, int], None]

DEFAULT_LAYER = "mixed7"
DEFAULT_WEIGHTS = "imagenet"
DEFAULT_SIZE = 150


@dataclass(frozen=True)
class Settings:
    """What the user asked for; None means the store's own value, else the default.

    The first group is part of the spec, the second decides which rows there are.
    """

    layers: tuple[str, ...] | None = None
    pool: str | None = None
    size: int | None = None
    weights: str | None = None
    engine: str | None = None
    precision: str | None = None
    dtype: str | None = None

    validation: float | None = None
    max_pixels: int | None = None

    def spec(self, store: Spec | None) -> Spec:
        """Return the spec asked for, but for its weights' digest.

        Engine and precision may be ``auto`` in a new store's: what they stand for is known
        when the base is loaded, and recorded then.

        Parameters
        ----------
        store
            The spec of what the store holds; None if it holds nothing yet.
        """
        base = store or Spec(
            weights="",
            size=DEFAULT_SIZE,
            layer=DEFAULT_LAYER,
            decoding=DECODING,
            resampling=RESAMPLING,
            engine="auto",
            precision="auto",
        )
        asked = {name: getattr(self, name) for name in ("size", "engine", "precision", "dtype")}
        given = {key: value for key, value in asked.items() if value not in (None, "auto")}
        return dataclasses.replace(base, **given)


@dataclass(frozen=True)
class Source:
    """A dataset whose files were read once, to know each picture by its bytes."""

    dataset: Dataset
    sha256: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    conflicts: Conflicts

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.dataset.pictures)


def read_source(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    labels: Sequence[str] | None = None,
    validation: float = 0.0,
    workers: int = 4,
    progress: Progress | None = None,
) -> Source:
    """List a dataset, hash its files and give it a split if it brings none.

    Raises
    ------
    DataError, DataNotFoundError
        If the dataset cannot be used as it is, or no file of it can be read.
    """
    if not 0 <= validation < 1:
        raise DataError(f"validation must be a share from 0 to below 1; found {validation}")
    dataset = list_dataset(data, labels=labels)
    total, done = len(dataset.pictures), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("reading", done, total)

    found = hash_files([p.file for p in dataset.pictures], workers=workers, progress=tell)
    readable: list[tuple[Picture, str]] = []
    left_out = list(dataset.left_out)
    for picture, digest in zip(dataset.pictures, found, strict=True):
        if isinstance(digest, str):
            readable.append((picture, digest))
        else:
            left_out.append(LeftOut(picture.path, digest.reason))
    sha256 = tuple(digest for _, digest in readable)
    dataset = dataclasses.replace(dataset, pictures=tuple(picture for picture, _ in readable))
    if validation:
        dataset = split_by_content(dataset, sha256, validation)
    return Source(dataset, sha256, tuple(left_out), conflicts(dataset, sha256))


@dataclass(frozen=True)
class Plan:
    """What a run would do with a source and a store."""

    source: Source
    #: Names of the layers the store shall have, each with its layer and pooling.
    cuts: dict[str, tuple[str, str]]
    #: For each of them, the rows to compute, each once, in the order of the dataset.
    missing: dict[str, list[RowId]]
    #: Files known not to decode: SHA-256 (hex) to the reason.
    unreadable: dict[str, str]

    @property
    def to_compute(self) -> list[RowId]:
        """Return the rows that at least one layer lacks, in the order of the dataset."""
        wanted = set().union(*map(set, self.missing.values()))
        return [row for row in dict.fromkeys(ids(self.source)) if row in wanted]

    def rows(self, unreadable: Mapping[str, str]) -> tuple[Rows, list[LeftOut]]:
        """Return the rows of all readable pictures, and the ledger."""
        dataset = self.source.dataset
        columns: dict[str, list[str]] = {name: [] for name in dataset.columns}
        rows = Rows(dataset.classes, [], [], [], [], [], columns)
        left_out = list(self.source.left_out)
        for picture, digest in zip(dataset.pictures, self.source.sha256, strict=True):
            if digest in unreadable:
                left_out.append(LeftOut(picture.path, unreadable[digest]))
                continue
            rows.path.append(picture.path)
            rows.split.append(picture.split)
            rows.label.append(picture.label)
            rows.image_sha256.append(digest.encode())
            rows.view.append(0)
            for name, value in zip(dataset.columns, picture.columns, strict=True):
                columns[name].append(value)
        return rows, left_out


def ids(source: Source) -> list[RowId]:
    """Return the identity of each picture's row (view 0)."""
    return [(digest.encode(), 0) for digest in source.sha256]


def make_plan(source: Source, filling: Filling, settings: Settings) -> Plan:
    """Compare a source with what a store holds; nothing is computed."""
    cuts = wanted_cuts(filling, settings)
    unreadable = known_unreadable(filling, settings)
    rows = [row for row in ids(source) if row[0].decode() not in unreadable]
    missing = {name: filling.missing(name, rows) for name in cuts}
    return Plan(source, cuts, missing, unreadable)


def wanted_cuts(filling: Filling, settings: Settings) -> dict[str, tuple[str, str]]:
    """Return the layers the store shall have: those it has, and those asked for."""
    have = filling.before.layers if filling.before is not None else {}
    cuts = {name: (index.spec.layer, index.spec.pool) for name, index in have.items()}
    if settings.layers is None and settings.pool is None and cuts:
        return cuts
    unpublished = filling.spec
    layers = settings.layers or tuple(dict.fromkeys(layer for layer, _ in cuts.values()))
    if not layers:
        layers = (unpublished.layer if unpublished else DEFAULT_LAYER,)
    pool = settings.pool or (unpublished.pool if unpublished and not settings.layers else "none")
    for layer in layers:
        spec = Spec(weights="", layer=layer, pool=pool)
        cuts[spec.name] = (layer, pool)
    return cuts


def known_unreadable(filling: Filling, settings: Settings) -> dict[str, str]:
    """Return the files that an earlier run under the same limits could not decode."""
    before = filling.before
    if before is None or max_pixels(filling, settings) != before.settings.get("max_pixels"):
        return {}
    return dict(before.unreadable)


def max_pixels(filling: Filling, settings: Settings) -> int:
    """Return the largest picture, in pixels, that is decoded."""
    return int(_first(settings.max_pixels, filling.settings.get("max_pixels"), MAX_PIXELS))


def validation(filling: Filling, settings: Settings) -> float:
    """Return the share of pictures that goes to validation where the dataset has no split."""
    return float(_first(settings.validation, filling.settings.get("validation"), 0.0))


def weights_name(filling: Filling, settings: Settings) -> str:
    """Return which weights to load."""
    return str(_first(settings.weights, filling.settings.get("weights"), DEFAULT_WEIGHTS))


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def data_name(data: object) -> str:
    """Return how a store remembers where its pictures came from."""
    if isinstance(data, str | os.PathLike):
        return str(Path(data).absolute())
    return ""
