"""Folders: what is listed, what is left out and why, and links that lead nowhere else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listings import fill, named, paths, reasons

from headstart.errors import DataError, DataNotFoundError
from headstart.extract import folders as module
from headstart.extract.dataset import list_dataset
from headstart.extract.hashing import read_file


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


def test_what_is_passed_over_is_counted_by_kind(tmp_path: Path) -> None:
    """A class of a kind of file that is not read does not vanish without a word."""
    fill(tmp_path / "a", "cat/1.png", "dog/deep/2.png", "bird/1.HEIC", "bird/2.heic", "cat/x.txt")
    (tmp_path / "a" / "cow" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "dog" / "empty").mkdir()
    found = list_dataset(tmp_path / "a")
    assert found.other_kinds == ((".heic", 2), (".txt", 1))
    assert found.empty_classes == ("bird", "cow")
    fill(tmp_path / "b", "train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "val/dog/x.heic")
    assert list_dataset(tmp_path / "b").empty_classes == ("val/dog",)
    fill(tmp_path / "c", "cat/1.png", "dog/1.heic")
    with pytest.raises(DataError, match=r"one class only, cat.*: 1 other file \(.heic 1\)"):
        list_dataset(tmp_path / "c")
    fill(tmp_path / "d", "cat/1.heic", "dog/1.heic")
    with pytest.raises(DataError, match=r"no pictures in .*, but 2 other files \(.heic 2\)"):
        list_dataset(tmp_path / "d")


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
        assert read_file(picture.file).decode() == picture.path


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


def test_an_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that cannot be listed is an error, not an empty dataset."""
    forbid(monkeypatch, tmp_path)
    with pytest.raises(DataNotFoundError, match="Permission denied"):
        list_dataset(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    """No pictures: the error counts what is there instead."""
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"no pictures in .*, but 0 other files"):
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
