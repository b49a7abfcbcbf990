"""The benchmark's errands: what it runs, what it keeps, how it goes on."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import generators
import pytest

import fakes
from headstart import _tasks, cli
from headstart import bench as module
from headstart._child import in_child
from headstart.bench import bench
from headstart.cache import Store
from headstart.errors import HeadError, InterruptedRunError, LayerError
from headstart.extract import Settings
from headstart.heads import modes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headstart.heads.modes import Bench, Record

SETTINGS = Settings(size=75, weights="random")
_RUN = modes.run_mode
LIGHT: dict[str, Any] = {"heads": ["ridge"], "finetune": [], "scratch": False, "seeds": 2}
pytestmark = pytest.mark.usefixtures("fake_base")


@pytest.fixture(autouse=True)
def _no_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not time the base: it is not there."""

    monkeypatch.setattr(module, "_cost", generators.cost)
    monkeypatch.setattr(_tasks, "in_child", lambda function, *rest: function(*rest))


def test_results_are_kept_and_gone_on_with(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark that was stopped says what is kept, then runs what is missing, and only that."""
    ran: list[tuple[str, str, list[int]]] = []
    run = modes.run_mode

    def stops(what: Any, mode: str, head: str, seeds: list[int]) -> Any:
        ran.append((mode, head, seeds))
        for record in run(what, mode, head, seeds):
            yield record
            if mode == "frozen" and len(ran) == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(modes, "run_mode", stops)
    with pytest.raises(InterruptedRunError, match=r"each result so far are kept in .*out; run"):
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


def test_views_are_a_mode_beside(pets: Path, tmp_path: Path) -> None:
    """Frozen heads are trained a second time, on views as well, and measured on the same rows."""
    settings = dataclasses.replace(SETTINGS, views=2)
    found = bench(pets, tmp_path / "out", settings, **LIGHT)
    plain, views = (
        [record for record in found.records if record.mode == mode]
        for mode in ("frozen", "frozen+2views")
    )
    assert [record.seed for record in views] == [0, 1]
    for one, two in zip(plain, views, strict=True):
        assert two.head == one.head == "ridge"
        assert two.rows == 3 * one.rows
        assert len(two.right) == len(one.right)
    assert Store.open(tmp_path / "out" / "features").views().max() == 0
    assert found.break_even()["extract_seconds"] == plain[0].extract_seconds
    assert found.summaries()
    again = bench(pets, tmp_path / "out", SETTINGS, **LIGHT)
    assert {record.mode for record in again.records} == {"majority", "untrained", "frozen"}


def test_other_settings_are_refused(pets: Path, tmp_path: Path) -> None:
    """Results of other rows or recipes are never mixed; more seeds are welcome."""
    bench(pets, tmp_path / "out", SETTINGS, **LIGHT)
    with pytest.raises(HeadError, match=r"other settings \(epochs\)"):
        bench(pets, tmp_path / "out", SETTINGS, **LIGHT, epochs=9)
    fakes.draw(pets / "cat" / "new.png", seed=77)
    with pytest.raises(HeadError, match=r"other settings \(features, rows\)"):
        bench(pets, tmp_path / "out", SETTINGS, **LIGHT)


def _manifest(pets: Path, labels: Sequence[str], splits: Sequence[str]) -> Path:
    """Write which label and split each of the pictures has."""
    lines = [
        f"{path.relative_to(pets).as_posix()},{label},{split}"
        for path, label, split in zip(sorted(pets.rglob("*.png")), labels, splits, strict=True)
    ]
    file = pets / "manifest.csv"
    file.write_text("\n".join(["path,label,split", *lines]) + "\n")
    return file


@pytest.mark.parametrize("change", ["labels", "names", "splits"])
def test_results_of_other_labels_and_splits_are_refused(
    pets: Path, tmp_path: Path, change: str
) -> None:
    """The same features of the same pictures are another benchmark under other labels."""
    labels = ["cat"] * 10 + ["dog"] * 10
    splits = (["train"] * 6 + ["validation"] * 4) * 2
    bench(_manifest(pets, labels, splits), tmp_path / "out", SETTINGS, **LIGHT)
    bench(_manifest(pets, labels, splits), tmp_path / "out", SETTINGS, **LIGHT)
    if change == "labels":
        labels[0], labels[-1] = labels[-1], labels[0]
    elif change == "names":
        labels = ["wolf" if label == "dog" else label for label in labels]
    else:
        splits[0], splits[9] = splits[9], splits[0]
    with pytest.raises(HeadError, match=r"other settings \(rows\)"):
        bench(_manifest(pets, labels, splits), tmp_path / "out", SETTINGS, **LIGHT)


def test_the_base_is_timed_once_to_every_layer(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark that goes on with one more cut measures that one only."""
    timed: list[list[str]] = []

    def cost(what: Bench, layers: list[str]) -> Iterator[dict[str, Any]]:
        timed.append(layers)
        yield from generators.cost(what, layers)

    monkeypatch.setattr(module, "_cost", cost)
    monkeypatch.setattr(modes, "run_mode", _tuned)
    bench(pets, tmp_path / "out", SETTINGS, **LIGHT)
    found = bench(pets, tmp_path / "out", SETTINGS, **(LIGHT | {"finetune": ["mixed5", "all"]}))
    assert timed == [["mixed7"], ["mixed5"]]
    assert set(found.cost["base_ms"]) == {"mixed7", "mixed5"}


def _tuned(what: Bench, mode: str, head: str, seeds: list[int]) -> Iterator[Record]:
    """Run a mode; above a cut, where there is no base to tune, say that nothing was learnt."""
    run = ("majority", "-") if mode.startswith("finetune:") else (mode, head)
    for record in _RUN(what, *run, seeds):
        yield dataclasses.replace(record, mode=mode, head=head)


def test_a_mode_that_fails_does_not_keep_others_from_running(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named with its reason; what it did before is kept, and the next run tries again."""

    def diverges(what: Bench, mode: str, head: str, seeds: list[int]) -> Iterator[Record]:
        for seed in seeds:
            if (mode, seed) == ("untrained", 1):
                raise HeadError("untrained diverged at seed 1")
            yield from _RUN(what, mode, head, [seed])

    monkeypatch.setattr(modes, "run_mode", diverges)
    found = bench(pets, tmp_path / "out", SETTINGS, **LIGHT)
    failed = dict.fromkeys(("untrained ncm", "untrained softmax"), "untrained diverged at seed 1")
    assert found.failed == failed
    assert {(s.mode, s.seeds) for s in found.summaries()} == {
        ("majority", 2),
        ("untrained", 1),
        ("frozen", 2),
    }
    monkeypatch.setattr(modes, "run_mode", _RUN)
    assert bench(pets, tmp_path / "out", SETTINGS, **LIGHT).failed == {}


def test_modes_run_in_processes_of_their_own(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing here stands in for the process that trains a head and hands over its results."""
    monkeypatch.setattr(_tasks, "in_child", in_child)
    monkeypatch.setattr(module, "_entries", lambda *_, **__: [("majority", "-"), ("frozen", "ncm")])
    found = bench(pets, tmp_path / "out", SETTINGS, **LIGHT)
    kept = {(r.mode, r.head, r.seed): r for r in found.records}
    entries = (("majority", "-"), ("frozen", "ncm"))
    assert set(kept) == {(*entry, seed) for entry in entries for seed in (0, 1)}
    assert kept["majority", "-", 0].accuracy == 0.5
    assert len(kept["frozen", "ncm", 1].right) == 4
    assert 20 < kept["frozen", "ncm", 0].peak_mb < 1000


CURVE: dict[str, Any] = LIGHT | {"curve": ["frozen"], "heads": ["ridge", "ncm"]}


def test_a_learning_curve_is_kept_and_gone_on_with(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the table, point by point; a part with too few rows of a class is left out."""
    ran: list[tuple[str, list[tuple[int, float]]]] = []
    run = modes.run_parts

    def stops(what: Any, mode: str, head: str, points: list[tuple[int, float]]) -> Any:
        whole = points[0][1] == 1
        if not whole:
            ran.append((head, points))
        for record in run(what, mode, head, points):
            yield record
            if not whole and len(ran) == 1:
                raise KeyboardInterrupt

    points = [(0, 0.25), (1, 0.25), (0, 0.5), (1, 0.5)]
    monkeypatch.setattr(modes, "run_parts", stops)
    told: list[tuple[str, int, int]] = []
    with pytest.raises(InterruptedRunError):
        bench(pets, tmp_path / "out", SETTINGS, **CURVE)
    found = bench(
        pets, tmp_path / "out", SETTINGS, **CURVE, progress=lambda *step: told.append(step)
    )
    assert ran == [("ridge", points), ("ridge", points[1:]), ("ncm", points)]
    assert [step for step in told if step[0].startswith("benchmark")][-1] == (
        "benchmark (frozen ncm, learning curve)",
        7,
        7,
    )
    curve = found.curve()
    assert curve is not None
    assert {(point.head, point.rows) for point in curve.points} == {
        (f"frozen {head}", rows) for head in ("ridge", "ncm") for rows in (4, 8, 16)
    }
    kept = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [(r["head"], r["seed"], r["share"]) for r in kept["curve"]] == [
        (head, *point) for head in ("ridge", "ncm") for point in points
    ]
    assert module.load(tmp_path / "out") == found
    assert bench(pets, tmp_path / "out", SETTINGS, **LIGHT).curve() is None
    assert len(ran) == 3


def test_a_curve_has_the_cheap_modes_unless_named() -> None:
    """All frozen heads, the first cut, and from scratch without augmentation."""
    entries = module._entries(["svm", "knn"], ["all", "mixed8", "mixed7"], scratch=True)
    assert module._learning(entries, curve=False) == ()
    assert module._learning(entries, curve=True) == (
        ("frozen", "svm"),
        ("frozen", "knn"),
        ("finetune:mixed8", "softmax"),
        ("scratch", "convnet"),
    )
    assert module._learning(entries, ["finetune:all"]) == (("finetune:all", "softmax"),)
    with pytest.raises(HeadError, match="no learning curve of 'finetune:mixed9': this benchmark"):
        module._learning(entries, ["finetune:mixed9"])
    with pytest.raises(HeadError, match="trains frozen, finetune:all, "):
        module._learning(entries, ["majority"])


def test_what_cannot_run_is_refused_before_anything_is_computed(pets: Path, tmp_path: Path) -> None:
    """Unknown heads and layers are found at once."""
    with pytest.raises(HeadError, match="no head is called"):
        bench(pets, tmp_path / "out", SETTINGS, **(LIGHT | {"heads": ["forest"]}))
    with pytest.raises(LayerError):
        bench(pets, tmp_path / "out", SETTINGS, **(LIGHT | {"finetune": ["mixed99"]}))
    with pytest.raises(LayerError, match="mixed9_0 cannot be trained on its output alone"):
        bench(pets, tmp_path / "out", SETTINGS, **(LIGHT | {"finetune": ["mixed9_0"]}))
    with pytest.raises(HeadError, match="no learning curve of 'scratch'"):
        bench(pets, tmp_path / "out", SETTINGS, **LIGHT, curve=["scratch"])
    with pytest.raises(HeadError, match=r"a page is a \.md file"):
        bench(pets, tmp_path / "out", SETTINGS, **LIGHT, page=tmp_path / "page.html")
    assert not (tmp_path / "out").exists()


def test_command(
    pets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The verb runs what its options name, prints the table and answers in JSON."""
    monkeypatch.setattr(modes, "run_mode", _tuned)
    answer = tmp_path / "answer.json"
    command = ["bench", str(pets), "-o", str(tmp_path / "out"), "--size", "75"]
    options = ["--heads", "ridge,ncm", "--finetune", "mixed7", "--no-scratch", "--seeds", "1"]
    options += ["--page", str(tmp_path / "page.md"), "--curve-modes", "frozen"]
    given = [*command, "--weights", "random", *options, "--json", str(answer)]
    assert cli.main(given) == 0
    printed = capsys.readouterr().out
    assert "frozen" in printed
    assert (
        printed.splitlines()[-1] == f"With plots in {tmp_path}/out/bench.md and {tmp_path}/page.md"
    )
    for file in (tmp_path / "out" / "bench.md", tmp_path / "page.md"):
        text = file.read_text("utf-8")
        assert "| frozen | ridge |" in text
        assert f"\nheadstart {shlex.join(given)}\n" in text
        assert "## Accuracy against training rows" in text
        for link in re.findall(r"\]\((.*)\)", text):
            assert (file.parent / link).read_bytes().startswith(b"<?xml")
    before = {file: file.read_bytes() for file in tmp_path.glob("page*")}
    assert len(before) == 4
    assert cli.main(given) == 0
    assert {file: file.read_bytes() for file in tmp_path.glob("page*")} == before
    for bar, status in (("1", 1), ("0.01", 0)):
        capsys.readouterr()
        assert cli.main([*given, "--fail-under", bar]) == status
        assert ("the best accuracy is" in capsys.readouterr().err) == bool(status)
    content = json.loads(answer.read_text())
    assert [(entry["mode"], entry["head"], entry["seed"]) for entry in content["modes"]] == [
        ("majority", "-", 0),
        ("untrained", "ncm", 0),
        ("untrained", "softmax", 0),
        ("frozen", "ridge", 0),
        ("frozen", "ncm", 0),
        ("finetune:mixed7", "softmax", 0),
    ]
