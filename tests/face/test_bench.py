"""The benchmark's errands: what it runs, what it keeps, how it goes on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import fakes
from headstart import bench as module
from headstart import cli
from headstart.bench import bench
from headstart.errors import HeadError, LayerError
from headstart.extract import Settings
from headstart.heads import modes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = Settings(size=75, weights="random")
LIGHT: dict[str, Any] = {"heads": ["ridge"], "finetune": [], "scratch": False, "seeds": 2}
pytestmark = pytest.mark.usefixtures("fake_base")


@pytest.fixture(autouse=True)
def _no_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not time the base: it is not there."""

    def cost(_: object) -> Iterator[dict[str, float]]:
        yield {"base_ms": 1.0, "usual_ms": 2.0}

    monkeypatch.setattr(module, "_cost", cost)
    monkeypatch.setattr(module, "in_child", lambda function, *rest: function(*rest))


def test_results_are_kept_and_gone_on_with(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark that was stopped runs what is missing, and only that."""
    ran: list[tuple[str, str, list[int]]] = []
    run = modes.run_mode

    def stops(what: Any, mode: str, head: str, seeds: list[int]) -> Any:
        ran.append((mode, head, seeds))
        for record in run(what, mode, head, seeds):
            yield record
            if mode == "frozen" and len(ran) == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(modes, "run_mode", stops)
    with pytest.raises(KeyboardInterrupt):
        bench(pets, tmp_path / "out", SETTINGS, **LIGHT)
    kept = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [(r["mode"], r["head"], r["seed"]) for r in kept["modes"]][-1] == ("frozen", "ridge", 0)
    found = bench(pets, tmp_path / "out", SETTINGS, **LIGHT)
    assert ran[-1] == ("frozen", "ridge", [1])
    assert len(ran) == 5
    assert {(s.mode, s.seeds) for s in found.summaries()} == {
        ("majority", 2),
        ("untrained", 2),
        ("frozen", 2),
    }


def test_other_settings_are_refused(pets: Path, tmp_path: Path) -> None:
    """Results of other rows or recipes are never mixed; more seeds are welcome."""
    bench(pets, tmp_path / "out", SETTINGS, **LIGHT)
    with pytest.raises(HeadError, match=r"other settings \(epochs\)"):
        bench(pets, tmp_path / "out", SETTINGS, **LIGHT, epochs=9)
    fakes.draw(pets / "cat" / "new.png", seed=77)
    with pytest.raises(HeadError, match=r"other settings \(features\)"):
        bench(pets, tmp_path / "out", SETTINGS, **LIGHT)


def test_what_cannot_run_is_refused_before_anything_is_computed(pets: Path, tmp_path: Path) -> None:
    """Unknown heads and layers are found at once."""
    with pytest.raises(HeadError, match="no head is called"):
        bench(pets, tmp_path / "out", SETTINGS, **(LIGHT | {"heads": ["forest"]}))
    with pytest.raises(LayerError):
        bench(pets, tmp_path / "out", SETTINGS, **(LIGHT | {"finetune": ["mixed99"]}))
    assert not (tmp_path / "out").exists()


def test_command(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verb prints the table and answers in JSON."""
    answer = tmp_path / "answer.json"
    options = ["--heads", "logreg,ncm", "--finetune", "mixed7", "--no-scratch", "--seeds", "1"]
    started = module._tasks([("majority", "-"), ("frozen", "ncm")], range(2), [])
    assert [task[:3] for task in started] == [("majority", "-", [0, 1]), ("frozen", "ncm", [0, 1])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_entries", lambda *_, **__: [("majority", "-"), ("frozen", "ncm")])
        command = ["bench", str(pets), "-o", str(tmp_path / "out"), "--size", "75"]
        assert cli.main([*command, "--weights", "random", *options, "--json", str(answer)]) == 0
    assert "frozen" in capsys.readouterr().out
    assert {entry["mode"] for entry in json.loads(answer.read_text())["modes"]} == {
        "majority",
        "frozen",
    }
