"""Manifests and lists: what they name, what is wrong with them, in which line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from listings import fill, named, paths, reasons
from pyarrow import parquet

from headstart.errors import DataError, MissingExtraError
from headstart.extract.dataset import list_dataset


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
    nan = pa.table({"size": [1, 2, 3, 4], "label": [2.5, float("nan"), 0.5, 2.5], "path": names})
    parquet.write_table(nan, tmp_path / "b.PARQUET")
    found = list_dataset(tmp_path / "b.PARQUET")
    assert found.classes == ("0.5", "2.5")
    assert [picture.label for picture in found.pictures] == [1, -1, 0, 1]
    assert (found.columns, found.pictures[3].columns) == (("size",), ("4",))


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
        ("path,label\n1.png,a\n1.png,b\n", r"1.png twice, in line 2 as a and in line 3 as b"),
        ("path;label\n1.png;a\n", r"split: this looks separated by ';'; write it with commas"),
        ("path\tlabel\n1.png\ta\n", r"split: this looks separated by a tab; "),
        (b"path,label\n\xff.png,a\n", "not UTF-8"),
        ('path,label\n"1.png,a\n', "not a well-formed CSV"),
        (
            "path,label\n9.png,a\n",
            r"1 of the 1 files listed are missing, the first 9.png; .* folder, /",
        ),
        ("path,label\n", r"no usable pictures .*0 left out"),
        ("path,label\n1.png,a\n2.png,a\n", "one class only, a"),
        ("path,label\n1.png,a\n8.png,b\n9.png,b\n", "2 of the 3 files .* missing, the first 8.png"),
        ("path,label\n1.png,a\n9.png,a\n", "one class only, a"),
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


def test_too_many_fields_in_a_line_are_refused(tmp_path: Path) -> None:
    """A comma in a name is noticed, not cut off."""
    (tmp_path / "m.csv").write_text("path,label\na.png,cat, black\n")
    with pytest.raises(DataError, match="line 2: expected 2 fields, found 3"):
        list_dataset(tmp_path / "m.csv")
