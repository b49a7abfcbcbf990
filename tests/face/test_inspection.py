"""Inspection: everything known before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fakes
from headstart import cli, inspection
from headstart.errors import LayerError
from headstart.inspection import inspect


def test_layers_alone() -> None:
    """Without data: the mixed layers with shape, bytes and work, nothing else."""
    found = inspect()
    assert [row.name for row in found.layers][:2] == ["mixed0", "mixed1"]
    mixed7 = next(row for row in found.layers if row.name == "mixed7")
    assert (mixed7.shape, mixed7.bytes_per_image) == ((7, 7, 768), 75264)
    assert found.pictures is None
    assert len(inspect(all_layers=True).layers) > 100


def test_pictures(
    pets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Counts, what would be left out and why, conflicts and cost; ``--strict`` fails on it."""
    monkeypatch.setattr(inspection, "load_base", fakes.FakeBase)
    assert cli.main(["inspect", str(pets), "--strict", "--quiet"]) == 0
    (pets / "cat" / "bad.png").write_bytes(b"GIF89a")
    (pets / "dog" / "copy.png").write_bytes((pets / "cat" / "0000.png").read_bytes())
    (pets / "notes.txt").write_text("x")
    answer = tmp_path / "answer.json"
    assert cli.main(["inspect", str(pets), "--strict", "--json", str(answer)]) == 1
    said = capsys.readouterr().out
    assert "left out: 'cat/bad.png'" in said
    assert "under two labels" in said
    content = json.loads(answer.read_text())
    pictures = content["pictures"]
    assert (pictures["usable"], pictures["classes"]) == (21, {"cat": 10, "dog": 11})
    assert pictures["across_labels"] == [["cat/0000.png", "dog/copy.png"]]
    assert [row["path"] for row in content["left_out"]] == ["cat/bad.png"]
    assert pictures["cost"]["seconds"] > 0
    assert pictures["cost"]["bytes"] == pictures["distinct"] * 2 * 36


def test_splits_and_what_is_passed_over_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts of splits, kinds of other files, classes without a picture; extract says so too."""
    monkeypatch.setattr(inspection, "load_base", fakes.FakeBase)
    fakes.install(monkeypatch)
    data = tmp_path / "data"
    for split, count in (("train", 3), ("test", 1)):
        for number in range(count):
            for name in ("cat", "dog"):
                seed = 10 * number + len(split) + 100 * (name == "cat")
                fakes.draw(data / split / name / f"{number}.png", seed)
    (data / "train" / "owl").mkdir()
    (data / "train" / "owl" / "1.heic").write_bytes(b"x")
    store = str(tmp_path / "store")
    for command in (["inspect"], ["extract", "--size", "75", "--validation", "0.3", "-o", store]):
        assert cli.main([*command, str(data)]) == 0
        said = capsys.readouterr().out
        assert "  test 2, train 6\n" in said
        assert "  passed over: 1 other file (.heic 1)\n" in said
        assert "class folders without one picture, so no classes: 'train/owl'\n" in said
        ignored = "--validation 0.3 ignored: this dataset has splits of its own"
        assert (ignored in said) == (command[0] == "extract")


def test_pictures_without_a_label_are_told(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No label at all, or some missing: in words, not as a class that is none."""
    monkeypatch.setattr(inspection, "load_base", fakes.FakeBase)
    listed = pets / "list.csv"
    for lines, said in (
        ("cat/0000.png,\n", "list.csv: 1 picture, none with a label: features can be extracted"),
        (
            "cat/0000.png,\ncat/0001.png,cat\ndog/0000.png,dog\n",
            "list.csv: 3 pictures in 2 classes (cat 1, dog 1), 1 without a label\n",
        ),
    ):
        listed.write_text("path,label\n" + lines)
        assert cli.main(["inspect", str(listed)]) == 0
        assert said in capsys.readouterr().out


def test_pooling_is_costed(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``--pool`` a row has one number a channel, and the answer says so."""
    monkeypatch.setattr(inspection, "load_base", fakes.FakeBase)
    found = inspect(pets, pool="avg", layers=("mixed7", "mixed5"))
    assert found.pictures is not None
    assert found.pictures.cost.bytes == 20 * 2 * (4 + 3)
    assert cli.main(["inspect", str(pets), "--pool", "max"]) == 0
    assert "extraction at mixed7, max pooled: about" in capsys.readouterr().out


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_memory_counts_what_a_run_holds_beside_the_base(
    pets: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Pixels ahead, float32 batches, and three copies of each layer's filling shard.

    Of batches there are as many as the base computes at once, and four done or on their way.
    """

    class Base(fakes.FakeBase):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.at_once = at_once

    monkeypatch.setattr(inspection, "load_base", Base)
    monkeypatch.setattr(inspection, "_peak_memory", lambda: 0)
    found = inspect(pets, layers=("mixed7", "mixed5"))
    assert found.pictures is not None
    numbers = 3 * 3 * 4 + 2 * 2 * 3
    batches = (at_once + 4) * 32 * 4 * numbers
    expected = 20 * 3 * 150**2 + batches + 3 * 20 * 2 * numbers
    assert found.pictures.cost.memory == expected


def test_an_unknown_layer_is_refused_also_without_data() -> None:
    """A mistyped layer is answered with near ones, not with a table."""
    with pytest.raises(LayerError, match="no layer 'nonsense'"):
        inspect(layers=("nonsense",))
    assert cli.main(["inspect", "--layer", "mixd7", "--quiet"]) == 1


def test_only_usable_pictures_are_counted(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Identical files that do not decode are neither pictures nor conflicts."""
    monkeypatch.setattr(inspection, "load_base", fakes.FakeBase)
    for name in ("cat/bad.png", "dog/bad.png"):
        (pets / name).write_bytes(b"GIF89a")
    found = inspect(pets)
    assert found.pictures is not None
    assert (found.pictures.usable, found.pictures.distinct) == (20, 20)
    assert found.pictures.across_labels == ()
    assert found.pictures.cost.bytes == 20 * 2 * 36
    assert [row.path for row in found.left_out] == ["cat/bad.png", "dog/bad.png"]
