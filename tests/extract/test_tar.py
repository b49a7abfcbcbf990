"""WebDataset's tar files: samples by key, read where they lie, and nothing hostile followed."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
import s3
from headstart.errors import DataError, DataNotFoundError, UnreadableImageError
from headstart.extract.dataset import list_dataset
from headstart.extract.hashing import read_file


def pack(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def kind(type_: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = type_, target
    return info


def web(pets: Path, folder: Path, tars: int = 2) -> None:
    """Pack pets as WebDataset does, in turn into each tar."""
    parts: list[dict[str, bytes]] = [{} for _ in range(tars)]
    for number, file in enumerate(sorted(pets.rglob("*.png"))):
        part = parts[number % tars]
        part[f"{number:06d}.png"] = file.read_bytes()
        part[f"{number:06d}.cls"] = file.parent.name.encode()
    for number, part in enumerate(parts):
        pack(folder / f"{number:05d}.tar", part)


def reasons(folder: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> dict[str, str]:
    good = {"good.png": b"picture", "good.cls": b"cat", "fine.png": b"else", "fine.cls": b"dog"}
    found = list_dataset(pack(folder / "x.tar", good | dict(members)))
    assert {"x.tar/good.png", "x.tar/fine.png"} <= {picture.path for picture in found.pictures}
    return {item.path: item.reason for item in found.left_out}


@pytest.mark.usefixtures("fake_base")
def test_tars_here_and_on_object_storage(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes and features are those of the folder that was packed."""
    web(pets, tmp_path)
    local = hs.extract(pets, tmp_path / "local", weights="random")
    rows = dict(zip(local.image_sha256(), local.features("mixed7"), strict=True))
    with s3.server(monkeypatch) as client:
        for file in tmp_path.glob("*.tar"):
            client.put_object(Bucket="pets", Key=f"web/{file.name}", Body=file.read_bytes())
        for data in (f"{tmp_path}/{{00000..00001}}.tar", "s3://pets/web/{00000..00001}.tar"):
            store = hs.extract(data, tmp_path / f"store{len(data)}", weights="random")
            assert store.classes == local.classes
            assert len(store) == len(local)
            assert store.paths()[0] == "00000.tar/000000.png"
            for digest, row in zip(store.image_sha256(), store.features("mixed7"), strict=True):
                np.testing.assert_array_equal(row, rows[digest])


def test_what_stands_beside_a_picture(tmp_path: Path) -> None:
    """``.cls``, else ``.json``, names the class; ``.json`` the split; ``.txt`` is a column."""
    about = json.dumps({"label": 3, "split": "val", "caption": "x"}).encode()
    path = pack(
        tmp_path / "a.tar",
        {
            "./in/1.jpg": b"1",
            "./in/1.json": about,
            "./in/1.txt": b"a dog\n",
            "2.jpg": b"2",
            "2.seg.png": b"3",
            "2.cls": b"7\n",
            "2.json": about,
            "3.jpg": b"4",
        },
    )
    found = list_dataset(path)
    assert found.columns == ("text",)
    assert [
        (p.path, p.label if p.label < 0 else found.classes[p.label], p.split, p.columns)
        for p in found.pictures
    ] == [
        ("a.tar/2.jpg", "7", "validation", ("",)),
        ("a.tar/2.seg.png", "7", "validation", ("",)),
        ("a.tar/3.jpg", -1, "", ("",)),
        ("a.tar/in/1.jpg", "3", "validation", ("a dog",)),
    ]
    assert [read_file(p.file) for p in found.pictures] == [b"2", b"3", b"4", b"1"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("/etc/passwd.png", b"x", "name leads outside the tar"),
        ("../../x.png", b"x", "name leads outside the tar"),
        ("a/../x.png", b"x", "name leads outside the tar"),
        ("link.png", kind(tarfile.SYMTYPE, "/etc/passwd"), "a link in a tar is not followed"),
        ("hard.png", kind(tarfile.LNKTYPE, "good.png"), "a link in a tar is not followed"),
        ("pipe.png", kind(tarfile.FIFOTYPE), "not a regular file"),
        ("device.png", kind(tarfile.CHRTYPE), "not a regular file"),
        ("a\udcff.png", b"x", "name is not valid Unicode"),
    ],
)
def test_hostile_members_are_left_out(
    tmp_path: Path, name: str, content: bytes | tarfile.TarInfo, reason: str
) -> None:
    assert list(reasons(tmp_path, {name: content}).values()) == [reason]


@pytest.mark.parametrize(
    "sidecar",
    [{"1.json": b"["}, {"1.json": b"[" * 100_000}, {"1.json": b"[]"}, {"1.cls": b"\xff"}],
)
def test_a_label_that_cannot_be_read(tmp_path: Path, sidecar: dict[str, bytes]) -> None:
    """Its picture is left out, never used without its label."""
    found = reasons(tmp_path, {"1.png": b"x", **sidecar})
    assert list(found) == ["x.tar/1.png"]
    assert "cannot be read" in found["x.tar/1.png"]


def huge(info: tarfile.TarInfo, size: int) -> bytes:
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _member(name: str) -> bytes:
    return huge(tarfile.TarInfo(name), 1 << 40)


def _long_name() -> bytes:
    return huge(kind(tarfile.GNUTYPE_LONGNAME), 1 << 30) + bytes(1 << 26)


def _extended() -> bytes:
    return huge(kind(tarfile.XHDTYPE), 1 << 30) + bytes(1 << 26)


def _chain() -> bytes:
    return (huge(kind(tarfile.GNUTYPE_LONGNAME), 1) + b"x".ljust(512, b"\0")) * 20_000


@pytest.mark.parametrize(
    "tail",
    [
        lambda: _member("big.png"),
        lambda: _member("big.json"),
        _long_name,
        _extended,
        _chain,
        lambda: b"no header".ljust(512, b"x"),
        lambda: tarfile.TarInfo("cut.png").tobuf()[:100],
    ],
)
def test_giant_sizes_and_damage(tmp_path: Path, tail: Callable[[], bytes]) -> None:
    """What lies before them is used, the rest is in the ledger, and memory stays small."""
    path = pack(tmp_path / "x.tar", {"1.png": b"1", "1.cls": b"a", "2.png": b"2", "2.cls": b"b"})
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole.ljust(-(-len(whole) // 512) * 512, b"\0") + tail())
    tracemalloc.start()
    try:
        found = list_dataset(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [picture.path for picture in found.pictures] == ["x.tar/1.png", "x.tar/2.png"]
    assert found.left_out
    assert peak < 20_000_000


def test_a_tar_cut_after_it_was_listed(tmp_path: Path) -> None:
    """A member that is not there as a whole is no picture."""
    path = pack(tmp_path / "x.tar", {"1.png": b"1" * 2000, "2.png": b"2"})
    (first, _) = list_dataset(path).pictures
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnreadableImageError, match="ends within it"):
        read_file(first.file)
    path.unlink()
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        read_file(first.file)


def test_refusals(tmp_path: Path) -> None:
    """A missing file, an empty tar, one class only and a silly range are errors that say so."""
    with pytest.raises(DataNotFoundError, match=r"cannot read .*00001\.tar"):
        list_dataset(pack(tmp_path / "00000.tar", {"a.png": b"x"}).parent / "{00000..00001}.tar")
    with pytest.raises(DataError, match="no pictures in"):
        list_dataset(pack(tmp_path / "empty.tar", {}))
    with pytest.raises(DataError, match="one class only"):
        list_dataset(pack(tmp_path / "one.tar", {"a.png": b"x", "a.cls": b"cat"}))
    with pytest.raises(DataError, match="range of 1 to"):
        list_dataset(tmp_path / "{0..999999}.tar")


def test_one_name_twice(tmp_path: Path) -> None:
    """The first member of a name is taken, as no two rows have one path."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for content in (b"1", b"2"):
            info = tarfile.TarInfo("a.png")
            info.size = 1
            archive.addfile(info, io.BytesIO(content))
            archive.addfile(tarfile.TarInfo("between.x"))
    found = list_dataset(path)
    assert [read_file(picture.file) for picture in found.pictures] == [b"1"]
    assert [item.path for item in found.left_out] == ["x.tar/a.png"]
