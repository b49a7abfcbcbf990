"""Datasets: what is listed, what is left out and why, and splits that never move."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from headstart.cache import LeftOut
from headstart.errors import (
    DataError,
    DataNotFoundError,
    MissingExtraError,
    UnreadableImageError,
)
from headstart.extract import dataset as module
from headstart.extract.dataset import (
    Dataset,
    Picture,
    conflicts,
    hash_files,
    list_dataset,
    read_file,
    split_by_content,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


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


# --- folders -------------------------------------------------------------------------------------


def test_a_class_folder(tmp_path: Path) -> None:
    """Classes are the subfolders, nested folders belong to them, and the order is the paths'."""
    fill(tmp_path, "dog/z.png", "dog/a.JPG", "cat/old/2019/b.jpeg", "cat/c.webp")
    found = list_dataset(tmp_path)
    assert found.root == tmp_path
    assert found.classes == ("cat", "dog")
    assert paths(found) == ["cat/c.webp", "cat/old/2019/b.jpeg", "dog/a.JPG", "dog/z.png"]
    assert [picture.label for picture in found.pictures] == [0, 0, 1, 1]
    assert {picture.split for picture in found.pictures} == {""}
    assert found.pictures[0].file == tmp_path / "cat/c.webp"
    assert found.left_out == ()


def test_only_pictures_count(tmp_path: Path) -> None:
    """Hidden files and systems' litter are not there at all; others are counted, not listed."""
    good = [f"cat/{i}{ext}" for i, ext in enumerate(sorted(module.EXTENSIONS))]
    fill(tmp_path, *good, "dog/UPPER.TIFF")
    fill(tmp_path, "cat/.hidden.png", "cat/._1.png", "cat/Thumbs.db", "cat/desktop.ini")
    fill(tmp_path, ".git/x.png", "__MACOSX/cat/1.png", "dog/@eaDir/UPPER.TIFF/thumb.jpg")
    fill(tmp_path, "cat/notes.txt", "README.md", "dog/no extension", "dog/png")
    found = list_dataset(tmp_path)
    assert paths(found) == sorted([*good, "dog/UPPER.TIFF"])
    assert found.other_files == 4
    assert found.left_out == ()


def test_folders_with_splits(tmp_path: Path) -> None:
    """train, validation or val, and test hold class folders; `val` is validation's short name."""
    fill(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "test/bird/3.png")
    fill(tmp_path, ".cache/x.png", "README.md")
    found = list_dataset(tmp_path)
    assert found.classes == ("bird", "cat", "dog")
    assert named(found) == {
        "test/bird/3.png": ("bird", "test"),
        "train/cat/1.png": ("cat", "train"),
        "train/dog/1.png": ("dog", "train"),
        "val/cat/2.png": ("cat", "validation"),
    }


@pytest.mark.parametrize("other", ["bus", "validation2"])
def test_a_class_may_be_called_train(tmp_path: Path, other: str) -> None:
    """Vehicles are classes: the split's names count only where there are no others."""
    fill(tmp_path, "train/1.png", f"{other}/2.png")
    assert list_dataset(tmp_path).classes == tuple(sorted(["train", other]))


def test_without_train_there_is_no_split(tmp_path: Path) -> None:
    """A folder of `test` and `val` alone is a class folder."""
    fill(tmp_path, "test/1.png", "val/2.png")
    assert list_dataset(tmp_path).classes == ("test", "val")


def test_loose_pictures_are_left_out(tmp_path: Path) -> None:
    """A picture beside the class folders has no class: it is named, never given one."""
    fill(tmp_path, "cat/1.png", "dog/1.png", "loose.png", "loose.txt")
    found = list_dataset(tmp_path)
    assert reasons(found) == {"loose.png": "not in a class folder"}
    fill(tmp_path / "s", "train/cat/1.png", "train/dog/1.png", "train/loose.png", "test/loose.png")
    assert set(reasons(list_dataset(tmp_path / "s"))) == {"train/loose.png", "test/loose.png"}


NAMES = ["a b.png", " lead.png", "new\nline.png", "tab\t.png", "quo'te\".png", "käse.png"]
NAMES += ["e\u0301.png", "\u00e9.png", "写真.png", "🐈.png", "-rf.png", "a\\b.png", "%20.png"]


def test_any_unicode_name(tmp_path: Path) -> None:
    """Names with spaces, newlines and any Unicode come through unchanged."""
    fill(tmp_path, *(f"c {name}/{name}" for name in NAMES))
    found = list_dataset(tmp_path)
    assert set(found.classes) == {f"c {name}" for name in NAMES}
    for picture in found.pictures:
        assert picture.file.read_bytes().decode() == picture.path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_unicode_are_left_out(tmp_path: Path) -> None:
    """A name of odd bytes cannot be stored: its picture or folder is named with escapes."""
    fill(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / os.fsdecode(b"cat/\xff.png")).touch()
    (tmp_path / os.fsdecode(b"cat/\xff.txt")).touch()
    fill(tmp_path, os.fsdecode(b"b\xe9b\xe9s/1.png"))
    found = list_dataset(tmp_path)
    assert reasons(found) == {
        "b\\xe9b\\xe9s": "folder's name is not valid Unicode",
        "cat/\\xff.png": "name is not valid Unicode",
    }
    assert found.other_files == 1


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=8, unique=True), st.randoms())
def test_order_does_not_depend_on_the_disk(names: list[str], random: object) -> None:
    """However the folder's entries come, the listing is the same."""
    import random as random_module
    import tempfile

    assert isinstance(random, random_module.Random)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = fill(Path(folder), *(f"{name}/{name}{i}.png" for name in names for i in range(2)))
        (root / "zz").symlink_to(root / names[0])
        (root / names[0] / "link.png").symlink_to(root / names[1] / f"{names[1]}0.png")
        expected = list_dataset(root)
        entries = module._Walk._entries

        def shuffled(walk: module._Walk, path: str) -> list[os.DirEntry[str]]:
            listed = entries(walk, path)
            random.shuffle(listed)
            return listed

        patch.setattr(module._Walk, "_entries", shuffled)
        assert list_dataset(root) == expected
        assert paths(expected) == sorted(paths(expected))


# --- links and other things that are no files ----------------------------------------------------


def test_links_are_followed_within_the_dataset(tmp_path: Path) -> None:
    """A link to a picture is a picture; a link to a hidden folder brings what is in it."""
    fill(tmp_path, "cat/1.png", "dog/1.png", ".pool/2.png", ".pool/deep/3.png")
    (tmp_path / "cat/again.png").symlink_to("../dog/1.png")
    (tmp_path / "bird").symlink_to(".pool")
    found = list_dataset(tmp_path)
    assert paths(found) == [
        "bird/2.png",
        "bird/deep/3.png",
        "cat/1.png",
        "cat/again.png",
        "dog/1.png",
    ]
    assert found.left_out == ()


def test_every_folder_is_listed_once(tmp_path: Path) -> None:
    """Links to folders listed anyway, to parents and to themselves add nothing and never loop."""
    fill(tmp_path, "cat/1.png", "dog/deep/1.png")
    (tmp_path / "a-link").symlink_to("cat")
    (tmp_path / "cat/up").symlink_to("..")
    (tmp_path / "cat/here").symlink_to(".")
    (tmp_path / "dog/deep/root").symlink_to(tmp_path)
    (tmp_path / "dog/other").symlink_to("../cat")
    assert paths(list_dataset(tmp_path)) == ["cat/1.png", "dog/deep/1.png"]


def test_links_out_of_the_dataset_are_not_followed(tmp_path: Path) -> None:
    """Nothing outside the root is ever listed, be it by one link or by several."""
    fill(tmp_path, "private/x.png", "data/cat/1.png", "data/dog/1.png")
    root = tmp_path / "data"
    (root / "cat/out.png").symlink_to(tmp_path / "private/x.png")
    (root / "cat/hop.png").symlink_to("out.png")
    (root / "people").symlink_to("../private")
    (root / "cat/readme.txt").symlink_to("/etc/hostname")
    found = list_dataset(root)
    assert paths(found) == ["cat/1.png", "dog/1.png"]
    assert reasons(found) == dict.fromkeys(
        ["cat/out.png", "cat/hop.png", "people"], "link leads outside the dataset"
    )


def test_a_root_that_is_a_link_is_fine(tmp_path: Path) -> None:
    """The root itself may be a link; only what leads out of where it points is refused."""
    fill(tmp_path / "real", "cat/1.png", "dog/1.png")
    (tmp_path / "real/cat/2.png").symlink_to("1.png")
    (tmp_path / "link").symlink_to("real")
    found = list_dataset(tmp_path / "link")
    assert paths(found) == ["cat/1.png", "cat/2.png", "dog/1.png"]


def test_a_sibling_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    """``data2`` is not inside ``data``."""
    fill(tmp_path, "data/cat/1.png", "data/dog/1.png", "data2/x.png")
    (tmp_path / "data/cat/x.png").symlink_to("../../data2/x.png")
    assert set(reasons(list_dataset(tmp_path / "data"))) == {"cat/x.png"}


def test_broken_links_are_left_out(tmp_path: Path) -> None:
    """A link to nothing, and one to itself, are named."""
    fill(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat/gone.png").symlink_to("nowhere.png")
    (tmp_path / "cat/self.png").symlink_to("self.png")
    found = list_dataset(tmp_path)
    assert reasons(found) == dict.fromkeys(["cat/gone.png", "cat/self.png"], "broken link")


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    """A pipe named like a picture neither stops the run nor counts; a folder x.jpg is a folder."""
    fill(tmp_path, "cat/1.png", "dog/x.jpg/2.png")
    os.mkfifo(tmp_path / "cat/pipe.png")
    os.mkfifo(tmp_path / "cat/pipe")
    (tmp_path / "dog/link.png").symlink_to("../cat/pipe.png")
    (tmp_path / "dog/null.png").symlink_to("/dev/null")
    found = list_dataset(tmp_path)
    assert paths(found) == ["cat/1.png", "dog/x.jpg/2.png"]
    assert reasons(found) == {
        "cat/pipe.png": "not a regular file",
        "dog/link.png": "not a regular file",
        "dog/null.png": "link leads outside the dataset",
    }
    assert found.other_files == 1


def forbid(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make a folder unreadable, also to root, whom permissions do not stop."""
    scandir = os.scandir

    def guarded(place: str) -> object:
        if Path(place) == folder:
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    patch.setattr(os, "scandir", guarded)


def test_an_unreadable_subfolder_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One closed folder does not stop the rest; it is named."""
    fill(tmp_path, "cat/1.png", "dog/1.png", "dog/closed/2.png")
    forbid(monkeypatch, tmp_path / "dog/closed")
    found = list_dataset(tmp_path)
    assert reasons(found) == {"dog/closed": "folder cannot be read: Permission denied"}


# --- what is no dataset --------------------------------------------------------------------------


def test_a_missing_folder(tmp_path: Path) -> None:
    """The error is a FileNotFoundError too, and says what was expected."""
    with pytest.raises(DataNotFoundError, match="expected a folder or a manifest") as caught:
        list_dataset(tmp_path / "nowhere")
    assert isinstance(caught.value, FileNotFoundError)
    for odd in ("a\0b", "x" * 5000):
        with pytest.raises(DataNotFoundError):
            list_dataset(odd)


def test_an_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that cannot be listed is an error, not an empty dataset."""
    forbid(monkeypatch, tmp_path)
    with pytest.raises(DataNotFoundError, match="Permission denied"):
        list_dataset(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    """No pictures: the error counts what is there instead."""
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"no pictures in .* \(0 other files\)"):
        list_dataset(tmp_path)
    fill(tmp_path, "cat/a.txt", "b.txt")
    with pytest.raises(DataError, match=r"2 other files.*one subfolder per class"):
        list_dataset(tmp_path)
    (tmp_path / "cat/x.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"1 left out, the first cat/x.png \(broken link\)"):
        list_dataset(tmp_path)


def test_one_class_only(tmp_path: Path) -> None:
    """One class cannot be told from another; an empty second folder is none."""
    fill(tmp_path, "cat/1.png", "cat/2.png")
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match="one class only, cat"):
        list_dataset(tmp_path)


def test_pictures_without_class_folders(tmp_path: Path) -> None:
    """A flat folder of pictures has no classes."""
    fill(tmp_path, "1.png", "2.png")
    with pytest.raises(DataError, match=r"no class folders.*2 pictures lie loose"):
        list_dataset(tmp_path)


def test_an_unsupported_manifest(tmp_path: Path) -> None:
    """Other files are no manifests."""
    fill(tmp_path, "list.xlsx")
    with pytest.raises(DataError, match=r"expected a folder, a \.csv or a \.parquet file"):
        list_dataset(tmp_path / "list.xlsx")


# --- manifests -----------------------------------------------------------------------------------


def manifest(root: Path, text: str | bytes, name: str = "list.csv") -> Path:
    file = root / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_csv_manifest(tmp_path: Path) -> None:
    """Paths are relative to the manifest; a byte order mark, extra columns and gaps do no harm."""
    fill(tmp_path, "b.png", "deep/a.png", "c", 'q",\n.png')
    text = (
        "\ufeffauthor,path, label ,split\r\nme,b.png,dog,train\r\nyou,./deep/a.png,cat,val\r\n\r\n"
        'me,c,,test\r\nme,"q"",\n.png",cat\r\n'
    )
    found = list_dataset(manifest(tmp_path, text))
    assert found.root == tmp_path
    assert found.classes == ("cat", "dog")
    assert named(found) == {
        "b.png": ("dog", "train"),
        "c": ("?", "test"),
        "deep/a.png": ("cat", "validation"),
        'q",\n.png': ("cat", ""),
    }
    assert next(p.label for p in found.pictures if p.path == "c") == -1


def test_absolute_paths_in_a_manifest(tmp_path: Path) -> None:
    """A path inside the manifest's folder is named relative to it, another by its full name."""
    fill(tmp_path, "m/1.png", "elsewhere/2.png")
    text = f"path,label\n{tmp_path}/m/1.png,a\n{tmp_path}/elsewhere/2.png,b\n"
    found = list_dataset(manifest(tmp_path / "m", text))
    assert paths(found) == [f"{tmp_path}/elsewhere/2.png", "1.png"]


def test_a_parquet_manifest(tmp_path: Path) -> None:
    """Parquet holds the same columns; numbers become names, None and NaN are no label."""
    fill(tmp_path, *(f"{i}.png" for i in range(4)))
    names = [f"{i}.png" for i in range(4)]
    table = pa.table({"path": names, "label": [7, 0, None, 7], "split": ["train", "val", "", None]})
    parquet.write_table(table, tmp_path / "list.parquet")
    found = list_dataset(tmp_path / "list.parquet")
    assert found.classes == ("0", "7")
    assert [(p.label, p.split) for p in found.pictures] == [
        (1, "train"),
        (0, "validation"),
        (-1, ""),
        (1, ""),
    ]
    nan = pa.table(
        {"label": ["a", "b", "c", float("nan")][:3], "path": names[:3], "size": [1, 2, 3]}
    )
    parquet.write_table(nan, tmp_path / "b.PARQUET")
    assert list_dataset(tmp_path / "b.PARQUET").classes == ("a", "b", "c")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"headstart\[parquet\]"):
        list_dataset(manifest(tmp_path, b"PAR1", "list.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"columns \(none\); expected path, label"),
        ("file;class\n1.png;a\n", r"columns file;class; expected path, label"),
        ("path,label,split\n1.png,a,dev\n", r"line 2: split is 'dev'; expected train"),
        ("path,label\n1.png,a\n,b\n", r"line 3: expected a path, found ''"),
        ("path,label\n1.png,a\n1.png,b\n", r"names 1.png twice, as a and as b"),
        (b"path,label\n\xff.png,a\n", "not UTF-8"),
        ('path,label\n"1.png,a\n', "not a well-formed CSV"),
        ("path,label\n9.png,a\n", r"no usable pictures .*1 left out; the first, 9.png: no such"),
        ("path,label\n", r"no usable pictures .*0 left out"),
        ("path,label\n1.png,a\n2.png,a\n", "one class only, a"),
    ],
)
def test_a_broken_manifest(tmp_path: Path, text: str | bytes, message: str) -> None:
    """Each way a manifest can be wrong has its own sentence, with the line where there is one."""
    fill(tmp_path, "1.png", "2.png")
    with pytest.raises(DataError, match=message):
        list_dataset(manifest(tmp_path, text))


def test_a_broken_parquet_file(tmp_path: Path) -> None:
    """A file that only claims to be Parquet is a clear error."""
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list_dataset(manifest(tmp_path, b"PAR1 not really", "list.parquet"))


def test_what_a_manifest_names_in_vain_is_left_out(tmp_path: Path) -> None:
    """Missing files, folders and repeated lines go to the ledger; the rest is used."""
    fill(tmp_path, "1.png", "2.png", "folder/x")
    (tmp_path / "gone.png").symlink_to("nowhere")
    text = "path,label\n1.png,a\n2.png,b\n./1.png,a\n3.png,a\nfolder,a\ngone.png,a\n1.png/x,a\n"
    found = list_dataset(manifest(tmp_path, text))
    assert paths(found) == ["1.png", "2.png"]
    assert reasons(found) == {
        "1.png": "listed before",
        "1.png/x": "no such file",
        "3.png": "no such file",
        "folder": "not a regular file",
        "gone.png": "broken link",
    }


# --- lists of paths ------------------------------------------------------------------------------


def test_a_list_of_paths(tmp_path: Path) -> None:
    """Paths come with labels or without; a label of 0 is a label."""
    fill(tmp_path, "b.png", "a.png", "c.png")
    files: list[str | Path] = [tmp_path / "b.png", str(tmp_path / "a.png"), tmp_path / "c.png"]
    labels: list[Any] = [0, None, 1]
    found = list_dataset(files, labels=labels)
    assert found.root is None
    assert found.classes == ("0", "1")
    assert [Path(picture.path).name for picture in found.pictures] == ["a.png", "b.png", "c.png"]
    assert [picture.label for picture in found.pictures] == [-1, 0, 1]
    assert list_dataset(files).classes == ()


def test_a_list_that_cannot_be_used(tmp_path: Path) -> None:
    """An empty list, labels that do not fit and labels for a folder are errors."""
    with pytest.raises(DataError, match="no usable pictures in the list of paths"):
        list_dataset([])
    with pytest.raises(DataError, match="2 paths but 1 labels"):
        list_dataset(["a", "b"], labels=["x"])
    with pytest.raises(DataError, match="labels go with a list of paths"):
        list_dataset(tmp_path, labels=["x"])


# --- bytes ---------------------------------------------------------------------------------------


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    """Answers come in the files' order, whatever the number of threads."""
    files = [tmp_path / f"{i}.bin" for i in range(50)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * (i * 70_000))
    expected = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    done: list[int] = []
    assert hash_files(files, workers=1) == expected
    assert hash_files(files, workers=4, progress=done.append) == expected
    assert sum(done) == 50
    assert hash_files([], workers=2) == []


def test_an_unreadable_file_answers_its_reason(tmp_path: Path) -> None:
    """A file gone, a folder and a pipe stop nothing: each answers why, without waiting."""
    fill(tmp_path, "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    names = ["gone.png", "pipe.png", "1.png", ".", "1.png/x"]
    began = time.monotonic()
    answers = hash_files([tmp_path / name for name in names], workers=2)
    assert time.monotonic() - began < 5
    assert answers[2] == hashlib.sha256(b"1.png").hexdigest()
    found = {item.path: item.reason for item in answers if isinstance(item, LeftOut)}
    assert found == {
        f"{tmp_path}": "not a regular file",
        f"{tmp_path}/1.png/x": "cannot be read: Not a directory",
        f"{tmp_path}/gone.png": "cannot be read: No such file or directory",
        f"{tmp_path}/pipe.png": "not a regular file",
    }


def test_many_small_files_hash_quickly(tmp_path: Path) -> None:
    """Thousands of files a second, so that a second run has its answer in seconds."""
    file = tmp_path / "x"
    file.write_bytes(bytes(2000))
    began = time.monotonic()
    assert len(set(hash_files([file] * 25_000, workers=2))) == 1
    assert time.monotonic() - began < 20


def test_an_interrupt_leaves_at_once(tmp_path: Path) -> None:
    """Ctrl-C does not wait for the files that are still to come."""
    file = tmp_path / "x"
    file.write_bytes(bytes(2_000_000))

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        hash_files([file] * 5000, workers=2, progress=interrupt)
    assert time.monotonic() - began < 5


def test_reading_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no regular file, or is too long to be held, is refused with its reason."""
    fill(tmp_path, "1.png")
    assert read_file(tmp_path / "1.png") == b"1.png"
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        read_file(tmp_path)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 3)
    with pytest.raises(UnreadableImageError, match="over the limit"):
        read_file(tmp_path / "1.png")


# --- identical pictures --------------------------------------------------------------------------


def pictures(digests: Iterable[str], split: str = "") -> Dataset:
    listed = tuple(
        Picture(f"{i:05d}.png", Path(f"{i}"), i % 2, split) for i, _ in enumerate(digests)
    )
    return Dataset(None, listed, ("a", "b"), (), 0)


def digest(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=40),
    st.lists(st.integers(0, 60), max_size=40),
    st.floats(0.05, 0.95),
)
def test_a_split_never_moves(old: list[int], new: list[int], share: float) -> None:
    """A picture keeps its side whatever is added, and identical pictures are on the same side."""
    before = [digest(i) for i in old]
    after = [digest(i) for i in new] + before
    sides: dict[str, set[str]] = {}
    for digests in (before, after):
        found = split_by_content(pictures(digests), digests, share)
        for picture, sha in zip(found.pictures, digests, strict=True):
            sides.setdefault(sha, set()).add(picture.split)
    assert all(len(side) == 1 for side in sides.values())
    assert set().union(*sides.values()) <= {"train", "validation"}


def test_a_split_takes_its_share_of_every_class() -> None:
    """The share is met within sampling error, in each class."""
    digests = [digest(i) for i in range(20_000)]
    found = split_by_content(pictures(digests), digests, 0.2)
    for label in (0, 1):
        members = [picture for picture in found.pictures if picture.label == label]
        share = sum(picture.split == "validation" for picture in members) / len(members)
        assert share == pytest.approx(0.2, abs=0.015)


def test_a_wider_split_contains_the_narrower() -> None:
    """Asking for more validation pictures moves none of them back to training."""
    digests = [digest(i) for i in range(500)]
    narrow, wide = (split_by_content(pictures(digests), digests, share) for share in (0.1, 0.3))
    for a, b in zip(narrow.pictures, wide.pictures, strict=True):
        assert (a.split, b.split) != ("validation", "train")


def test_a_given_split_is_kept() -> None:
    """Where the dataset brings a split, it stays; 0 makes none; nonsense is refused."""
    given_split = pictures([digest(1)] * 3, "train")
    assert split_by_content(given_split, [digest(1)] * 3, 0.5) is given_split
    bare = pictures([digest(1)])
    assert split_by_content(bare, [digest(1)], 0) is bare
    for share in (-0.1, 1, float("nan")):
        with pytest.raises(DataError, match="expected 0 to below 1"):
            split_by_content(bare, [digest(1)], share)


def test_conflicts() -> None:
    """Identical pictures are grouped; an unknown label contradicts no other."""
    rows = [
        ("1", 0, "train"),
        ("2", 0, "validation"),
        ("3", 1, "train"),
        ("4", -1, "train"),
        ("5", 1, "train"),
        ("6", 1, "train"),
    ]
    listed = tuple(Picture(name, Path(name), label, split) for name, label, split in rows)
    dataset = Dataset(None, listed, ("a", "b"), (), 0)
    found = conflicts(dataset, [digest(x) for x in ("x", "x", "y", "y", "z", "x")])
    assert found.duplicates == (("1", "2", "6"), ("3", "4"))
    assert found.across_splits == (("1", "2", "6"),)
    assert found.across_labels == (("1", "2", "6"),)
    with pytest.raises(ValueError, match="shorter"):
        conflicts(dataset, [digest("x")])


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "valid"), ("train", "test")])
def test_an_empty_folder_beside_splits_makes_them_no_classes(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    """Splits are told by folders with pictures, in any case; a split is never a label."""
    for split in names:
        for label in ("cat", "dog"):
            picture = tmp_path / split / label / "1.png"
            picture.parent.mkdir(parents=True)
            picture.write_bytes(b"x")
    (tmp_path / "notes").mkdir()
    found = list_dataset(tmp_path)
    assert found.classes == ("cat", "dog")
    assert "train" in {picture.split for picture in found.pictures}
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "2.png").write_bytes(b"x")
    with pytest.raises(DataError, match="beside them more"):
        list_dataset(tmp_path)


def test_too_many_fields_in_a_line_are_refused(tmp_path: Path) -> None:
    """A comma in a name is noticed, not cut off."""
    (tmp_path / "m.csv").write_text("path,label\na.png,cat, black\n")
    with pytest.raises(DataError, match="line 2: expected 2 fields, found 3"):
        list_dataset(tmp_path / "m.csv")
