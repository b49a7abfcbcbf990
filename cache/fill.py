"""A store, for writing: what is known already, shards as they come, and the publication."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headstart.cache import _files, catalog
from headstart.cache.catalog import Catalog, LayerIndex, LeftOut
from headstart.cache.mirror import require_folder
from headstart.cache.shard import NAME, ShardHead, ShardInfo, read_head, write_shard
from headstart.cache.spec import PER_LAYER
from headstart.errors import (
    CorruptStoreError,
    SpecMismatchError,
    StoreError,
    StoreVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from headstart.cache.spec import Spec

_PATIENCE = 10.0  # seconds in which whoever is about to publish has done so

#: Identity of a row under a spec: SHA-256 (hex) of the picture's file, and its view.
RowId = tuple[bytes, int]


@dataclass
class _Known:
    """Shards of one layer and one augmentation, and where each row is (first copy wins)."""

    spec: Spec
    heads: list[ShardHead] = field(default_factory=list)
    position: dict[RowId, int] = field(default_factory=dict)
    rows: int = 0

    def add(self, head: ShardHead) -> None:
        ids = zip(head.image_sha256.tolist(), head.view.tolist(), strict=True)
        for offset, row in enumerate(ids):
            self.position.setdefault(row, self.rows + offset)
        self.heads.append(head)
        self.rows += head.info.rows


@dataclass(frozen=True)
class Rows:
    """The rows a store shall have, in order: one entry a row in each list."""

    classes: tuple[str, ...]
    path: list[str]
    split: list[str]
    label: list[int]
    image_sha256: list[bytes]
    view: list[int]
    #: Further columns of a manifest, as text.
    columns: dict[str, list[str]] = field(default_factory=dict)

    def ids(self) -> list[RowId]:
        """Return the identity of each row."""
        return list(zip(self.image_sha256, self.view, strict=True))


class Filling:
    """One run that fills a store.

    Opening it changes nothing on disk but to remove what dead runs left behind; the folder is
    made when there is something to put into it. Shards that an earlier run wrote and could not
    publish are found again.

    Parameters
    ----------
    folder
        The store.
    repair
        Read every shard, and take those that are damaged or missing for rows to compute again.

    Raises
    ------
    StoreError
        If `folder` is a file, or a folder with something else in it.
    CorruptStoreError
        If the catalog is damaged, or a shard is missing, of another size or without its seal,
        unless `repair`.
    """

    def __init__(self, folder: Path, *, repair: bool = False) -> None:
        require_folder(folder)
        self.folder = folder
        self.shards = folder / catalog.SHARDS
        self.damaged: list[Path] = []
        #: Seconds that unpublished shards of earlier runs took.
        self.earlier_seconds = 0.0
        #: Of the views that are meant: of those published, or asked for by `require`.
        self.augmentation = ""
        #: By layer and augmentation; the pictures themselves have none.
        self._known: dict[tuple[str, str], _Known] = {}
        self._clock = time.perf_counter()
        self._repair = repair
        self._published = _files.seal_at(folder / catalog.FILE)
        self.before = _read_catalog(folder, damaged_is_none=repair)
        tidy(folder)
        if self.before is not None:
            if not repair:
                catalog.check_shards_present(folder, self.before)
                catalog.check_seals(folder, self.before)
            for index in self.before.layers.values():
                self._remember(index)
        self._adopt()

    def make_folder(self) -> None:
        """Make the folder for shards, if it is not there.

        Raises
        ------
        StoreError
            If it cannot be made.
        """
        if self.shards.is_dir():
            return
        try:
            self.shards.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.folder} cannot be made: {error.strerror}; choose another place with -o"
            ) from error

    def _of(self, spec: Spec, view: NDArray[np.uint8]) -> _Known:
        """Return where rows with such views under such a spec belong."""
        spec = spec.of(view)
        return self._known.setdefault((spec.name, spec.augmentation), _Known(spec))

    def _remember(self, index: LayerIndex) -> None:
        self.augmentation = self.augmentation or index.spec.augmentation
        self._of(index.spec, np.zeros(1, np.uint8))
        have = {head.info for known in self._known.values() for head in known.heads}
        for info, first, last in zip(index.shards, index.starts, index.starts[1:], strict=False):
            if info in have:
                continue
            if self._repair and not self._sound(info):
                self.damaged.append(self.shards / info.file)
                continue
            ids, view = index.image_sha256[first:last], index.view[first:last]
            known = self._of(index.spec, view)
            known.add(ShardHead(info, known.spec, ids, view, index.shape, {}))

    def _sound(self, info: ShardInfo) -> bool:
        try:
            return _files.check_seal(self.shards / info.file) == info.sha256
        except (FileNotFoundError, CorruptStoreError):
            return False

    def _adopt(self) -> None:
        """Find the shards of runs that ended before they published."""
        listed = {head.info.file for known in self._known.values() for head in known.heads}
        for path in sorted(self.shards.glob("*.h5")):
            if path.name in listed or path in self.damaged or not NAME.fullmatch(path.name):
                continue
            try:
                head = read_head(path)
            except FileNotFoundError:  # another run has removed it
                continue
            except CorruptStoreError:
                self.damaged.append(path)
                continue
            spec = self.spec
            if spec is None or not _differences(spec, head.spec, views=False):
                self._of(head.spec, head.view).add(head)
                self.earlier_seconds += float(head.run.get("seconds", 0.0))

    @property
    def spec(self) -> Spec | None:
        """The spec of what is there; None while nothing is."""
        first = next(iter(self.specs), None)
        return first and dataclasses.replace(first, augmentation=self.augmentation)

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The spec of each layer that is there, published or not; without augmentation."""
        every = {name: known.spec for (name, _), known in self._known.items()}
        return tuple(dataclasses.replace(spec, augmentation="") for spec in every.values())

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers the store publishes already."""
        return tuple(self.before.layers) if self.before is not None else ()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the last run, published or not."""
        if self.before is not None:
            return self.before.settings
        # Whoever has views remembers more.
        for known in sorted(self._known.values(), key=lambda known: not known.spec.augmentation):
            if known.heads:
                return known.heads[-1].run
        return {}

    def require(self, spec: Spec, *, weights: str = "") -> None:
        """Refuse a spec that differs from the store's in more than its layer.

        Parameters
        ----------
        spec
            The spec asked for.
        weights
            The name its weights were asked for by.

        Raises
        ------
        SpecMismatchError
            Naming each field that differs, the store's value, the one asked for, and what
            to do.
        """
        if self.spec is not None:
            self._compare(self.spec, spec, weights)
        self.augmentation = spec.augmentation or self.augmentation

    def _compare(self, stored: Spec, asked: Spec, weights: str = "") -> None:
        differences = _differences(stored, asked)
        if "weights" in differences:
            names = (str(self.settings.get("weights", "")), weights)
            differences["weights"] = tuple(map(_named, names, differences["weights"]))
        if differences:
            listed = "; ".join(
                f"{name}: the store has {mine!r}, asked for {theirs!r}"
                for name, (mine, theirs) in differences.items()
            )
            raise SpecMismatchError(
                f"{self.folder} was made under another spec ({listed}); leave the option out to "
                "use the store's, or choose another -o for a second store"
            )

    def missing(self, name: str, rows: Sequence[RowId]) -> list[RowId]:
        """Return the rows that layer `name` lacks, each once, in order."""
        lacking = self.lacking(name)
        return [row for row in dict.fromkeys(rows) if row in lacking]

    def lacking(self, name: str) -> Container[RowId]:
        """Return what contains a row as long as layer `name` lacks it; any thread may ask."""
        return _Lacking(self, name)

    def has(self, name: str, row: RowId) -> bool:
        """Tell whether layer `name` has a row."""
        known = self._known.get((name, self.augmentation if row[1] else ""))
        return known is not None and row in known.position

    def _places(self, name: str) -> tuple[Mapping[RowId, int], Mapping[RowId, int]]:
        """Return where the pictures themselves are, and where their views are, behind them."""
        parts = [self._known.get((name, kind)) for kind in dict.fromkeys(["", self.augmentation])]
        found = [part.position if part else {} for part in parts]
        first = parts[0].rows if parts[0] else 0
        if len(parts) == 1:
            return found[0], found[0]
        return found[0], {row: first + place for row, place in found[1].items()}

    def add(
        self,
        spec: Spec,
        rows: Sequence[RowId],
        features: NDArray[Any],
        run: Mapping[str, Any],
        packed: Sequence[bytes] = (),
    ) -> None:
        """Write one shard; from now on its rows survive whatever happens to this process.

        `packed` is as for `write_rows`.
        """
        self.make_folder()
        now = time.perf_counter()
        run = {**run, "seconds": round(now - self._clock, 3)}
        self._clock = now
        head = write_rows(self.shards, spec, rows, features, run, packed=packed)
        self._of(spec, head.view).add(head)

    def take(self, head: ShardHead) -> None:
        """Take a shard that another process has written into this store's folder.

        Raises
        ------
        StoreError
            If it is not there: the other process wrote into another folder of the same name.
        """
        path = self.shards / head.info.file
        if not path.is_file() or path.stat().st_size != head.info.bytes:
            raise StoreError(
                f"{path} was written elsewhere and is not here; the store's folder must be one "
                "that every machine sees under the same path"
            )
        self._of(head.spec, head.view).add(head)

    def publish(
        self,
        rows: Rows,
        layers: Sequence[str],
        *,
        left_out: Sequence[LeftOut],
        unreadable: Mapping[str, str],
        settings: Mapping[str, Any],
        seconds: float,
    ) -> bool:
        """Swap in a catalog with exactly these rows and layers; return whether anything changed.

        Layers that another run has published meanwhile are kept.

        Raises
        ------
        SpecMismatchError
            If another run has published under another spec meanwhile.
        StoreError
            If a layer lacks one of the rows.
        """
        draft = Catalog(
            classes=rows.classes,
            path=rows.path,
            split=rows.split,
            label=np.array(rows.label, dtype=np.int32),
            image_sha256=np.array(rows.image_sha256, dtype="S64"),
            view=np.array(rows.view, dtype=np.uint8),
            layers={},
            left_out=catalog.sort_left_out(left_out),
            unreadable=dict(unreadable),
            columns=rows.columns,
            settings=dict(settings),
            extract_seconds=seconds + self.earlier_seconds,
            created=catalog.now(),
        )
        while True:
            after = self._after(draft, [*self.layers, *layers], rows.ids())
            before = self.before
            if before is not None and _same(before, after) and _ledger_is(self.folder, after):
                return False
            try:
                catalog.write(self.folder, after, over=self._published)
            except _files.OvertakenError:
                self._catch_up()
            else:
                self.before, self._published = after, _files.seal_at(self.folder / catalog.FILE)
                return True

    def _wait_for_news(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while (found := _files.seal_at(self.folder / catalog.FILE)) == self._published:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"another run has been about to publish {self.folder} for {_PATIENCE:.0f} s; "
                    "what was computed is kept: run the same command again"
                )
            time.sleep(0.01)
            tidy(self.folder)  # perhaps it is dead
            if not _files.is_claimed(self.folder / catalog.FILE, self._published):
                return
        self._published = found

    def _after(self, draft: Catalog, names: Sequence[str], ids: list[RowId]) -> Catalog:
        layers = {name: self._layer(name, ids) for name in dict.fromkeys(names)}
        before = self.before
        if before is None:
            return dataclasses.replace(draft, layers=layers)
        seconds = draft.extract_seconds + before.extract_seconds
        return dataclasses.replace(
            draft, layers=layers, extract_seconds=seconds, created=before.created
        )

    def _catch_up(self) -> None:
        """Learn what another run has published since this one began."""
        self._wait_for_news()
        self.before = _read_catalog(self.folder, damaged_is_none=self._repair)
        for index in self.before.layers.values() if self.before is not None else ():
            if self.spec is not None:
                self._compare(index.spec, self.spec)
            self._remember(index)

    def _layer(self, name: str, ids: list[RowId]) -> LayerIndex:
        lacking = self.missing(name, ids)
        if lacking:
            raise StoreError(
                f"layer {name} of {self.folder} lacks {len(lacking)} rows, as another run has "
                "changed the store meanwhile; what was computed is kept: run the same command again"
            )
        pictures, views = self._places(name)
        kinds = ["", self.augmentation] if any(view for _, view in ids) else [""]
        parts = [self._known[name, kind] for kind in dict.fromkeys(kinds)]
        heads = [head for part in parts for head in part.heads]
        return LayerIndex(
            spec=dataclasses.replace(parts[0].spec, augmentation=kinds[-1]),
            shape=heads[0].shape,
            shards=tuple(head.info for head in heads),
            image_sha256=np.concatenate([head.image_sha256 for head in heads]),
            view=np.concatenate([head.view for head in heads]),
            position=np.array(
                [(views if row[1] else pictures)[row] for row in ids], dtype=np.int64
            ),
        )

    def remove_damaged(self) -> list[Path]:
        """Remove the damaged shards, once the catalog names them no more; return them."""
        listed = {head.info.file for known in self._known.values() for head in known.heads}
        gone = [path for path in self.damaged if path.name not in listed]
        for path in gone:
            path.unlink(missing_ok=True)
        self.damaged = []
        return gone


@dataclass(frozen=True)
class _Lacking:
    filling: Filling
    name: str

    def __contains__(self, row: object) -> bool:
        return not self.filling.has(self.name, cast("RowId", row))


def write_rows(
    shards: Path,
    spec: Spec,
    rows: Sequence[RowId],
    features: NDArray[Any],
    run: Mapping[str, Any],
    *,
    packed: Sequence[bytes] = (),
) -> ShardHead:
    """Write one shard, of rows under one spec, and return what it says of itself.

    `packed` are the first chunks of its features, if a `Draft` has packed them.
    """
    ids = np.array([row[0] for row in rows], dtype="S64")
    view = np.array([row[1] for row in rows], dtype=np.uint8)
    info = write_shard(shards, spec, ids, view, features, run=run, packed=packed)
    return ShardHead(info, spec, ids, view, features.shape[1:], {})


def tidy(folder: Path) -> None:
    """Remove what dead runs have left behind in a store."""
    for place in (folder, folder / catalog.SHARDS, folder / "derived"):
        _files.remove_stale_temporaries(place)


def _read_catalog(folder: Path, *, damaged_is_none: bool) -> Catalog | None:
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; -o expects a folder to make or to fill")
    try:
        return catalog.read(folder / catalog.FILE)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except PermissionError as error:
        raise StoreError(f"{folder} cannot be read: permission denied") from error
    except StoreVersionError:
        raise
    except CorruptStoreError as error:
        if damaged_is_none:
            return None
        raise CorruptStoreError(f"{error}; {catalog.remedy(folder)}") from error
    ours = {catalog.SHARDS, "derived", "ledger.jsonl"}
    strangers = [] if not folder.exists() else [path.name for path in folder.iterdir()]
    strangers = [name for name in strangers if name not in ours and not name.startswith(".tmp-")]
    if strangers:
        raise StoreError(
            f"{folder} is not a store and not empty (it has {min(strangers)!r}); "
            "choose a new folder for -o"
        )
    return None


def _differences(stored: Spec, asked: Spec, *, views: bool = True) -> dict[str, Any]:
    """Return how two specs of one store differ: one without views may gain any."""
    free = not (views and stored.augmentation and asked.augmentation)
    return stored.differences(asked, ignore=PER_LAYER | ({"augmentation"} if free else set()))


def _named(name: str, digest: str) -> str:
    """Return weights as people know them, and as the spec does."""
    return f"{name} (sha256 {digest[:16]}...)" if name and digest else name or digest


def _same(before: Catalog, after: Catalog) -> bool:
    """Tell whether two catalogs say the same but for times and versions."""
    return _words(before) == _words(after)


def _words(content: Catalog) -> str:
    layers = {
        name: [
            index.spec.to_json(),
            [shard.sha256 for shard in index.shards],
            index.position.tolist(),
        ]
        for name, index in content.layers.items()
    }
    rows = [content.path, content.split, content.label.tolist(), content.view.tolist()]
    hashes = content.image_sha256.tolist()
    words = [content.classes, rows, repr(hashes), layers, content.left_out, content.unreadable]
    return json.dumps([*words, content.columns, content.settings], sort_keys=True)


def _ledger_is(folder: Path, content: Catalog) -> bool:
    try:
        return (folder / "ledger.jsonl").read_bytes() == catalog.ledger_text(content)
    except FileNotFoundError:
        return False
