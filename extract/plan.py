"""What an extraction would do: the dataset, compared with what a store holds already."""

from __future__ import annotations

import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cache import Filling, LeftOut, Rows, Spec
from headstart.cache.urls import is_url
from headstart.errors import DataError
from headstart.extract.augment import MOST_VIEWS, Augmentation
from headstart.extract.dataset import Dataset, Picture, list_dataset
from headstart.extract.decode import DECODER, DECODING, MAX_PIXELS, RESAMPLING, RULES
from headstart.extract.hashing import hash_files
from headstart.extract.identical import Conflicts, conflicts, split_by_content
from headstart.extract.pipeline import Job
from headstart.extract.tfds import is_tfds
from headstart.extract.weights import is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from headstart.cache import Progress, RowId
    from headstart.extract.places import Place

DEFAULT_WEIGHTS = "imagenet"


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
    decoding: str | None = None

    augment: str | None = None

    views: int | None = None
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
            decoding=DECODING,
            resampling=RESAMPLING,
            engine="auto",
            precision="auto",
        )
        asked = {name: getattr(self, name) for name in ("size", "engine", "precision", "dtype")}
        given = {key: value for key, value in asked.items() if value not in (None, "auto")}
        if self.decoding is not None:
            given["decoding"] = RULES[self.decoding]
        return dataclasses.replace(base, **given)


@dataclass(frozen=True)
class Source:
    """A dataset whose files were read once, to know each picture by its bytes."""

    dataset: Dataset
    sha256: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    #: Augmented views of each picture that is not for validation or test.
    views: int = 0
    #: The share for validation that was asked for, where the dataset has splits of its own.
    ignored_validation: float = 0.0

    @functools.cached_property
    def conflicts(self) -> Conflicts:
        """Identical pictures, and those of them that contradict each other."""
        return conflicts(self.dataset, self.sha256)

    def usable(self, unreadable: Mapping[str, str], vanished: Mapping[str, str]) -> Source:
        """Return the pictures that are left when others turn out to be of no use.

        Parameters
        ----------
        unreadable
            SHA-256 (hex) of files that do not decode, and why.
        vanished
            Paths that were gone or changed when they were decoded, and which of the two.
        """
        kept: list[tuple[Picture, str]] = []
        left_out = list(self.left_out)
        for picture, digest in zip(self.dataset.pictures, self.sha256, strict=True):
            reason = unreadable.get(digest) or vanished.get(picture.path)
            if reason is None:
                kept.append((picture, digest))
            else:
                left_out.append(LeftOut(picture.path, reason))
        return dataclasses.replace(
            _source(self.dataset, kept, left_out),
            views=self.views,
            ignored_validation=self.ignored_validation,
        )

    def each(self) -> Iterator[tuple[Picture, RowId]]:
        """Yield every row: the pictures in order, each before its views."""
        for picture, digest in zip(self.dataset.pictures, self.sha256, strict=True):
            for row in rows_of(digest, picture.split, self.views):
                yield picture, row

    def rows(self) -> Rows:
        """Return the rows of every picture."""
        every = list(self.each())
        return Rows(
            classes=self.dataset.classes,
            path=[picture.path for picture, _ in every],
            split=[picture.split for picture, _ in every],
            label=[picture.label for picture, _ in every],
            image_sha256=[row[0] for _, row in every],
            view=[row[1] for _, row in every],
            columns={
                name: [picture.columns[place] for picture, _ in every]
                for place, name in enumerate(self.dataset.columns)
            },
        )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.dataset.pictures)


def read_source(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    labels: Sequence[str] | None = None,
    validation: float = 0.0,
    views: int = 0,
    workers: int = 4,
    progress: Progress | None = None,
    listed: Callable[[], None] | None = None,
) -> Source:
    """List a dataset, hash its files and give it a split if it brings none.

    What `listed` does, it does when the dataset is listed, before the first file is read.

    Raises
    ------
    DataError, DataNotFoundError
        If the dataset cannot be used as it is, or no file of it can be read.
    """
    require_share(validation)
    dataset = list_dataset(data, labels=labels)
    if listed is not None:
        listed()
    total, done = len(dataset.pictures), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("reading", done, total)

    found = hash_files([p.file for p in dataset.pictures], workers=workers, progress=tell)
    return make_source(dataset, found, validation=validation, views=views)


def require_share(validation: float) -> None:
    """Refuse what is no share for validation.

    Raises
    ------
    DataError
        If it is below 0, or not below 1.
    """
    if not 0 <= validation < 1:
        raise DataError(f"validation must be a share from 0 to below 1; found {validation}")


def make_source(
    dataset: Dataset, sha256: Sequence[str | LeftOut], *, validation: float = 0.0, views: int = 0
) -> Source:
    """Return what there is of a dataset, with a split if it brings none.

    Parameters
    ----------
    sha256
        Of each of its pictures in hex, or why it cannot be read.
    """
    readable: list[tuple[Picture, str]] = []
    left_out = list(dataset.left_out)
    for picture, digest in zip(dataset.pictures, sha256, strict=True):
        if isinstance(digest, str):
            readable.append((picture, digest))
        else:
            left_out.append(LeftOut(picture.path, digest.reason))
    source = _source(dataset, readable, left_out)
    split = split_by_content(source.dataset, source.sha256, validation)
    ignored = validation if has_splits(dataset) else 0.0
    return dataclasses.replace(source, dataset=split, views=views, ignored_validation=ignored)


def has_splits(dataset: Dataset) -> bool:
    """Tell whether a dataset brings a split."""
    return any(picture.split for picture in dataset.pictures)


def rows_of(sha256: str, split: str, views: int) -> list[RowId]:
    """Return the rows of a picture on a split: itself, and its views if it may be trained on."""
    more = views if split in ("", "train") else 0
    return [(sha256.encode(), view) for view in range(1 + more)]


def _source(
    dataset: Dataset, pictures: Sequence[tuple[Picture, str]], left_out: Sequence[LeftOut]
) -> Source:
    """Return a dataset cut down to these pictures, each with its SHA-256."""
    kept = dataclasses.replace(dataset, pictures=tuple(picture for picture, _ in pictures))
    return Source(kept, tuple(digest for _, digest in pictures), tuple(left_out))


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
        wanted: dict[bytes, list[int]] = {}
        for digest, view in sorted(set().union(*map(set, self.missing.values()))):
            wanted.setdefault(digest, []).append(view)
        digests = dict.fromkeys(digest.encode() for digest in self.source.sha256)
        return [(digest, view) for digest in digests for view in wanted.get(digest, ())]


def ids(source: Source) -> list[RowId]:
    """Return the identity of each row."""
    return [row for _, row in source.each()]


def jobs(source: Source) -> list[Job]:
    """Return a job for each different picture, without views, in the order of the dataset."""
    places: dict[str, list[tuple[Place, str]]] = {}
    for digest, picture in zip(source.sha256, source.dataset.pictures, strict=True):
        places.setdefault(digest, []).append((picture.file, picture.path))
    return [
        Job((digest.encode(), 0), *first, tuple(copies))
        for digest, (first, *copies) in places.items()
    ]


def make_plan(source: Source, filling: Filling, settings: Settings) -> Plan:
    """Compare a source with what a store holds; nothing is computed."""
    cuts = wanted_cuts(filling, settings)
    unreadable = known_unreadable(filling, settings)
    rows = [row for row in ids(source) if row[0].decode() not in unreadable]
    missing = {name: filling.missing(name, rows) for name in cuts}
    return Plan(source, cuts, missing, unreadable)


def wanted_cuts(filling: Filling, settings: Settings) -> dict[str, tuple[str, str]]:
    """Return the layers the store shall have: those it has, and those asked for.

    Where nothing is asked for and nothing is published yet, they are those that were begun.
    """
    have = filling.before.layers if filling.before is not None else {}
    cuts = {name: (index.spec.layer, index.spec.pool) for name, index in have.items()}
    if settings.layers is None and settings.pool is None:
        begun = {spec.name: (spec.layer, spec.pool) for spec in filling.specs}
        if cuts or begun:
            return cuts or begun
    spec = filling.spec or Spec(weights="")
    layers = settings.layers or tuple(dict.fromkeys(layer for layer, _ in cuts.values()))
    pool = settings.pool or spec.pool
    for layer in layers or (spec.layer,):
        cut = Spec(weights="", layer=layer, pool=pool)
        cuts[cut.name] = (layer, pool)
    return cuts


def known_unreadable(filling: Filling, settings: Settings) -> dict[str, str]:
    """Return the files that an earlier run, with this Pillow and this limit, could not decode."""
    before = filling.before
    if before is None or before.settings.get("decoder") != DECODER:
        return {}
    if max_pixels(filling, settings) != before.settings.get("max_pixels"):
        return {}
    return dict(before.unreadable)


def max_pixels(filling: Filling, settings: Settings) -> int:
    """Return the largest picture, in pixels, that is decoded."""
    return int(_first(settings.max_pixels, filling.settings.get("max_pixels"), MAX_PIXELS))


def validation(filling: Filling, settings: Settings) -> float:
    """Return the share of pictures that goes to validation where the dataset has no split."""
    return float(_first(settings.validation, filling.settings.get("validation"), 0.0))


def views(filling: Filling, settings: Settings) -> int:
    """Return how many augmented views of a training picture there shall be.

    Raises
    ------
    DataError
        If it is below 0 or above 255.
    """
    count = int(_first(settings.views, filling.settings.get("views"), 0))
    if not 0 <= count <= MOST_VIEWS:
        raise DataError(f"--views {count}: expected 0 to {MOST_VIEWS}")
    if settings.augment is not None and not count:
        raise DataError(f"--augment {settings.augment}: there are no views; give --views too")
    return count


def augmentation(filling: Filling, settings: Settings) -> str:
    """Return of what augmentation views shall be; ``""`` where there shall be none.

    Raises
    ------
    DataError
        If it is no augmentation.
    """
    if not views(filling, settings):
        return ""
    if settings.augment is not None:
        return Augmentation.parse(settings.augment).to_json()
    known = filling.augmentation or filling.settings.get("augmentation") or ""
    return str(known) or Augmentation().to_json()


def weights_name(filling: Filling, settings: Settings) -> str:
    """Return which weights to load; a file is named so that it is found from anywhere."""
    name = str(_first(settings.weights, filling.settings.get("weights"), DEFAULT_WEIGHTS))
    return name if is_name(name) else str(Path(name).absolute())


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _found_again(data: object) -> str:
    """Return where a dataset was, to be found from anywhere; "" for a list of paths."""
    if is_url(data) or is_tfds(data):
        return str(data)
    return str(Path(data).absolute()) if isinstance(data, str | os.PathLike) else ""


def remembered(filling: Filling, settings: Settings, data: object) -> dict[str, Any]:
    """Return what a store remembers of a run: where its pictures were, weights and limits."""
    found = {
        "data": _found_again(data),
        "validation": validation(filling, settings),
        "weights": weights_name(filling, settings),
        "weights_sha256": filling.settings.get("weights_sha256", ""),
        "max_pixels": max_pixels(filling, settings),
        "decoder": DECODER,
    }
    count = views(filling, settings)
    made = {"views": count, "augmentation": augmentation(filling, settings)}
    return found | (made if count else {})
