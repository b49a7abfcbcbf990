"""A store, for reading: rows, labels and features, each shard checked before it is served."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from headstart.cache import _files, _hdf5, catalog, handover, markup
from headstart.cache.mirror import Mirror, local_store
from headstart.cache.shard import DATASET, ShardInfo
from headstart.cache.widening import widened
from headstart.errors import (
    CorruptStoreError,
    HeadstartError,
    LayerError,
    StoreError,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    from headstart.cache.catalog import LayerIndex
    from headstart.cache.spec import Spec

Pool = Literal["none", "avg", "max"]
POOLS = ("none", "avg", "max")
#: What is read at a time on the way to one array: little enough to stay in a processor's cache.
_BLOCK_BYTES, _FEW = 1 << 20, 16


def _put(result: NDArray[Any], positions: NDArray[np.int64], block: NDArray[Any]) -> None:
    """Copy rows to their places in the result, in its dtype; in one step where they adjoin."""
    adjoin = bool((np.diff(positions) == 1).all())
    places = slice(int(positions[0]), int(positions[-1]) + 1) if adjoin else positions
    if result.dtype != np.float32:
        result[places] = block
    elif adjoin:
        widened(block, result[places])
    else:
        result[places] = widened(block)


class Store:
    """The features of one dataset under one spec.

    Made by `headstart.extract`; opened by ``Store.open(path)``. Rows are in the order of
    the dataset: sorted path, then view. A shard is checked against its published SHA-256
    the first time a row of it is asked for, so a damaged one is named, never served.

    Examples
    --------
    >>> store = Store.open("pets.features")           # doctest: +SKIP
    >>> X = store.features("mixed7", split="train")   # doctest: +SKIP
    """

    #: Files checked by this process: (path, size, mtime, inode) -> SHA-256 of the body.
    _checked: ClassVar[dict[tuple[str, int, int, int], str]] = {}

    def __init__(self, path: Path, content: catalog.Catalog) -> None:
        self.path = path
        self._catalog = content
        self._mirror = Mirror.of(path)

    @classmethod
    def open(cls, path: Store | str | os.PathLike[str]) -> Store:
        """Open a store directory, or a single file made by ``headstart pack``.

        Of a store at a URL (``s3://bucket/pets.features``) the catalog is fetched, if it has
        changed, and each shard when a row of it is first read; `path` is where they go.

        A store that is open already is returned as it is.

        Raises
        ------
        StoreNotFoundError
            If there is no store at `path`.
        StoreVersionError
            If it was written in a newer format.
        CorruptStoreError
            If its catalog is damaged or a shard is missing or has another size.
        """
        if isinstance(path, Store):
            return path
        folder = local_store(path)
        try:
            file = catalog.file_of(folder)
            content = catalog.read(file)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{error}; {catalog.remedy(folder)}") from error
        except PermissionError as error:
            raise StoreError(f"{folder} cannot be read: permission denied") from error
        store = cls(folder, content)
        if store._mirror is None:
            catalog.check_shards_present(folder, content)
        return store

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._catalog)

    def __repr__(self) -> str:
        """Say in one line what is in the store."""
        return (
            f"<Store {str(self.path)!r}: {len(self)} rows, {len(self.classes)} classes, "
            f"layers {', '.join(self.layers)}>"
        )

    def _repr_html_(self) -> str:
        """Show in a notebook what is in the store: its classes, and where it comes from."""
        known = self._catalog.label[self._catalog.label >= 0]
        counts = np.bincount(known, minlength=len(self.classes))
        rows = [[name, f"{n:,}"] for name, n in zip(self.classes, counts, strict=True)]
        unknown = int((self._catalog.label < 0).sum())
        rows += [["(unknown)", f"{unknown:,}"]] if unknown else []
        layers = ", ".join(f"{name} {'x'.join(map(str, self.shape(name)))}" for name in self.layers)
        spec, left_out = self.spec, len(self._catalog.left_out)
        note = (
            f"{layers}, {spec.dtype}; {spec.architecture} at {spec.size} px, {spec.engine} "
            f"{spec.precision}; {left_out:,} pictures left out; extraction took "
            f"{self.extract_seconds:.1f} s"
        )
        return markup.table(f"{self.path}: {len(self):,} rows", ["class", "rows"], rows, [note])

    @property
    def catalog(self) -> catalog.Catalog:
        """All that ``features.h5`` says."""
        return self._catalog

    @property
    def place(self) -> str:
        """Where the store is: its URL, or its path."""
        return str(self.path) if self._mirror is None else self._mirror.url

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the stored layers, in the order they were added."""
        return tuple(self._catalog.layers)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self._catalog.classes

    @property
    def spec(self) -> Spec:
        """The spec of the first layer; the others differ from it in their layer alone."""
        return self._index(None).spec

    @property
    def extract_seconds(self) -> float:
        """Seconds that extraction took so far, all runs together."""
        return self._catalog.extract_seconds

    @property
    def derived(self) -> Path | None:
        """Folder for what can be computed again at any time; None for a packed file."""
        return None if self.path.is_file() else self.path / "derived"

    def shape(self, layer: str | None = None) -> tuple[int, ...]:
        """Return the shape of one row, ``(7, 7, 768)`` for mixed7 at 150x150."""
        return self._index(layer).shape

    def rows(self, split: str | None = None) -> NDArray[np.int64]:
        """Return the row numbers of a split, ``(n,)``.

        ``"train"`` includes the rows that no split claims; None means all rows.

        Raises
        ------
        StoreError
            If there is no such split.
        """
        splits = self.splits()
        if split is None:
            return np.arange(len(splits))
        if split not in catalog.SPLITS:
            raise StoreError(f"no split is called {split!r}; expected one of {catalog.SPLITS[1:]}")
        wanted = splits == split
        return np.flatnonzero(wanted | (splits == "") if split == "train" else wanted)

    def labels(self, split: str | None = None) -> NDArray[np.int32]:
        """Return the labels, ``(n,)`` int32; -1 where unknown."""
        return self._catalog.label[self.rows(split)]

    def splits(self) -> NDArray[np.str_]:
        """Return the split of every row, ``(N,)``: train, validation, test or empty."""
        return np.array(self._catalog.split, dtype=np.str_)

    def paths(self, split: str | None = None) -> list[str]:
        """Return the paths, relative to the dataset."""
        return [self._catalog.path[row] for row in self.rows(split)]

    def image_sha256(self, split: str | None = None) -> NDArray[np.bytes_]:
        """Return the SHA-256 of each picture's file, ``(n,)`` of ``S64`` (hex)."""
        return self._catalog.image_sha256[self.rows(split)]

    def views(self, split: str | None = None) -> NDArray[np.uint8]:
        """Return the view of each row, ``(n,)``; 0 is the picture itself."""
        return self._catalog.view[self.rows(split)]

    def column(self, name: str) -> NDArray[np.str_]:
        """Return a further column of the manifest, ``(N,)``, as text.

        Raises
        ------
        StoreError
            If the manifest had no such column.
        """
        columns = self._catalog.columns
        if name not in columns:
            raise StoreError(
                f"{self.path} has no column {name!r}; the manifest brought "
                f"{', '.join(columns) or 'none but path, label and split'}"
            )
        return np.array(columns[name], dtype=np.str_)

    def features(
        self,
        layer: str | None = None,
        *,
        split: str | None = None,
        rows: NDArray[np.int64] | None = None,
        pool: Pool = "none",
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return features in memory.

        Parameters
        ----------
        layer
            A stored layer; the first one by default.
        split, rows
            Which rows: a split's, or these row numbers in this order, or those where a mask
            of length N is true (not both).
        pool
            ``avg`` or ``max`` over height and width.
        dtype
            Of the result; float32 by default, ``"float16"`` is as stored.

        Returns
        -------
        ndarray
            ``(n, height, width, channels)``, or ``(n, channels)`` if pooled.

        Raises
        ------
        LayerError
            If the layer is not in the store.
        CorruptStoreError
            If a shard is missing or damaged; no row is returned.
        """
        if rows is not None and split is not None:
            raise StoreError("give split or rows, not both")
        wanted = self.rows(split) if rows is None else self._catalog_rows(rows)
        result: NDArray[Any] | None = None
        for positions, block in self.blocks(layer, rows=wanted, block_rows=None, pool=pool):
            if result is None:  # now that a shard has vouched for the shape
                result = np.empty((len(wanted), *block.shape[1:]), dtype)
            _put(result, positions, block)
        if result is None:
            return np.empty((0, *self._shape(layer, pool)), dtype)
        return result

    def blocks(
        self,
        layer: str | None = None,
        *,
        rows: NDArray[np.int64] | None = None,
        block_rows: int | None = 256,
        pool: Pool = "none",
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield ``(positions, block)`` until each of `rows` was given once, shard by shard.

        `positions` (b,) index into `rows`; `block` is ``(b, ...)`` in the stored dtype
        (pooled: float32), with b at most `block_rows`, or about a megabyte of stored rows if None.
        """
        index, pool = self._stored(layer, pool)
        wanted = self._catalog_rows(rows)
        flat = index.position[wanted]
        starts = index.starts
        shard_of = np.searchsorted(starts, flat, "right") - 1
        order = np.argsort(flat, kind="stable")
        edges = np.searchsorted(shard_of[order], np.arange(len(index.shards) + 1))
        for number, info in enumerate(index.shards):
            mine = order[edges[number] : edges[number + 1]]
            if len(mine):
                local = flat[mine] - starts[number]
                for part, block in self._read_shard(index, info, local, block_rows):
                    yield mine[part], pooled(block, pool)

    def to_numpy(
        self,
        layer: str | None = None,
        *,
        split: str | None = None,
        pool: Pool = "none",
        dtype: DTypeLike = np.float32,
    ) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Return features ``(n, ...)`` and labels ``(n,)`` of the rows that have a label.

        For a head of one's own; parameters and errors are those of `features`.
        """
        return handover.to_numpy(self, layer, split=split, pool=pool, dtype=dtype)

    def to_tf_dataset(
        self,
        layer: str | None = None,
        *,
        split: str | None = None,
        pool: Pool = "none",
        dtype: DTypeLike = np.float32,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
    ) -> Any:
        """Return a ``tf.data.Dataset`` of batches of features and labels, read as they are needed.

        Each batch is ``(b, ...)`` of `dtype` and ``(b,)`` int32, b being `batch_size` but for the
        last; rows without a label are left out. About 512 rows are in memory at a time. With
        `shuffle` each pass has another order, the same for the same seed. Other parameters and
        errors are those of `features`.
        """
        return handover.to_tf_dataset(
            self,
            layer,
            split=split,
            pool=pool,
            dtype=dtype,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
        )

    def to_frame(self) -> Any:
        """Return a ``pandas.DataFrame`` of the rows, in their order, without the features.

        Its columns are ``path``, ``label`` (categorical; missing where unknown), ``split``,
        ``view``, ``image_sha256``, and those of the manifest.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        return handover.to_frame(self)

    def fingerprint(
        self,
        layer: str | None = None,
        *,
        rows: NDArray[np.int64] | None = None,
        pool: Pool = "none",
    ) -> str:
        """Return a SHA-256 (hex) of which values these rows are: spec, pictures, views, order."""
        index, pool = self._stored(layer, pool)
        wanted = self._catalog_rows(rows)
        digest = hashlib.sha256(f"{index.spec.to_json()}|{pool}|".encode())
        digest.update(self._catalog.image_sha256[wanted].tobytes())
        digest.update(self._catalog.view[wanted].tobytes())
        return digest.hexdigest()

    def source(self, info: ShardInfo) -> Path:
        """Return the file of a shard (of a packed store: the store itself)."""
        return self.path / catalog.SHARDS / info.file if info.file else self.path

    def _catalog_rows(self, rows: NDArray[np.int64] | None) -> NDArray[np.int64]:
        if rows is None:
            return np.arange(len(self))
        wanted = np.asarray(rows)
        if wanted.dtype == np.bool_ and wanted.shape == (len(self),):
            return np.flatnonzero(wanted)
        if wanted.ndim != 1 or (wanted.dtype.kind not in "iu" and len(wanted)):
            raise StoreError(
                f"rows must be row numbers, or a mask of {len(self)}; "
                f"found {wanted.dtype} of shape {wanted.shape}"
            )
        outside = (wanted < 0) | (wanted >= len(self))
        if outside.any():
            raise StoreError(f"rows must be from 0 to {len(self) - 1}; found {wanted[outside][0]}")
        return wanted.astype(np.int64)

    def _index(self, layer: str | None) -> LayerIndex:
        layers = self._catalog.layers
        name = next(iter(layers)) if layer is None else layer
        if name not in layers:
            cut, _, pool = name.partition(".")
            pooled = [each for each in POOLS if f"{cut}.{each}" in layers]
            here = f"; it is there pooled (pool={pooled[0]!r})" if pooled and not pool else ""
            wanted = f"--layer {cut} --pool {pool or 'none'}"
            raise LayerError(
                f"layer {name!r} is not in {self.path}, which has {', '.join(layers)}{here}; "
                f"add it with: headstart extract DATA -o {self.path} {wanted}"
            )
        return layers[name]

    def stored(self, layer: str | None = None, pool: Pool = "none") -> tuple[Spec, Pool]:
        """Return the spec of what is read for a layer, and the pooling that is still done then."""
        index, rest = self._stored(layer, pool)
        return index.spec, rest

    def _stored(self, layer: str | None, pool: Pool) -> tuple[LayerIndex, Pool]:
        """Return the layer to read, and the pooling still to be done."""
        if pool not in POOLS:
            raise StoreError(f"pool must be one of {', '.join(POOLS)}; found {pool!r}")
        already = f"{layer}.{pool}"
        if layer is not None and already in self._catalog.layers:
            return self._catalog.layers[already], "none"
        index = self._index(layer)
        if len(index.shape) == 1 and pool == index.spec.pool:
            return index, "none"
        if len(index.shape) == 1 and pool != "none":
            raise LayerError(f"{index.spec.name} is stored pooled; it cannot be pooled by {pool}")
        return index, pool

    def _shape(self, layer: str | None, pool: Pool) -> tuple[int, ...]:
        index, pool = self._stored(layer, pool)
        return index.shape if pool == "none" else index.shape[-1:]

    def _read_shard(
        self, index: LayerIndex, info: ShardInfo, local: NDArray[np.int64], block_rows: int | None
    ) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield the rows `local` (sorted) of one shard, in blocks."""
        path = self.source(info)
        self.check_shard(info)
        with _hdf5.reading(path, info.sha256) as file:
            name = DATASET if info.file else index.spec.name
            dataset = _hdf5.features(file, name, index.spec.dtype, info.rows)
            if dataset.shape[1:] != index.shape:
                raise CorruptStoreError(
                    f"{path} has rows of {dataset.shape[1:]}, not {index.shape}"
                )
            row_bytes = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
            step = block_rows or max(_FEW, _BLOCK_BYTES // row_bytes)
            for first in range(0, len(local), step):
                part = slice(first, min(first + step, len(local)))
                yield part, _hdf5.read_rows(dataset, local[part])

    def check_shard(self, info: ShardInfo, *, again: bool = False) -> None:
        """Check a shard against the SHA-256 it was published with, once per process.

        Parameters
        ----------
        info
            The shard.
        again
            Read it also if this process has read it before.

        Raises
        ------
        CorruptStoreError
            If it is missing, damaged, or another shard.
        """
        path = self.source(info)
        if self._mirror is not None:
            self._mirror.fetch(info, again=again)
        try:
            status = path.stat()
            key = (str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino)
            known = None if again else self._checked.get(key)
            found = known or _files.check_seal(path)
        except FileNotFoundError as error:
            raise CorruptStoreError(
                f"shard {path} is missing; {catalog.remedy(self.path)}"
            ) from error
        except HeadstartError as error:
            raise CorruptStoreError(f"{error}; {catalog.remedy(self.path)}") from error
        except OSError as error:
            if error.errno not in _files.DAMAGE:
                raise
            raise CorruptStoreError(
                f"{path} cannot be read: {error.strerror}; {catalog.remedy(self.path)}"
            ) from error
        if found != info.sha256 and not info.file:
            raise _hdf5.ReplacedError(f"{path} was replaced since it was opened; open it again")
        if found != info.sha256:
            raise CorruptStoreError(
                f"{path} is not the shard this store published (checksum {found[:16]}..., "
                f"expected {info.sha256[:16]}...); {catalog.remedy(self.path)}"
            )
        self._checked[key] = found


def pooled(block: NDArray[Any], pool: Pool) -> NDArray[Any]:
    """Return maps ``(b, h, w, c)`` pooled over height and width ``(b, c)``, or as they are."""
    if pool == "avg":
        return np.asarray(block.mean(axis=(1, 2), dtype=np.float32))
    if pool == "max":
        return np.asarray(block.max(axis=(1, 2)), dtype=np.float32)
    return block
