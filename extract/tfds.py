"""A dataset by its name in TensorFlow Datasets; pictures are read inside its record files."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart._keras import import_tensorflow
from headstart.cache import LeftOut
from headstart.cache.urls import one_line
from headstart.errors import DataError, DataNotFoundError, MissingExtraError, install
from headstart.extract.archive import Archive, Member
from headstart.extract.picture import SPLITS, Dataset, Entry, make_dataset
from headstart.extract.places import MAX_AWAY_BYTES
from headstart.extract.url import KEPT_BYTES, Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "tfds:"
_NAME = re.compile(r"tfds:([\w-]+(?:/[\w.\-]+)?(?::[\d.*]+)?)(?:@(.+))?")
_HEAD = struct.Struct("<QI")  # of a record: its length, and a checksum of that
_TAIL = 4  # bytes of its own checksum, behind it
_DTYPES = ("uint8", "uint16")


def is_tfds(data: object) -> bool:
    """Tell whether a dataset is named as TensorFlow Datasets do."""
    return isinstance(data, str) and data.startswith(PREFIX)


def list_tfds(name: str) -> Dataset:
    """List the pictures of a dataset of TensorFlow Datasets, which is fetched if need be.

    A path is the ``tfds_id`` of its example. Bytes are the encoded picture's, as stored. Splits
    are the dataset's own; those that mean none of train, validation and test are left out unless
    they are named.

    Parameters
    ----------
    name
        ``tfds:NAME``, ``tfds:NAME/CONFIG`` or ``tfds:NAME:VERSION``; after an ``@`` the splits
        to take, ``train,test`` or ``train[:10%]``. It lies where TensorFlow Datasets keep it:
        ``TFDS_DATA_DIR``, else a folder in the user's home.

    Raises
    ------
    MissingExtraError
        If tensorflow-datasets is not installed.
    DataNotFoundError
        If there is no such dataset, or it cannot be fetched.
    DataError
        If an example of it is not one encoded picture, or it is not stored as TFRecord.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name}: expected tfds:NAME, tfds:NAME/CONFIG, or either with @SPLIT")
    with contextlib.redirect_stdout(sys.stderr):  # it prints notes; stdout is for answers
        info = _info(name, match[1])
        found = _Found(name, *_keys(name, info))
        for split, text in _splits(name, info, match[2], found.left_out):
            for part in _instructions(name, info, text):
                found.scan(part, SPLITS.get(split.lower(), ""))
    if not found.entries:
        raise DataError(f"no pictures in {name} ({len(found.left_out)} left out)")
    return make_dataset(name, found.entries.values(), found.left_out, 0)


def _info(name: str, dataset: str) -> Any:
    """Return what TensorFlow Datasets know of a dataset that is on this machine."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise MissingExtraError(f"{name} needs TensorFlow Datasets; {install('tfds')}") from error
    try:
        builder = _prepared(tfds, dataset)
    except Exception as error:
        raise DataNotFoundError(
            f"{name} cannot be had from TensorFlow Datasets: {one_line(error)}"
        ) from error
    if builder.info.file_format.value != "tfrecord":
        raise DataError(
            f"{name} is stored as {builder.info.file_format.value}; expected tfrecord: prepare it "
            "so, in another TFDS_DATA_DIR"
        )
    return builder.info


def _prepared(tfds: Any, dataset: str) -> Any:
    """Return a dataset's builder, after fetching it if nobody has."""
    where = os.environ.get("TFDS_DATA_DIR")
    builder = tfds.builder(dataset, data_dir=where)
    if builder.is_prepared():
        return builder
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder.download_and_prepare()
    except Exception:
        builder = tfds.builder(dataset, data_dir=where)
        if not builder.is_prepared():  # nor has another job put it there meanwhile
            raise
    return builder


def _keys(name: str, info: Any) -> tuple[str, str, tuple[str, ...]]:
    """Return an example's keys of picture and label ("" for none), and the classes' names."""
    from tensorflow_datasets import features as kinds

    if not isinstance(info.features, kinds.FeaturesDict):
        raise DataError(f"{name} has examples without names: expected a picture and a label")
    features = dict(sorted(info.features.items()))
    told = info.supervised_keys or ("", "")
    images = [
        key
        for key, kind in features.items()
        if isinstance(kind, kinds.Image) and not isinstance(kind, kinds.LabeledImage)
    ]
    labels = [key for key, kind in features.items() if isinstance(kind, kinds.ClassLabel)]
    image = _one(name, "encoded picture", images, told[0], features)
    dtype = np.dtype(features[image].np_dtype).name
    if dtype not in _DTYPES:
        raise DataError(f"{name}: {image} is of {dtype}; expected {' or '.join(_DTYPES)}")
    if not labels:
        return image, "", ()
    label = _one(name, "class label", labels, told[1], features)
    return image, label, tuple(map(str, features[label].names))


def _one(name: str, what: str, keys: list[str], told: Any, features: dict[str, Any]) -> str:
    if told in keys:
        return str(told)
    if len(keys) == 1:
        return keys[0]
    found = ", ".join(keys) or f"none among {', '.join(features)}"
    raise DataError(f"{name}: expected one {what} in an example; found {found}")


def _splits(
    name: str, info: Any, asked: str | None, left_out: list[LeftOut]
) -> Iterator[tuple[str, str]]:
    """Yield the name of each split to take, and what is asked of it."""
    if asked is not None:
        for text in asked.split(","):
            split = text.partition("[")[0]
            if split not in info.splits or "+" in text:
                raise DataError(
                    f"{name}: there is no split {text!r}; there are {', '.join(info.splits)}, and "
                    "parts such as train[:10%]"
                )
            yield split, text
        return
    known = [split for split in info.splits if split.lower() in SPLITS]
    for split in info.splits:
        if split in known or not known:
            yield split, split
        else:
            left_out.append(LeftOut(split, f"a split of another kind; name it: {name}@{split}"))


def _instructions(name: str, info: Any, text: str) -> list[Any]:
    """Return the record files of a split, with the examples to skip and to take in each."""
    try:
        return list(info.splits[text].file_instructions)
    except Exception as error:
        raise DataError(f"{name}: {text!r} is no part of a split: {one_line(error)}") from error


@dataclass
class _Found:
    """What record files hold."""

    name: str
    image: str
    label: str
    classes: tuple[str, ...]
    entries: dict[str, Entry] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    kept: Kept = field(default_factory=lambda: Kept(KEPT_BYTES))

    def scan(self, part: Any, split: str) -> None:
        """Add the pictures of a file; of a damaged one, those before the damage."""
        archive, file = Archive(str(part.filename), self.kept), Path(part.filename).name
        end = part.examples_in_shard if part.take < 0 else part.skip + part.take
        count = 0
        try:
            for offset, record in itertools.islice(_records(archive), end):
                if count >= part.skip:
                    self._take(archive, f"{file}__{count}", offset, record, split)
                count += 1
        except OSError as error:
            self.left_out.append(LeftOut(file, f"damaged records: {one_line(error)}"))
            return
        if count < end:
            self.left_out.append(LeftOut(file, f"{count} records; expected {end}"))

    def _take(self, archive: Archive, path: str, offset: int, record: bytes, split: str) -> None:
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            features = tf_example_pb2.Example.FromString(record).features.feature
            (data,) = features[self.image].bytes_list.value
            number = features[self.label].int64_list.value[0] if self.label else -1
            label = self.classes[number] if number >= 0 else ""
        except Exception:  # noqa: BLE001 - whatever a damaged message is taken for
            self.left_out.append(LeftOut(path, "no example with one picture and a known label"))
            return
        place = Member(archive, path, offset + record.index(data), len(data))
        self.entries.setdefault(path, Entry(path, place, label, split))


def _records(archive: Archive) -> Iterator[tuple[int, bytes]]:
    """Yield where each record begins, and its bytes; raise OSError where the file is damaged."""
    checked = _checked(archive.name)
    with archive.opened() as file:
        while head := file.read(_HEAD.size):
            offset = file.tell()
            length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else MAX_AWAY_BYTES + 1
            if length > MAX_AWAY_BYTES:
                raise OSError(f"no record at byte {offset - len(head)}")
            record = next(checked, b"")
            if len(record) != length:
                raise OSError(f"another file since, at byte {offset}")
            yield offset, record
            file.seek(offset + length + _TAIL)


def _checked(file: str) -> Iterator[bytes]:
    """Yield the records of a file whose checksums fit; raise OSError at one whose do not.

    `tf.data` would do that too, but takes the memory of a GPU, on which JAX or PyTorch may run.
    """
    tf = import_tensorflow()
    try:
        yield from tf.compat.v1.io.tf_record_iterator(file)
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
