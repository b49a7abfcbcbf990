"""A dataset from WebDataset's tar files: members of one key are one sample; none is unpacked."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from headstart.cache import LeftOut
from headstart.cache.urls import is_url
from headstart.errors import DataError, DataNotFoundError
from headstart.extract.archive import Archive, Member
from headstart.extract.folders import is_litter, is_picture
from headstart.extract.picture import SPLITS, Dataset, Entry, is_unicode, make_dataset, printable
from headstart.extract.places import MAX_AWAY_BYTES
from headstart.extract.url import KEPT_BYTES, Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_TARS = 100_000
_MAX_HEADER = 1 << 16  # of a long name or of extended fields: a tar may declare any size
_MAX_SIDECAR = 1 << 20
_LABELS = ("label", "cls", "class")
_SIDECARS = frozenset({"cls", "json", "txt"})
_BROKEN = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, RecursionError)


def is_tar(data: object) -> bool:
    """Tell whether a dataset is named as a tar file, or as a row of them."""
    named = isinstance(data, str | os.PathLike) and str(data).lower().endswith(".tar")
    return named and (is_url(data) or not Path(str(data)).is_dir())


def list_tars(pattern: str) -> Dataset:
    """List the pictures in tar files, reading their headers and the small members beside them.

    The class of a sample is its ``.cls`` member, or ``label`` (``cls``, ``class``) of its
    ``.json``; ``split`` of its ``.json`` is its split, its ``.txt`` the column ``text``. What is
    no regular file, or has a name that would lead elsewhere were it unpacked, is left out.

    Parameters
    ----------
    pattern
        A path or URL that ends in ``.tar``; ``{00000..00012}`` in it stands for each number.

    Raises
    ------
    DataNotFoundError
        If one of the files cannot be read.
    DataError
        If no picture is in them, or one class only.
    """
    start = len(pattern.partition("{")[0].rpartition("/")[0])
    found = _Found()
    kept = Kept(KEPT_BYTES)
    for name in _expanded(pattern):
        _scan(Archive(name, kept), name[start:].lstrip("/"), found)
    if not found.entries:
        first = f"; the first, {found.left_out[0]}" if found.left_out else ""
        raise DataError(
            f"no pictures in {pattern} ({len(found.left_out)} left out{first}); expected a tar "
            "with members such as 0001.jpg and 0001.cls"
        )
    columns = ("text",) if any(entry.columns[0] for entry in found.entries.values()) else ()
    entries = [
        entry if columns else dataclasses.replace(entry, columns=())
        for entry in found.entries.values()
    ]
    root = pattern if is_url(pattern) else Path(pattern)
    listed = make_dataset(root, entries, found.left_out, found.other_files)
    return dataclasses.replace(listed, columns=columns)


@dataclass
class _Found:
    entries: dict[str, Entry] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    other_files: int = 0

    def leave_out(self, name: str, reason: str) -> None:
        self.left_out.append(LeftOut(printable(name), reason))


@dataclass
class _Sample:
    """What consecutive members of one key say."""

    key: str
    pictures: list[tuple[str, Member]] = field(default_factory=list)
    label: str = ""
    split: str = ""
    text: str = ""
    trouble: str = ""

    def into(self, found: _Found) -> None:
        for name, member in self.pictures:
            if self.trouble:
                found.leave_out(name, self.trouble)
            elif name in found.entries:
                found.leave_out(name, "another member before it has the same name")
            else:
                found.entries[name] = Entry(name, member, self.label, self.split, (self.text,))


class _Headers(io.RawIOBase):
    """A file for a reader of headers, which never needs much at once, whatever they declare."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes, over the limit of {_MAX_HEADER}")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _expanded(pattern: str) -> list[str]:
    """Return the name for each number of the first range, and so on for the others."""
    names, done = [pattern], False
    while not done:
        done = True
        for place, name in enumerate(names):
            match = _RANGE.search(name)
            if match is None:
                continue
            first, last = match.groups()
            count = int(last) - int(first) + 1
            if not 1 <= count <= _MAX_TARS - len(names) + 1:
                raise DataError(f"{pattern}: expected a range of 1 to {_MAX_TARS} numbers")
            head, tail, width = name[: match.start()], name[match.end() :], len(first)
            names[place : place + 1] = [
                f"{head}{number:0{width}d}{tail}" for number in range(int(first), int(last) + 1)
            ]
            done = False
            break
    return names


def _scan(tar: Archive, shown: str, found: _Found) -> None:
    """Add a tar's pictures to what was found; a damaged one's up to the damage."""
    try:
        with tar.opened() as file:
            try:
                _Scan(tar, shown, found, file).run()
            except _BROKEN as error:
                found.leave_out(shown, f"damaged tar: {' '.join(str(error).split())[:120]}")
    except DataError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise DataNotFoundError(f"cannot read {tar.name}: {reason}") from error


@dataclass
class _Scan:
    """One walk through the members of a tar, from the first to the last."""

    tar: Archive
    shown: str
    found: _Found
    file: IO[bytes]

    def run(self) -> None:
        sample = _Sample("")
        try:
            for member in _members(self.file):
                key, extension = _key(member.name)
                if key != sample.key:
                    sample.into(self.found)
                    sample = _Sample(key)
                self._take(member, extension, sample)
        finally:
            sample.into(self.found)

    def _take(self, member: tarfile.TarInfo, extension: str, sample: _Sample) -> None:
        base = member.name.removeprefix("./")
        name = f"{self.shown}/{base}"
        if member.isdir() or any(map(is_litter, base.split("/"))):
            if ".." in base.split("/"):
                self.found.leave_out(name, "name leads outside the tar")
        elif is_picture(base):
            reason = _why_unusable(member)
            if reason:
                self.found.leave_out(name, reason)
            else:
                place = Member(self.tar, member.name, member.offset_data, member.size)
                sample.pictures.append((name, place))
        elif extension in _SIDECARS and member.isreg() and not member.issparse():
            _read_sidecar(self.file, member, extension, sample)
        else:
            self.found.other_files += 1


def _members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield a tar's members, holding one at a time."""
    with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:
        last = -1
        while (member := archive.next()) is not None:
            if member.size < 0 or member.offset <= last:
                raise tarfile.ReadError("a member of negative size")
            last = member.offset
            yield member
            archive.members.clear()  # type: ignore[attr-defined]
            archive.pax_headers.clear()  # type: ignore[attr-defined]
        end = archive.offset
    file.seek(end)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"no header at byte {end}")


def _key(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _why_unusable(member: tarfile.TarInfo) -> str:
    if not is_unicode(member.name):
        return "name is not valid Unicode"
    if not {"", ".", ".."}.isdisjoint(member.name.removeprefix("./").split("/")):
        return "name leads outside the tar"
    if member.issym() or member.islnk():
        return "a link in a tar is not followed"
    if not member.isreg() or member.issparse():
        return "not a regular file"
    if member.size > MAX_AWAY_BYTES:
        limit = f"over the limit of {MAX_AWAY_BYTES / 1e6:.0f} in a tar"
        return f"{member.size / 1e6:.0f} megabytes, {limit}"
    return ""


def _read_sidecar(
    file: IO[bytes], member: tarfile.TarInfo, extension: str, sample: _Sample
) -> None:
    if member.size > _MAX_SIDECAR:
        sample.trouble = (
            f"its .{extension} has {member.size} bytes; expected {_MAX_SIDECAR} at most"
        )
        return
    file.seek(member.offset_data)
    try:
        text = file.read(member.size).decode("utf-8-sig").strip().replace("\0", "")
        if extension == "cls":
            sample.label = text
        elif extension == "txt":
            sample.text = text
        else:
            _read_json(json.loads(text), sample)
    except (ValueError, RecursionError):
        sample.trouble = f"its .{extension} cannot be read"


def _read_json(content: Any, sample: _Sample) -> None:
    if not isinstance(content, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - read as any other unreadable text
    labels = [content[name] for name in _LABELS if name in content]
    if labels and isinstance(labels[0], str | int):
        sample.label = sample.label or str(labels[0]).strip()
    split = content.get("split")
    sample.split = SPLITS.get(split.strip().lower(), "") if isinstance(split, str) else ""
