"""The catalog: ``features.h5``, the one file that says what a store holds.

Anyone with h5py reads the datasets at its root. The group ``/headstart`` is ours: which
shards there are, which rows they hold, and where each row of the store lies in them.
"""

from __future__ import annotations

import datetime as dt
import functools
import importlib.metadata
import itertools
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from headstart.cache import _files, _hdf5
from headstart.cache.shard import DATASET, NAME, ShardInfo
from headstart.cache.spec import Spec
from headstart.errors import (
    CorruptStoreError,
    StoreError,
    StoreNotFoundError,
    StoreVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = "headstart"
FILE = "features.h5"
SHARDS = "shards"
SPLITS = ("", "train", "validation", "test")
_PRIVATE = "headstart"
_LIBRARIES = ("headstart", "keras", "tensorflow", "numpy", "pillow", "h5py")
_MORE_LIBRARIES = ("openvino", "jax", "torch")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class LeftOut(NamedTuple):
    """A picture that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class LayerIndex:
    """Where the rows of one layer are.

    `image_sha256` and `view` name every row of every shard, one shard behind the other;
    `position` (N,) says which of them each row of the store is.
    """

    spec: Spec
    shape: tuple[int, ...]
    shards: tuple[ShardInfo, ...]
    image_sha256: NDArray[np.bytes_]
    view: NDArray[np.uint8]
    position: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """First position of each shard, and the end of the last: ``(shards + 1,)``."""
        return np.cumsum([0, *(shard.rows for shard in self.shards)], dtype=np.int64)


@dataclass(frozen=True)
class Catalog:
    """All that ``features.h5`` says, but for the features themselves."""

    classes: tuple[str, ...]
    path: list[str]
    split: list[str]
    label: NDArray[np.int32]
    image_sha256: NDArray[np.bytes_]
    view: NDArray[np.uint8]
    layers: dict[str, LayerIndex]
    left_out: tuple[LeftOut, ...]
    #: SHA-256 (hex) of files that cannot be decoded, and why: they need not be tried again.
    unreadable: dict[str, str]
    #: Further columns of a manifest, as text: (N,) each.
    columns: dict[str, list[str]]
    settings: dict[str, Any]
    extract_seconds: float
    created: str

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.path)


def now() -> str:
    """Return the time, in UTC, to the second, as ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Headstart and of the libraries that decide values.

    ``""`` stands for a library that is not installed; of those that only some engine or backend
    needs, such a one is left out.
    """
    found = {}
    for name in (*_LIBRARIES, *_MORE_LIBRARIES):
        try:
            found[name] = _version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in _LIBRARIES:
                found[name] = ""
    return found


@functools.cache
def _version(name: str) -> str:
    """Look a version up once a process: what is imported stays what it is."""
    return importlib.metadata.version(name)


def write(folder: Path, catalog: Catalog, *, over: bytes) -> None:
    """Swap in a new ``features.h5``, and the ledger that people read.

    Raises
    ------
    OvertakenError
        If the seal of ``features.h5`` is not `over` any more; nothing has changed.
    """
    data = _files.sealed(_hdf5.build(lambda file: _fill(file, catalog)))
    _files.publish_bytes(folder / FILE, data, over=over)
    _files.publish_bytes(folder / "ledger.jsonl", ledger_text(catalog))


def ledger_text(catalog: Catalog) -> bytes:
    """Return ``ledger.jsonl``: a line of JSON for every picture left out."""
    lines = [json.dumps(row._asdict(), ensure_ascii=False) for row in catalog.left_out]
    return "".join(f"{line}\n" for line in lines).encode()


def write_rows(file: h5py.File, catalog: Catalog) -> None:
    """Add what every reader relies on, but for the features."""
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = _files.FORMAT_VERSION
    file.attrs["spec"] = next(iter(catalog.layers.values())).spec.to_json()
    file.attrs["created"] = catalog.created
    for name, version in versions().items():
        file.attrs[f"{name}_version"] = version
    label = file.create_dataset("label", data=catalog.label)
    label.attrs["classes"] = np.array(catalog.classes, dtype=h5py.string_dtype())
    _hdf5.write_strings(file, "split", catalog.split)
    _hdf5.write_strings(file, "path", catalog.path)
    file.create_dataset("image_sha256", data=catalog.image_sha256)
    file.create_dataset("view", data=catalog.view)
    private = {
        "classes": catalog.classes,
        "layers": {
            name: {"spec": index.spec.to_json(), "shape": index.shape}
            for name, index in catalog.layers.items()
        },
        "left_out": catalog.left_out,
        "unreadable": catalog.unreadable,
        "columns": catalog.columns,
        "settings": catalog.settings,
        "extract_seconds": catalog.extract_seconds,
    }
    _write_json(file, f"{_PRIVATE}/catalog", private)


def _fill(file: h5py.File, catalog: Catalog) -> None:
    write_rows(file, catalog)
    for name, index in catalog.layers.items():
        _hdf5_virtual(file, name, index)
        group = file.create_group(f"{_PRIVATE}/{name}")
        _write_json(file, f"{group.name[1:]}/shards", [asdict(shard) for shard in index.shards])
        group.create_dataset("image_sha256", data=index.image_sha256)
        group.create_dataset("view", data=index.view)
        group.create_dataset("position", data=index.position)


def _hdf5_virtual(file: h5py.File, name: str, index: LayerIndex) -> None:
    dtype = np.dtype(index.spec.dtype)
    layout = h5py.VirtualLayout((len(index.position), *index.shape), dtype)
    starts = index.starts
    for first, last in contiguous_runs(index.position, starts):
        shard = int(np.searchsorted(starts, index.position[first], "right")) - 1
        info = index.shards[shard]
        source = h5py.VirtualSource(f"{SHARDS}/{info.file}", DATASET, (info.rows, *index.shape))
        offset = int(index.position[first] - starts[shard])
        layout[first:last] = source[offset : offset + last - first]
    # A hole is seen, not read as zeros: HDF5 answers the fill value where a source is gone.
    dataset = file.create_virtual_dataset(name, layout, fillvalue=dtype.type("nan"))
    dataset.attrs["spec"] = index.spec.to_json()


def contiguous_runs(
    position: NDArray[np.int64], starts: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Yield ``(first, last)`` of the runs of rows that lie side by side in one shard."""
    shard = np.searchsorted(starts, position, "right")
    breaks = np.flatnonzero((np.diff(position) != 1) | (np.diff(shard) != 0)) + 1
    edges = [0, *breaks.tolist(), len(position)]
    yield from itertools.pairwise(edges)


def _write_json(file: h5py.File, name: str, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False).encode()
    file.create_dataset(name, data=np.frombuffer(text, np.uint8))


def _read_json(file: h5py.File, name: str) -> Any:
    return json.loads(_hdf5.plain(file, name, "u")[:].tobytes())


def file_of(store: Path) -> Path:
    """Return the file with the catalog of a store: of a packed one, the store itself.

    Raises
    ------
    StoreNotFoundError
        If there is no store at this path; the message says what is there instead.
    StoreError
        If it is a file that no Headstart made.
    """
    file = store / FILE if store.is_dir() else store
    if not file.is_file():
        raise StoreNotFoundError(_no_store(store))
    if file == store and not _looks_packed(file):
        raise StoreError(f"{store} is not a store: expected a folder or HDF5 file of Headstart")
    return file


def _looks_packed(path: Path) -> bool:
    """Tell whether a file begins as HDF5 or ends in a seal: either may be damaged."""
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n" or _files.is_seal(_files.seal_at(path))


def _no_store(folder: Path) -> str:
    if not folder.exists():
        return f"there is no store at {folder}; make one with: headstart extract DATA -o {folder}"
    if folder.is_dir() and (folder / SHARDS).is_dir():
        return (
            f"{folder} is an extraction that was not finished; run the same "
            f"headstart extract DATA -o {folder} again (without --part) to finish it"
        )
    return f"{folder} is not a store: it has no {FILE}"


def remedy(store: Path) -> str:
    """Say what to do about a damaged store."""
    if store.is_file():
        return "pack the store again"
    return f"mend it with: headstart verify {store} --repair --data DATA"


def check_shards_present(store: Path, content: Catalog) -> None:
    """Look, without reading any, whether all shards are there and of the size they had.

    Raises
    ------
    CorruptStoreError
        If not; it names the shard and the remedy.
    """
    for index in content.layers.values():
        for info in index.shards:
            path = store / SHARDS / info.file
            size = path.stat().st_size if path.is_file() else None
            if info.file and size != info.bytes:
                found = "is missing" if size is None else f"has {size} bytes"
                raise CorruptStoreError(
                    f"shard {path} {found}; expected {info.bytes} bytes; {remedy(store)}"
                )


def check_seals(store: Path, content: Catalog) -> None:
    """Look whether all shards end in the seal they were published with; no more of them is read.

    What was never written to its end, though of the right size, and what is another shard is found;
    a byte changed elsewhere is not, before `Store.check_shard` has read the file.

    Raises
    ------
    CorruptStoreError
        If one does not; it names the shard and the remedy.
    """
    for index in content.layers.values():
        for info in index.shards:
            path = store / SHARDS / info.file
            if info.file and not _ends_in(path, info.sha256):
                raise CorruptStoreError(
                    f"shard {path} is damaged: its last bytes are not the seal it was published "
                    f"with; {remedy(store)}"
                )


def _ends_in(path: Path, sha256: str) -> bool:
    """Tell whether a file ends in a seal with this SHA-256 (hex)."""
    try:
        return _files.parse_seal(_files.seal_at(path), path) == sha256
    except (CorruptStoreError, OSError):
        return False


def read(path: Path) -> Catalog:
    """Check ``features.h5`` (or a packed file) against its seal and return what it says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    StoreVersionError
        If it is of a newer format.
    CorruptStoreError
        If it is damaged, or says what a store of ours never says.
    """
    while True:
        try:
            return _read(path, _files.check_seal(path))
        except _hdf5.ReplacedError:  # by a newer publication, between the check and the reading
            continue


def _read(path: Path, digest: str) -> Catalog:
    with _hdf5.reading(path, digest) as file:
        if file.attrs.get("format") != FORMAT:
            raise CorruptStoreError(f"{path} is not the catalog of a store")
        version = int(file.attrs["format_version"])
        if version > _files.FORMAT_VERSION:
            raise StoreVersionError(f"{path} is of format {version}: upgrade Headstart to read it")
        return _parse(file, path, digest)


def _parse(file: h5py.File, path: Path, digest: str) -> Catalog:
    private = _read_json(file, f"{_PRIVATE}/catalog")
    label = _hdf5.plain(file, "label", "i")[:].astype(np.int32)
    rows = len(label)
    catalog = Catalog(
        classes=tuple(str(name) for name in private["classes"]),
        path=_hdf5.strings(file, "path"),
        split=_hdf5.strings(file, "split"),
        label=label,
        image_sha256=_hdf5.plain(file, "image_sha256", "S", rows)[:].astype("S64"),
        view=_hdf5.plain(file, "view", "u", rows)[:].astype(np.uint8),
        layers={},
        left_out=tuple(LeftOut(*map(str, row)) for row in private["left_out"]),
        unreadable=dict(private["unreadable"]),
        columns={str(name): list(map(str, held)) for name, held in private["columns"].items()},
        settings=dict(private["settings"]),
        extract_seconds=float(private["extract_seconds"]),
        created=str(file.attrs["created"]),
    )
    _check_rows(catalog, path)
    for name, about in private["layers"].items():
        spec, shape = Spec.from_json(about["spec"]), tuple(map(int, about["shape"]))
        if spec.name != name:
            raise CorruptStoreError(f"{path}: layer {name!r} has the spec of {spec.name!r}")
        if f"{_PRIVATE}/{name}" in file:
            catalog.layers[name] = _parse_layer(file, catalog, spec, shape)
        else:
            catalog.layers[name] = _packed_layer(file, catalog, spec, shape, digest)
    if not catalog.layers:
        raise CorruptStoreError(f"{path} names no layer")
    return catalog


def _check_rows(catalog: Catalog, path: Path) -> None:
    if not len(catalog.path) == len(catalog.split) == len(catalog.label):
        raise CorruptStoreError(f"{path}: /path, /split and /label differ in length")
    if any(len(held) != len(catalog) for held in catalog.columns.values()):
        raise CorruptStoreError(f"{path}: a column of the manifest has another length")
    if not set(catalog.split) <= set(SPLITS):
        raise CorruptStoreError(f"{path}: unknown split {sorted(set(catalog.split) - set(SPLITS))}")
    if len(catalog) and not -1 <= catalog.label.min() <= catalog.label.max() < len(catalog.classes):
        raise CorruptStoreError(f"{path}: a label is outside the {len(catalog.classes)} classes")


def _parse_layer(
    file: h5py.File, catalog: Catalog, spec: Spec, shape: tuple[int, ...]
) -> LayerIndex:
    where = f"{_PRIVATE}/{spec.name}"
    shards = tuple(ShardInfo(**entry) for entry in _read_json(file, f"{where}/shards"))
    for shard in shards:
        _check_shard(shard, file.filename)
    held = sum(shard.rows for shard in shards)
    index = LayerIndex(
        spec=spec,
        shape=shape,
        shards=shards,
        image_sha256=_hdf5.plain(file, f"{where}/image_sha256", "S", held)[:].astype("S64"),
        view=_hdf5.plain(file, f"{where}/view", "u", held)[:].astype(np.uint8),
        position=_hdf5.plain(file, f"{where}/position", "i", len(catalog))[:].astype(np.int64),
    )
    if len(catalog) and not 0 <= index.position.min() <= index.position.max() < held:
        raise CorruptStoreError(f"{file.filename}: a row lies outside the shards of {spec.name}")
    same = np.array_equal(index.image_sha256[index.position], catalog.image_sha256)
    if not same or not np.array_equal(index.view[index.position], catalog.view):
        raise CorruptStoreError(f"{file.filename}: rows of {spec.name} point at other pictures")
    _check_virtual(file, index)
    return index


def _check_shard(shard: ShardInfo, where: str) -> None:
    """Refuse what would lead out of the folder, or make no sense."""
    if not NAME.fullmatch(shard.file) or not _SHA256.fullmatch(shard.sha256):
        raise CorruptStoreError(f"{where}: a shard is called {shard.file!r} ({shard.sha256!r})")
    if type(shard.rows) is not int or type(shard.bytes) is not int or shard.rows < 1:
        raise CorruptStoreError(f"{where}: {shard.file} has {shard.rows!r} rows")


def _check_virtual(file: h5py.File, index: LayerIndex) -> None:
    dataset = _hdf5.member(file, index.spec.name)
    if not dataset.is_virtual or dataset.shape != (len(index.position), *index.shape):
        raise CorruptStoreError(f"{file.filename}: /{index.spec.name} is not the layer's dataset")
    known = {(f"{SHARDS}/{shard.file}", DATASET) for shard in index.shards}
    foreign = {source[1:3] for source in dataset.virtual_sources()} - known
    if foreign:
        raise CorruptStoreError(
            f"{file.filename}: /{index.spec.name} points outside the store's shards "
            f"({min(foreign)!r}); that is refused"
        )


def _packed_layer(
    file: h5py.File, catalog: Catalog, spec: Spec, shape: tuple[int, ...], digest: str
) -> LayerIndex:
    dataset = _hdf5.features(file, spec.name, spec.dtype, len(catalog))
    if dataset.shape[1:] != shape:
        raise CorruptStoreError(f"{file.filename}: /{spec.name} has rows of {dataset.shape[1:]}")
    whole = ShardInfo("", digest, 0, len(catalog))
    position = np.arange(len(catalog), dtype=np.int64)
    return LayerIndex(spec, shape, (whole,), catalog.image_sha256, catalog.view, position)


def sort_left_out(rows: Sequence[LeftOut]) -> tuple[LeftOut, ...]:
    """Return the ledger in the order of the paths, each entry once."""
    return tuple(sorted(set(rows)))
