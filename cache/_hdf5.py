"""HDF5 in memory for writing, and with suspicion for reading."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import threading
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from zlib_ng import zlib_ng

from headstart.cache import _files
from headstart.errors import CorruptStoreError, HeadstartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

_DEFLATE = 1
_ALLOWED_FILTERS = {_DEFLATE, 2, 3, 32000}  # and shuffle, fletcher32, lzf
#: A dataset of which more than this share of rows is asked for is read whole by HDF5.
_WHOLE_SHARE = 0.25
_CHUNK_BYTES = 64 << 10
_MAX_CHUNK_BYTES = 1 << 30
_MAX_RATIO = 1100  # no filter makes more of a byte: deflate at its best gives 1032
#: The machine's trouble and not the file's.
_BUSY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
#: What h5py answers to files that no Headstart wrote.
_DOUBTS = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
)
#: Old enough for any HDF5 1.10, new enough for many classes in one attribute.
LIBVER = ("v108", "v110")


_building = threading.Lock()


def build(fill: Callable[[h5py.File], None]) -> bytes:
    """Return the bytes of an HDF5 file made by `fill`, without touching a disk.

    The file is written with one plain write afterwards, so that a full disk is an
    OSError of ours and never a failure inside the HDF5 library. The same content gives the same
    bytes, whenever it is written: no time of its own is in it. One thread at a time builds: what
    HDF5 closes together with a file in memory may be another thread's.
    """
    with _building:
        return _built(fill)


def _built(fill: Callable[[h5py.File], None]) -> bytes:
    buffer = io.BytesIO()
    access, creation = h5py.h5p.create(h5py.h5p.FILE_ACCESS), h5py.h5p.create(h5py.h5p.FILE_CREATE)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, buffer)
    creation.set_obj_track_times(False)  # of the root group: h5py.File cannot be told
    flags = h5py.h5f.ACC_TRUNC
    with h5py.File(h5py.h5f.create(b"shard", flags, creation, access)) as file:
        fill(file)
    return buffer.getvalue()


class Sink:
    """A file for HDF5 to write to, which never tells HDF5 that a write failed.

    A write that fails inside the library leaves it with a file it can neither use nor close,
    and takes the process down at exit. What the disk refuses is held in memory instead; the
    error waits for `check`. For a thread of its own: a KeyboardInterrupt inside would do the
    same harm, and only the main thread gets one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = self._end = 0
        self._error: OSError | None = None
        self._refused: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise what the disk said, if it refused a write."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; called by HDF5."""
        self._position = offset + (self._end if whence == os.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        """Return the position; called by HDF5."""
        return self._position

    def write(self, data: memoryview) -> int:
        """Write at the position; called by HDF5."""
        content = bytes(data)
        try:
            self.check()
            self._file.seek(self._position)
            written = 0
            while written < len(content):
                written += self._file.write(content[written:])
        except OSError as error:
            self._error = error
            self._refused.append((self._position, content))
        self._position += len(content)
        self._end = max(self._end, self._position)
        return len(content)

    def read(self, size: int) -> bytes:
        """Return what was written at the position, be it on the disk or not."""
        self._file.seek(self._position)
        found = bytearray(self._file.read(size).ljust(size, b"\0"))
        for start, content in self._refused:
            first, last = (
                max(start, self._position),
                min(start + len(content), self._position + size),
            )
            if first < last:
                part = slice(first - self._position, last - self._position)
                found[part] = content[first - start : last - start]
        self._position += size
        return bytes(found)

    def readinto(self, buffer: memoryview) -> int:
        """Read at the position; called by HDF5."""
        buffer[:] = self.read(len(buffer))
        return len(buffer)

    def truncate(self, size: int) -> int:
        """Note where the file ends; called by HDF5."""
        self._end = size
        return size

    def flush(self) -> None:
        """Do nothing; called by HDF5."""


@contextlib.contextmanager
def reading(path: Path, sha256: str) -> Iterator[h5py.File]:
    """Open a file whose seal was checked and promised `sha256` of its body.

    Raises
    ------
    ReplacedError
        If it is not that file any more.
    CorruptStoreError
        For all that HDF5 has to say against its content.
    """
    try:
        with _open(path) as file:
            if _files.parse_seal(_files.seal_of(file.id.get_vfd_handle()), path) != sha256:
                raise ReplacedError(f"{path} was replaced while it was read; open it again")
            yield file
    except _DOUBTS as error:
        busy = isinstance(error, OSError) and error.errno in _BUSY
        if busy or isinstance(error, HeadstartError):
            raise
        raise CorruptStoreError(f"{path} cannot be read as HDF5: {error}") from error


def _open(path: Path) -> h5py.File:
    """Open for reading as most people do, else in whatever way HDF5 lets us.

    HDF5 opens no file twice in a process under different locking; of a source of a virtual
    dataset it then serves fill values, silently. So ours is its default, and where a reader in
    this process has chosen another, or a lock cannot be had, the others follow: published files
    never change, so nothing rests on the lock.
    """
    for locking in (None, True):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "lock" not in str(error):
                raise
    return h5py.File(path, "r", locking=False)


class ReplacedError(CorruptStoreError):
    """Another process published a new file under this name meanwhile."""


def chunk_rows(row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return how many rows share a chunk: one map, or many pooled vectors (64 KiB)."""
    return max(1, _CHUNK_BYTES // max(1, math.prod(row_shape) * dtype.itemsize))


def write_features(
    file: h5py.File, name: str, features: NDArray[Any], packed: Sequence[bytes] = ()
) -> None:
    """Add a dataset of features, ``(rows, ...)``, chunked by rows.

    `packed` are its first chunks, as `pack_chunks` made them, if it did.
    """
    does = bool(packed) or packs(features)
    dataset = create_features(file, name, features.shape, features.dtype, packed=does)
    write_rows(dataset, 0, features, packed)


def create_features(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, packed: bool
) -> h5py.Dataset:
    """Add a dataset of features, chunked by rows, for `write_rows` to fill.

    Damage shows to any reader: deflate carries a checksum of what was packed, and what is not
    packed has one of HDF5's.
    """
    chunks = (min(shape[0], chunk_rows(shape[1:], dtype)), *shape[1:])
    filters = {"compression": "gzip", "compression_opts": 1} if packed else {"fletcher32": True}
    dataset: h5py.Dataset = file.create_dataset(name, shape, dtype, chunks=chunks, **filters)
    return dataset


def pack_chunks(features: NDArray[Any], done: int) -> list[bytes]:
    """Return the complete chunks of maps, packed, but for the first `done`; more rows may follow.

    None of vectors, of which the whole dataset says whether they are packed.
    """
    if features.ndim <= 2:
        return []
    step = chunk_rows(features.shape[1:], features.dtype)
    starts = range(done * step, len(features) - step + 1, step)
    return [_packed(features[start : start + step]) for start in starts]


def write_rows(
    dataset: h5py.Dataset, first: int, features: NDArray[Any], packed: Sequence[bytes] = ()
) -> None:
    """Write rows from `first` on, where a chunk begins, to the end of a chunk or of the dataset.

    `packed` are the first of these chunks, if they are packed already.
    """
    if dataset.compression is None:
        dataset[first : first + len(features)] = features
        return
    step, rest = dataset.chunks[0], (0,) * (features.ndim - 1)
    for number, data in enumerate(packed):
        dataset.id.write_direct_chunk((first + number * step, *rest), data)
    for start in range(len(packed) * step, len(features), step):
        chunk = features[start : start + step]
        if len(chunk) < step:  # HDF5 keeps whole chunks, also at the end
            chunk = np.concatenate(
                [chunk, np.zeros((step - len(chunk), *chunk.shape[1:]), chunk.dtype)]
            )
        dataset.id.write_direct_chunk((first + start, *rest), _packed(chunk))


def _packed(chunk: NDArray[Any]) -> bytes:
    """Deflate a chunk by runs of equal bytes alone, for features are zeros for the most part.

    HDF5's own way of writing looks for everything else that repeats: twice as slow, larger, and
    slower to read.
    """
    packer = zlib_ng.compressobj(1, strategy=zlib_ng.Z_RLE)
    return packer.compress(np.ascontiguousarray(chunk).data) + packer.flush()


def packs(features: NDArray[Any]) -> bool:
    """Tell whether packing is worth its time: for maps, and for vectors that are mostly zeros.

    Zeros by their bits: numpy takes twenty times as long to look at float16 numbers.
    """
    if features.ndim > 2:
        return True
    bits = features.view(f"u{features.itemsize}")
    return 2 * int(np.count_nonzero(bits << bits.dtype.type(1))) < features.size  # -0 is one too


def write_strings(file: h5py.Group, name: str, values: list[str]) -> None:
    """Add an ``(N,)`` dataset of UTF-8 strings of fixed length: no heap, no objects."""
    encoded = [value.encode() for value in values]
    length = max(map(len, encoded), default=0) or 1
    dtype = h5py.string_dtype("utf-8", length)
    file.create_dataset(name, data=np.array(encoded, dtype=dtype))


def strings(file: h5py.File, name: str) -> list[str]:
    """Read what `write_strings` wrote."""
    try:
        return [value.decode() for value in plain(file, name, "S")[:].tolist()]
    except UnicodeDecodeError as error:
        raise CorruptStoreError(f"{file.filename}: /{name} is not UTF-8 text: {error}") from error


def member(file: h5py.File, name: str) -> h5py.Dataset:
    """Return the dataset `name`, reached by hard links alone and stored in this very file.

    Raises
    ------
    CorruptStoreError
        If it is missing, or is reached through a soft or external link, keeps its bytes
        in another file, or holds objects.
    """
    where = f"{file.filename}: /{name}"
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:depth]), getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise CorruptStoreError(f"{where} is missing or a link; expected a dataset")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise CorruptStoreError(f"{where} is a {type(dataset).__name__}; expected a dataset")
    if dataset.id.get_create_plist().get_external_count():
        raise CorruptStoreError(f"{where} keeps its bytes in another file; that is refused")
    if dataset.dtype.hasobject:
        raise CorruptStoreError(f"{where} holds objects ({dataset.dtype}); that is refused")
    return dataset


def plain(file: h5py.File, name: str, kind: str, length: int | None = None) -> h5py.Dataset:
    """Return a one-dimensional dataset of dtype kind `kind` whose bytes are all in the file."""
    dataset = member(file, name)
    where = f"{file.filename}: /{name}"
    if dataset.is_virtual or dataset.ndim != 1 or dataset.dtype.kind != kind:
        raise CorruptStoreError(
            f"{where} has shape {dataset.shape}, dtype {dataset.dtype}; expected (N,) of {kind!r}"
        )
    if length is not None and len(dataset) != length:
        raise CorruptStoreError(f"{where} has {len(dataset)} rows; expected {length}")
    stored, declared = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    if dataset.chunks is not None or stored != declared or declared > _size(file):
        raise CorruptStoreError(f"{where} declares {dataset.size} values the file does not hold")
    return dataset


def features(file: h5py.File, name: str, dtype: str, rows: int) -> h5py.Dataset:
    """Return a feature dataset, checked: dtype, rows, filters, every chunk present."""
    dataset = member(file, name)
    where = f"{file.filename}: /{name}"
    if dataset.dtype != np.dtype(dtype) or dataset.ndim < 2 or len(dataset) != rows:
        raise CorruptStoreError(
            f"{where} has shape {dataset.shape}, dtype {dataset.dtype}; "
            f"expected {rows} rows of {dtype}"
        )
    if dataset.is_virtual or dataset.chunks is None or dataset.chunks[1:] != dataset.shape[1:]:
        raise CorruptStoreError(f"{where} is not chunked by rows")
    if math.prod(dataset.chunks) * dataset.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise CorruptStoreError(f"{where} has chunks of {dataset.chunks}; that is refused")
    used = _filters(dataset)
    if not set(used) <= _ALLOWED_FILTERS or len(set(used)) < len(used):
        raise CorruptStoreError(f"{where} needs the filters {used}; that is refused")
    stored, declared = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    held = stored <= _size(file) and declared <= stored * _MAX_RATIO
    if not held or dataset.id.get_num_chunks() != math.ceil(rows / dataset.chunks[0]):
        raise CorruptStoreError(f"{where} declares {rows} rows the file does not hold")
    return dataset


def read_rows(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return sorted rows ``(r, ...)`` of a dataset that `features` has checked.

    What is deflated is inflated here, by zlib-ng: in 0.7 to 0.8 of the time that HDF5 takes with
    zlib, and a row alone costs what it costs among others.
    """
    if _filters(dataset) == [_DEFLATE]:
        return _inflated_rows(dataset, rows)
    first, last = int(rows[0]), int(rows[-1]) + 1
    if len(rows) >= _WHOLE_SHARE * (last - first):
        span: NDArray[Any] = np.asarray(dataset[first:last])
        whole = len(span) == len(rows) and bool((np.diff(rows) == 1).all())
        return span if whole else span[rows - first]
    return np.stack([dataset[int(row)] for row in rows])


def _inflated_rows(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray[Any]:
    chunks, dtype, source = dataset.chunks, dataset.dtype, dataset.id  # h5py asks HDF5 each time
    result = np.empty((len(rows), *dataset.shape[1:]), dtype)
    step, size = chunks[0], math.prod(chunks) * dtype.itemsize
    corner = (0,) * (len(chunks) - 1)
    numbers, starts = np.unique(rows // step, return_index=True)
    firsts, starts = (numbers * step).tolist(), starts.tolist()
    for row, first, last in zip(firsts, starts, [*starts[1:], len(rows)], strict=True):
        chunk = np.frombuffer(_inflated(source, (row, *corner), size), dtype).reshape(chunks)
        if step == 1:
            result[first:last] = chunk
        else:
            np.take(chunk, rows[first:last] - row, 0, result[first:last], "clip")
    return result


def _inflated(source: h5py.h5d.DatasetID, corner: tuple[int, ...], size: int) -> bytes:
    """Return the `size` bytes of the chunk at `corner`."""
    data: bytes
    skipped, data = source.read_direct_chunk(corner)
    whole = True
    if not skipped & 1:
        unpacker = zlib_ng.decompressobj()
        try:
            data = unpacker.decompress(data, size + 1)  # never more, whatever it would become
        except zlib_ng.error as error:  # type: ignore[misc]  # the stub calls the class an instance
            raise ValueError(f"the chunk of row {corner[0]} cannot be inflated: {error}") from error
        whole = unpacker.eof
    if len(data) != size or not whole:
        raise ValueError(f"the chunk of row {corner[0]} has not the {size} bytes of its shape")
    return data


def _filters(dataset: h5py.Dataset) -> list[int]:
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]


def _size(file: h5py.File) -> int:
    return os.fstat(file.id.get_vfd_handle()).st_size
