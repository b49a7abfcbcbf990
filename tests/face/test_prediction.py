"""From the command line to labels: which pictures are meant, and how answers look."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest

import fakes
from headstart import _words, cli
from headstart.errors import DataError, DataNotFoundError
from headstart.heads import training
from headstart.heads.model import Model, Prediction
from headstart.prediction import find_pictures, lines

ODD = 'a "quoted", name\nwith a break.png'
BROKEN = "two\nlines.png"  # nothing else in it needs quotes
FOUND = [
    Prediction("one.png", "cat", np.array([0.75, 0.25])),
    Prediction(ODD, "dog", np.array([0.4, 0.6])),
    Prediction(BROKEN, "cat", np.array([0.9, 0.1])),
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
    listed = find_pictures(["none.png", "c.png", "*.jpg"])
    assert listed == [Path("none.png"), Path("c.png"), Path("*.jpg")]


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
    assert [row["picture"] for row in rows] == ["one.png", ODD, BROKEN, "bad.png"]
    assert [row["label"] for row in rows] == ["cat", "dog", "cat", ""]
    assert [row["label_2"] for row in rows] == ["dog", "cat", "dog", ""]
    assert float(rows[0]["probability"]) == 0.75
    assert rows[3]["reason"] == "empty file"
    objects = [json.loads(line) for line in lines(FOUND, ("cat", "dog"), style="jsonl", top=1)]
    assert [found["label"] for found in objects] == ["cat", "dog", "cat", None]
    assert objects[0]["top"] == [{"label": "cat", "probability": 0.75}]
    text = list(lines(FOUND, ("cat", "dog"), style="text", top=2))
    assert text[0] == "one.png  cat 0.750  dog 0.250"
    assert text[3] == "bad.png  not predicted: empty file"


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
    assert "ridge" in (card := capsys.readouterr().out)
    assert "cat 10, dog 10" in card
    assert json.loads(answer.read_text())["format"] == "headstart-model"
    (pets / "cat" / "bad.png").write_bytes(b"")
    predict = ["predict", str(model), str(pets), "--json", str(answer)]
    assert cli.main([*predict, "--format", "csv", "--top-k", "2"]) == 1
    said = capsys.readouterr()
    assert said.err == "headstart: 1 of 21 not predicted\n"
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert len(rows) == 21
    right = [Path(row["picture"]).parent.name == row["label"] for row in rows if row["label"]]
    assert np.mean(right) > 0.9
    assert sum(bool(row["reason"]) for row in rows) == 1
    content = json.loads(answer.read_text())
    assert content["classes"] == ["cat", "dog"]
    assert len(content["predictions"]) == 21
    for found in content["predictions"]:
        ranked = sorted(zip(found["probabilities"], content["classes"], strict=False), reverse=True)
        assert [(one["probability"], one["label"]) for one in found["top"]] == ranked
    assert cli.main(["predict", str(model), str(pets / "cat" / "bad.png")]) == 1
    missing = ["predict", str(model), str(pets / "dog"), str(pets / "no.png"), str(pets / "*.gif")]
    assert cli.main([*missing, "--json", str(answer)]) == 1
    found = json.loads(answer.read_text())["predictions"]
    assert [len(each["top"]) for each in found] == [1] * 10 + [0, 0]
    assert [bool(each["label"]) for each in found] == [True] * 10 + [False, False]
    assert "No such file" in found[-1]["reason"]


CLEAR = "\x1b[2J"


def test_no_name_steers_the_terminal() -> None:
    """Paths and classes are a stranger's: escapes, breaks and odd bytes are shown, not obeyed."""
    odd = Prediction(f"{CLEAR}\udcff\u202e.png", f"{CLEAR}cat", np.array([1.0]))
    bad = Prediction("bad\x9b.png", "", np.empty(0), f"no {CLEAR}")
    text = list(lines([odd, bad], [f"{CLEAR}cat"], style="text", top=1))
    assert text == [
        "\\x1b[2J\\xff\\u202e.png  \\x1b[2Jcat 1.000",
        "bad\\x9b.png  not predicted: no \\x1b[2J",
    ]
    for style in ("csv", "jsonl"):
        assert "\n".join(lines([odd], ["cat"], style=style, top=1)).encode()
    assert json.dumps(odd.to_dict(), ensure_ascii=False).encode()


@pytest.fixture
def trained(fake_base: None, pets: Path, tmp_path: Path) -> list[str]:
    """Return the command that trains a model; what it writes is pets.model."""
    store = str(tmp_path / "pets.features")
    assert cli.main(["extract", str(pets), "-o", store, "--weights", "random", "--quiet"]) == 0
    return ["train", store, "--head", "ridge", "--cv", "2", "-o", str(tmp_path / "pets.model")]


def test_a_model_is_shown_as_it_is_written(trained: list[str], tmp_path: Path) -> None:
    """Also where its classes are named to steer a terminal, on it and on the page."""
    assert cli.main([*trained, "--quiet"]) == 0
    found = Model.load(tmp_path / "pets.model")
    odd = dataclasses.replace(found.card, classes=(CLEAR, "a|b\n# c"), head=CLEAR, measured=CLEAR)
    named = Model(odd, found.classifier)
    said = [*_words.model(named, "pets.model"), *_words.model_card(odd)]
    assert all(line.isprintable() for line in said)
    assert "\\x1b[2J 10" in said[1]


@pytest.mark.parametrize(
    ("name", "words"), [("pets.model", "is no model"), ("pets.model.md", "is no model's card")]
)
def test_train_replaces_only_what_it_wrote(
    trained: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: str,
) -> None:
    """A model and its page give way to new ones; of anything else one hears before training."""
    for _ in range(2):
        assert cli.main([*trained, "--quiet"]) == 0
    (tmp_path / name).write_text("mine")
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained"))
    assert cli.main(trained) == 1
    assert words in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
    assert cli.main([*trained[:-1], str(tmp_path / "no" / "where.model")]) == 1
    assert "in a folder that exists" in capsys.readouterr().err


def test_one_answer_on_standard_output(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON and lines in another format are not mixed; nothing is read before one hears so."""
    predict = ["predict", str(tmp_path / "pets.model"), str(tmp_path / "pets"), "--json", "-"]
    for style in ("csv", "jsonl"):
        assert cli.main([*predict, "--format", style]) == 1
        said = capsys.readouterr()
        assert (said.out, "both want standard output" in said.err) == ("", True)
    assert cli.main([*trained, "--quiet"]) == 0
    assert cli.main(predict) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 20
