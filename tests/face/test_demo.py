"""The demo: the whole story, on the real base."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import demo as module
from headstart.demo import best_weights, demo, weights_of
from headstart.errors import WeightsError
from headstart.extract import weights


@pytest.mark.tensorflow
def test_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn, extracted once, found again, and heads are compared.

    What it says to type next names the weights it took, and the next demo takes them again.
    """
    from headstart import _pictures

    draw = _pictures.draw_dataset
    monkeypatch.setattr(_pictures, "draw_dataset", lambda place: draw(place, per_class=12))
    monkeypatch.setattr(module, "HEADS", ("logreg", "svm"))
    told: list[str] = []
    comparison = demo(tmp_path / "demo", weights="random", say=told.append)
    story = "\n".join(told)
    assert "computed 48, reused 0" in story
    assert "computed 0, reused 48" in story
    assert "headstart extract pets/ -o pets.features --weights random" in story
    assert weights_of(tmp_path / "demo" / "pictures.features") == "random"
    content = comparison.to_dict()
    assert {head["head"] for head in content["heads"]} == {"logreg", "svm"}
    assert content["rows"] == 48


@pytest.mark.parametrize(
    ("had", "chosen"),
    [({"imagenet", "registry"}, "imagenet"), ({"registry"}, "registry"), ((), "random")],
)
def test_best_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, had: set[str], chosen: str
) -> None:
    """The best weights within reach; random ones come with a loud warning."""

    def find(name: str) -> None:
        if name not in had:
            raise WeightsError("out of reach")

    monkeypatch.setattr(weights, "find_weights", find)
    told: list[str] = []
    assert best_weights(told.append) == chosen
    assert ("WARNING" in "".join(told)) == (chosen == "random")
    assert ("out of reach" in "".join(told)) == (chosen != "imagenet")
    assert weights_of(tmp_path / "nothing") is None
