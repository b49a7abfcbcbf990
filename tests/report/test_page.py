"""The page as a file: what it says, what it allows, how large it is."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

import fakes
from headstart import cli
from headstart.cache import Filling, Rows, Spec, Store
from headstart.errors import HeadError, HeadstartError, LayerError, MissingExtraError
from headstart.extract import Settings, fill_store
from headstart.heads import compare
from headstart.report import MARK, report, write_report
from headstart.report import pictures as pictures_module
from headstart.report.gather import _commands, gathered
from headstart.report.page import page


def test_the_answer_comes_first(scene: Any) -> None:
    """One sentence: the best head, how sure, who is level with it, what it cost."""
    answer, best = scene.report.answer[2], scene.comparison.heads[0]
    low, high = best.ci95
    assert f"on mixed7 is best: {best.accuracy:.1%} of " in answer
    assert f"(95% interval: {low:.1%} to {high:.1%})" in answer
    assert "±" not in scene.file.read_text("utf-8")
    assert f"<td>{best.accuracy:.1%} ({low:.1%} to {high:.1%})</td>" in scene.file.read_text(
        "utf-8"
    )
    assert "distinguishable from it" in answer or "worse" in answer
    assert "once, all runs and all 2 layers together" in answer
    assert "all runs and all 2 layers together" in " ".join(str(scene.comparison).split())
    assert answer in scene.file.read_text("utf-8").replace("&#39;", "'")
    assert any("weights are random" in line for line in scene.report.warnings)
    assert any("different labels" in line for line in scene.report.warnings)


def test_a_benchmark_leads_its_page(scene: Any) -> None:
    """With its best mode, and why heads measured in folds differ from the same in it."""
    first, why = scene.report.answer[:2]
    assert first.startswith("Frozen, fine-tuned or from scratch? Best is frozen logreg: 75.0% (")
    assert "a fold for each of 2 seeds; below: 3 stratified folds." in why
    alone = gathered(scene.comparison)
    assert "is best" in alone.answer[0]


def test_the_policy_names_what_is_there(scene: Any) -> None:
    """Only the one style and the one script of the page may run, by their digests."""
    text = scene.file.read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    rules = policy[1].replace("&#39;", "'")
    assert rules.startswith("default-src 'none'; ")
    assert "unsafe" not in rules
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        body = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        assert len(body) == 1
        digest = b64encode(hashlib.sha256(body[0].encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in rules
    assert " style=" not in text


def test_every_part_has_its_data(scene: Any) -> None:
    """Duplicates, what was left out, mistakes with neighbours, commands to get it again."""
    found = scene.report
    quality = found.insight.quality
    assert quality.identical == 1
    assert [named.path for named in quality.across_labels[0]] == ["cat/0000.png", "dog/0099.png"]
    assert found.facts.left_out[0][1:] == (1, "hen/broken.png")
    for card in found.insight.mistakes:
        assert card.of.label != card.guess
        assert len(card.near) == 5
        assert card.of.path not in {near.path for near in card.near}
    counts = [[cell.count for cell in line] for line in found.insight.confusions[0].cells]
    answers = scene.comparison.heads[0].predictions
    wanted = np.zeros((3, 3), dtype=int)
    np.add.at(wanted, (answers.true, answers.guess), 1)
    assert counts == wanted.tolist()
    for command in found.commands:
        words = command.split()
        assert words[0] == "headstart"
        assert "pets.features" in command
    extract, compared, train = found.commands
    assert "--layer mixed5,mixed7" in extract
    assert found.facts.spec["layer"] == "mixed7"  # the one compared on, not the store's first
    assert "--cv 3" in compared
    assert train.endswith("-o best.model")
    json.dumps(found.to_dict(), allow_nan=False)


def test_weights_of_classes_are_among_the_commands(scene: Any) -> None:
    """No command takes them by name: the page says that they were given from Python."""
    evidence = scene.comparison.evidence
    options = {**evidence.options, "class_weight": {"cat": 3}}
    weighted = replace(scene.comparison, evidence=replace(evidence, options=options))
    *commands, last = _commands(weighted, scene.report.facts, curve=True)
    assert commands == list(scene.report.commands)
    assert last == "# from Python, with class_weight={'cat': 3}"


def test_two_thousand_pictures_are_less_than_five_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of 2,000 pictures, each as large as photographs are, and 12 classes."""
    n, rng = 2000, np.random.default_rng(0)
    label = np.arange(n) % 12
    X = (rng.normal(size=(12, 30))[label] + 2 * rng.normal(size=(n, 30))).astype(np.float16)
    ids = [hashlib.sha256(str(i).encode()).hexdigest().encode() for i in range(n)]
    paths = [f"a folder/with a long name/picture-{i:05}.jpg" for i in range(n)]
    names = tuple(f"class {i}" for i in range(12))
    rows = Rows(names, paths, [""] * n, label.tolist(), ids, [0] * n)
    spec, filling = Spec(weights="0" * 64), Filling(tmp_path / "store")
    filling.add(spec, rows.ids(), X, {})
    settings = {"data": str(tmp_path)}
    filling.publish(rows, [spec.name], left_out=[], unreadable={}, settings=settings, seconds=1.0)
    monkeypatch.setattr(pictures_module, "_files", lambda _: {})
    monkeypatch.setattr(pictures_module._Found, "_one", lambda _, row, size: "x" * 28 * size)
    comparison = compare(tmp_path / "store", ["logreg", "ridge", "ncm", "knn"], cv=3)
    found = write_report(comparison, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 5_000_000
    assert len(found.gallery.small) == 2000
    assert found.gallery.words.startswith("Pictures: all, ")


def test_the_verb_and_the_option_write_a_page(
    pictures: tuple[Path, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``headstart report`` and ``compare --report`` write a page, and say where."""
    store = str(pictures[1].path)
    common = ["--heads", "ncm,knn", "--cv", "3"]
    one, two, answer = (tmp_path / name for name in ("1.html", "2.html", "answer.json"))
    assert cli.main(["report", store, "-o", str(one), *common, "--json", str(answer)]) == 0
    assert f"report: {one}" in capsys.readouterr().out
    assert cli.main(["compare", store, "--report", str(two), *common]) == 0
    assert f"report: {two}" in capsys.readouterr().out
    content = json.loads(answer.read_text("utf-8"))
    assert content["file"] == str(one)
    assert content["answer"][0] in one.read_text("utf-8").replace("&#39;", "'")
    assert [head["head"] for head in content["comparison"]["heads"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.html", "2.html", "answer.json"]


def test_a_page_that_cannot_be_written_is_refused_first(
    pictures: tuple[Path, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is computed, naming what to do."""
    with pytest.raises(HeadstartError, match="name a file in a folder that is there"):
        report(pictures[1].path, tmp_path / "nowhere" / "page.html")
    command = ["compare", str(pictures[1].path), "--report", str(tmp_path), "--heads", "nonsense"]
    assert cli.main(command) == 1
    assert "name a file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["list.csv", "theirs.html"])
def test_only_a_page_of_ours_is_replaced(
    pictures: tuple[Path, Store],
    tmp_path: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Any other file is left as it is, and nothing is computed."""
    theirs = tmp_path / name
    theirs.write_text("<!doctype html><title>mine</title>\n")
    store = str(pictures[1].path)
    for verb in (["report", store, "-o"], ["compare", store, "--report"]):
        assert cli.main([*verb, str(theirs), "--heads", "nonsense"]) == 1
        assert theirs.name in capsys.readouterr().err
    assert theirs.read_text() == "<!doctype html><title>mine</title>\n"


def test_a_page_of_ours_is_replaced(scene: Any, tmp_path: Path) -> None:
    """A report can be made again into the same file, by the mark in its head."""
    file = tmp_path / "page.html"
    for _ in range(2):
        write_report(scene.comparison, file)
        assert MARK in file.read_text("utf-8")[:2000]


def test_figures_replace_nothing_but_figures_of_ours(
    pictures: tuple[Path, Store], tmp_path: Path
) -> None:
    """A folder with tables or figures of another origin is refused before heads are compared."""
    theirs = tmp_path / "figures" / "curve.csv"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    with pytest.raises(HeadstartError, match=r"curve\.csv is there already and is no figure"):
        report(pictures[1].path, tmp_path / "page.html", figures=theirs.parent, heads="nonsense")
    assert theirs.read_text() == "mine"
    assert list(tmp_path.rglob("*.html")) == []


def test_a_missing_package_is_named(
    pictures: tuple[Path, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Jinja2 or matplotlib the error says what to install."""
    import importlib.util

    def find(name: str, *_: Any) -> Any:
        return None if name == "jinja2" else object()

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(MissingExtraError, match=r"jinja2; .* install './headstart\[report\]'"):
        report(pictures[1].path, tmp_path / "page.html")


def test_learning_curves_of_modes_are_shown(scene: Any) -> None:
    """Beside those of heads, where a benchmark has them."""
    text = scene.file.read_text("utf-8")
    assert "Accuracy of modes against training pictures" in text
    assert "modes-curve" in text


def test_what_is_not_shown_is_counted(scene: Any) -> None:
    """Of a group of identical pictures three are shown, of such groups six."""
    insight = scene.report.insight
    group = insight.quality.across_labels[0]
    many = replace(insight.quality, across_labels=((*group, *group, *group),) * 8)
    text = page(replace(scene.report, insight=replace(insight, quality=many)))
    assert text.count('<p class="note">and 3 more</p>') == 6
    assert text.count('<p class="note">and 2 more</p>') == 1
    assert "more</p>" not in scene.file.read_text("utf-8")


def test_a_damaged_benchmark_is_refused(tmp_path: Path) -> None:
    """A folder whose results cannot be read is named, with the remedy."""
    (tmp_path / "bench.json").write_text('{"modes": [{"what": 1}]}', encoding="utf-8")
    with pytest.raises(HeadError, match="holds no results of a benchmark"):
        report(tmp_path, tmp_path / "page.html")


class Blind(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Knows one class, and no probabilities."""

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.classes_[0])


def test_a_head_without_probabilities_has_a_page(
    pictures: tuple[Path, Store], tmp_path: Path
) -> None:
    """What needs probabilities is left out, and the rest is there."""
    comparison = compare(pictures[1], [Blind()], cv=3)
    found = write_report(comparison, tmp_path / "page.html")
    assert found.insight.trust == ()
    assert found.insight.curves == ()
    text = (tmp_path / "page.html").read_text("utf-8").split("data-json")[0]
    assert not re.search(r"\bnan\b", re.sub(r"data:image[^\"]+", "", text), flags=re.IGNORECASE)


def test_a_layer_that_is_stored_pooled_has_a_page(
    pictures: tuple[Path, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of its cut and its pooling, as `compare` takes it."""
    fakes.install(monkeypatch)
    settings = Settings(layers=("mixed5",), pool="avg", size=16, weights="random")
    store, _ = fill_store(pictures[0], tmp_path / "pooled", settings)
    comparison = compare(store, ["knn"], layer="mixed5", pool="avg", cv=3)
    assert gathered(comparison).facts.spec["pool"] == "avg"
    with pytest.raises(LayerError, match="there pooled"):
        compare(store, ["knn"], layer="mixed5", cv=3)


def test_a_sample_of_many_rows_is_looked_at(
    pictures: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past a number of rows, mistakes and a random sample stand for all."""
    from headstart.report import insight as insight_module

    monkeypatch.setattr(insight_module, "_SPACE", 30)
    comparison = compare(pictures[1], ["ncm"], cv=3)
    found = gathered(comparison).insight
    assert found.sampled == 30
    assert len(found.maps[0].rows) == 30
    assert found.mistakes
