"""From the command line to labels: which pictures are meant, and how answers look."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

import fakes
from headstart import cli
from headstart.errors import DataError, DataNotFoundError
from headstart.heads.model import Prediction
from headstart.prediction import find_pictures, lines

ODD = 'a "quoted", name\nwith a break.png'
FOUND = [
    Prediction("one.png", "cat", np.array([0.75, 0.25])),
    Prediction(ODD, "dog", np.array([0.4, 0.6])),
    Prediction("bad.png", "", np.empty(0), "empty file"),
]


def test_files_folders_patterns_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pictures that are meant, in order, each once; other files in a folder are not."""
    for name in ("b/2.png", "b/deep/1.png", "c.png", "b/.hidden.png"):
        fakes.draw(tmp_path / name, seed=1)
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("c.png\n\nb/2.png\n"))
    assert find_pictures(["b"]) == [Path("b/2.png"), Path("b/deep/1.png")]
    assert find_pictures(["c.png", "b/*.png"]) == [Path("c.png"), Path("b/2.png")]
    assert find_pictures(["**/*.png", "c.png"])[-1] == Path("c.png")
    assert find_pictures(["-"]) == [Path("c.png"), Path("b/2.png")]


def test_nothing_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a pattern or a folder without pictures says what was expected."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for argument, error in (
        ("nothing.png", DataNotFoundError),
        ("*.jpg", DataNotFoundError),
        ("empty", DataError),
    ):
        with pytest.raises(error):
            find_pictures([argument])


def test_lines_can_be_read_back() -> None:
    """CSV and JSON lines hold every picture, whatever its name, and why one has no label."""
    table = "\n".join(lines(FOUND, ("cat", "dog"), style="csv", top=9))
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["picture"] for row in rows] == ["one.png", ODD, "bad.png"]
    assert [row["label"] for row in rows] == ["cat", "dog", ""]
    assert [row["label_2"] for row in rows] == ["dog", "cat", ""]
    assert float(rows[0]["probability"]) == 0.75
    assert rows[2]["reason"] == "empty file"
    objects = [json.loads(line) for line in lines(FOUND, ("cat", "dog"), style="jsonl", top=1)]
    assert [found["label"] for found in objects] == ["cat", "dog", None]
    assert objects[0]["top"] == [{"label": "cat", "probability": 0.75}]
    text = list(lines(FOUND, ("cat", "dog"), style="text", top=2))
    assert text[0] == "one.png  cat 0.750  dog 0.250"
    assert text[2] == "bad.png  not predicted: empty file"


@pytest.mark.usefixtures("fake_base")
def test_commands(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, status, predict: the card is printed and written, labels are those of the rows."""
    store, model = tmp_path / "pets.features", tmp_path / "pets.model"
    assert cli.main(["extract", str(pets), "-o", str(store), "--weights", "random"]) == 0
    command = ["train", str(store), "--head", "ridge", "--cv", "2", "-o", str(model)]
    assert cli.main(command) == 0
    assert "# ridge" in (tmp_path / "pets.model.md").read_text()
    capsys.readouterr()
    answer = tmp_path / "answer.json"
    assert cli.main(["status", str(model), "--json", str(answer)]) == 0
    assert "ridge" in (said := capsys.readouterr().out)
    assert "cat 10, dog 10" in said
    assert json.loads(answer.read_text())["format"] == "headstart-model"
    (pets / "cat" / "bad.png").write_bytes(b"")
    predict = ["predict", str(model), str(pets), "--json", str(answer)]
    assert cli.main([*predict, "--format", "csv", "--top-k", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 21
    right = [Path(row["picture"]).parent.name == row["label"] for row in rows if row["label"]]
    assert np.mean(right) > 0.9
    assert sum(bool(row["reason"]) for row in rows) == 1
    assert len(json.loads(answer.read_text())["predictions"]) == 21
    assert cli.main(["predict", str(model), str(pets / "cat" / "bad.png")]) == 1
