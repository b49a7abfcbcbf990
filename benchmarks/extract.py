"""Extraction against the other ways of doing it, and against what its own stages allow.

    python benchmarks/extract.py --peers ~/peers --pictures DIR --json FILE      # everything
    python benchmarks/extract.py                          # ours and the notebook way alone
    python benchmarks/extract.py --quick                  # a look whether it works

All sides read the same JPEGs, run in processes of their own, are warmed once and then take turns; a
side that takes eight times as long as the fastest takes one. A side that is not there says why.
`--peers` names a folder for the peers' own environments, made on first use (3 GB); THINGSvision
needs a Python 3.10 (`--python310`). An environment made there by hand, such as one with a PyTorch
for CPUs alone, is taken as it is if it has a file `complete`. `--pictures` is a class folder of
real pictures, for precision and storage. Everything takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jpegs import draw
from storage import READ, storage

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDES = Path(__file__).parent / "sides"
TORCH = ["torch==2.13.0", "h5py", "numpy", "pillow", "platformdirs", "zlib-ng"]
THINGS = ["thingsvision==2.7.3", "h5py"]
OURS = {"headstart": "keras", "headstart[cpu]": "openvino"}
NOTEBOOK = "notebook"
TORCH_SIDE = "PyTorch compiled"
FIRST = "seconds to the first batch"
_BEYOND = "share of a fresh process beyond start-up, wall"
_HOPELESS = 8  # times the fastest side's seconds: such a side takes one round


def main() -> None:
    started = time.perf_counter()
    options = _options()
    with tempfile.TemporaryDirectory(prefix="headstart-bench-") as scratch:
        folder = Path(scratch)
        draw(folder / "pictures", options.images)
        draw(folder / "warm", 64)
        report = {"machine": machine(), "images": options.images, "weights": options.weights}
        report |= race(folder, options)
        lots = [in_turns(folder, options, report["sides"])]
        report["fresh"] = fresh(folder, options)
        lots.append(in_turns(folder, options, report["sides"]))
        report["pooled"] = pooled(folder, options)
        if options.pictures:
            report["real pictures"] = real(folder, options)
        lots.append(in_turns(folder, options, report["sides"]))
    report["roofline"] = {name: roofline([lot[name] for lot in lots]) for name in lots[0]}
    shares(report["roofline"], report["fresh"])
    report["acceptance"] = acceptance(report)
    report["minutes"] = round((time.perf_counter() - started) / 60, 1)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="96 images, one round")
    parser.add_argument("--weights", default="registry", help="as for headstart extract")
    parser.add_argument("--peers", type=Path, help="folder for the peers' environments")
    parser.add_argument("--python310", default="python3.10", help="for THINGSvision")
    parser.add_argument("--pictures", type=Path, help="a class folder of real pictures")
    parser.add_argument("--json", type=Path, help="where to write the report")
    options = parser.parse_args()
    if options.quick:
        options.images, options.rounds = 96, 1
    return options


def machine() -> dict[str, Any]:
    names = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    cores = len(os.sched_getaffinity(0))
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": sorted(names),
        "cores": cores,
        "load": os.getloadavg()[0],
        "os": platform.platform(),
    }


# --- the race ----------------------------------------------------------------------------------


@dataclass
class Side:
    """A warmed process, and what its runs took."""

    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    core: list[float] = field(default_factory=list)

    def answer(self) -> dict[str, Any]:
        """Read the side's next line, past what its libraries print."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError("the side ended")

    def run(self, out: Path) -> None:
        """Have all pictures extracted into `out`, and note what it took."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{out}\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.seconds.append(answer["seconds"] / answer["images"])
        self.core.append(answer["core"] / answer["images"])


class Turn(NamedTuple):
    """Core-seconds an image of each stage alone, then seconds and core-seconds of a run."""

    stages: dict[str, float]
    seconds: float
    core: float


def race(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Let all sides take turns; images a second and core-milliseconds an image, medians."""
    commands, missing = sides(folder, options)
    running: dict[str, Side] = {}
    for name, command in commands.items():
        with (folder / f"{_slug(name)}.log").open("w+") as log:
            try:
                running[name] = _start(command, log)
            except RuntimeError:
                log.seek(0)
                if name in OURS or name == NOTEBOOK:
                    raise RuntimeError(log.read()) from None
                missing[name] = "did not start: " + (log.read().strip().splitlines() or [""])[-1]
    racing = running.values()
    for turn in range(options.rounds):
        for name, side in running.items():
            if turn and side.seconds[0] > _HOPELESS * min(each.seconds[0] for each in racing):
                continue
            side.run(folder / f"{_slug(name)}-{turn}.h5")
            print(f"round {turn + 1}: {name}: {1 / side.seconds[-1]:.1f} images/s", file=sys.stderr)
            _remove(folder / f"{_slug(name)}-{turn}.h5")
    for side in running.values():
        side.process.communicate()
    figures = {
        name: {
            "images/s": round(1 / statistics.median(side.seconds), 1),
            "of each round": [round(1 / each, 1) for each in side.seconds],
            "core-ms/image": round(1000 * statistics.median(side.core), 2),
        }
        for name, side in running.items()
    }
    return {"sides": figures, "missing": missing, "ratios": ratios(running)}


def ratios(running: dict[str, Side]) -> dict[str, Any]:
    """How many times each other side's speed ours is: median over rounds, wall and core."""
    found = {}
    for ours in OURS:
        for name, side in running.items():
            if ours in running and name not in OURS:
                pairs = zip(side.seconds, running[ours].seconds, strict=False)
                cores = zip(side.core, running[ours].core, strict=False)
                found[f"{ours} / {name}"] = {
                    "wall": round(statistics.median(a / b for a, b in pairs), 2),
                    "core": round(statistics.median(a / b for a, b in cores), 2),
                }
    return found


def _start(command: list[str], log: IO[str]) -> Side:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=_env()
    )
    side = Side(process)
    side.answer()
    return side


def _env() -> dict[str, str]:
    """Let the peers see our description of the network."""
    import headstart.errors

    paths = [str(Path(headstart.errors.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def sides(folder: Path, options: argparse.Namespace) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Commands of the sides that can run here, and why the others cannot."""
    where = [str(folder / "pictures"), str(folder / "warm"), str(folder)]
    python, weights = sys.executable, options.weights
    commands = {NOTEBOOK: [python, str(SIDES / "notebook.py"), *where, weights]}
    missing = {}
    for name, engine in OURS.items():
        if not _has(engine):
            missing[name] = "OpenVINO is not installed: pip install './headstart[cpu]'"
        else:
            commands[name] = _ours(folder, name, weights)
    peers = {
        TORCH_SIDE: (sys.executable, TORCH, [str(SIDES / "pytorch.py"), *where]),
        "THINGSvision Keras": (
            options.python310,
            THINGS,
            [str(SIDES / "things.py"), "keras", *where],
        ),
        "THINGSvision torchvision": (
            options.python310,
            THINGS,
            [str(SIDES / "things.py"), "torchvision", *where],
        ),
    }
    for name, (interpreter, packages, arguments) in peers.items():
        if options.peers is None:
            missing[name] = "give --peers DIR for its environment"
            continue
        try:
            commands[name] = [environment(options.peers, interpreter, packages), *arguments]
        except (OSError, subprocess.CalledProcessError) as error:
            missing[name] = f"its environment could not be made: {error}"
    return commands, missing


def _ours(folder: Path, name: str, weights: str) -> list[str]:
    where = [str(folder / "pictures"), str(folder / "warm"), str(folder)]
    return [sys.executable, str(SIDES / "ours.py"), "side", *where, OURS[name], weights]


def environment(folder: Path, interpreter: str, packages: list[str]) -> str:
    """Python of an environment with these packages, made on first use."""
    home = folder / _slug(packages[0])
    python, done = home / "bin" / "python", home / "complete"
    if not done.exists():
        print(f"installing {packages[0]} into {home}", file=sys.stderr)
        subprocess.run([interpreter, "-m", "venv", "--clear", str(home)], check=True)
        quiet = [str(python), "-m", "pip", "install", "-q", "--no-warn-script-location"]
        subprocess.run([*quiet, *packages], check=True)
        done.touch()
    return str(python)


# --- the roofline ------------------------------------------------------------------------------


def in_turns(
    folder: Path, options: argparse.Namespace, sides: dict[str, Any]
) -> dict[str, list[Turn]]:
    """Let the stages, each alone in a fresh process, and runs of a warm one take turns.

    A machine may drift by a tenth within minutes: so they take turns, and there are several lots
    of turns in a run of this script, each with a process of its own.
    """
    found: dict[str, list[Turn]] = {}
    for name in filter(OURS.__contains__, sides):
        where = (folder / "pictures", folder, OURS[name], options.weights)
        with (folder / f"{_slug(name)}-warm.log").open("w") as log:
            side = _start(_ours(folder, name, options.weights), log)
        out, stages = folder / f"{_slug(name)}-warm", [{}]  # of the first run, which warms up
        for turn in range(1 + (options.rounds + 1) // 2):
            if turn:
                stages.append(_ask("stages", *where))
            side.run(out)
            _remove(out)
        side.process.communicate()
        turns = zip(stages, side.seconds, side.core, strict=True)
        found[name] = [Turn(*turn) for turn in turns][1:]
    return found


def roofline(lots: Sequence[Sequence[Turn]]) -> dict[str, Any]:
    """Add up the stages, and see what share of that bound is reached; medians over turns."""
    cores, turns = len(os.sched_getaffinity(0)), [turn for lot in lots for turn in lot]
    totals = [sum(turn.stages.values()) for turn in turns]
    reached = {
        "wall": [total / cores / turn.seconds for total, turn in zip(totals, turns, strict=True)],
        "core": [total / turn.core for total, turn in zip(totals, turns, strict=True)],
    }
    walls = iter(reached["wall"])
    return {
        "core-ms/image": {
            stage: round(1000 * statistics.median(turn.stages[stage] for turn in turns), 2)
            for stage in turns[0].stages
        },
        "bound, images/s": round(cores / statistics.median(totals), 1),
        "images/s, in turns": round(1 / statistics.median(turn.seconds for turn in turns), 1),
        **{
            f"share reached, {kind}": round(statistics.median(shares), 3)
            for kind, shares in reached.items()
        },
        "of each turn, wall, by lots": [[round(next(walls), 3) for _ in lot] for lot in lots],
    }


def fresh(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run in fresh processes, with a third of the pictures and with all; medians.

    What the further two thirds cost is what a picture costs beyond start-up.
    """
    found: dict[str, Any] = {}
    third = folder / "third"
    shutil.copytree(folder / "pictures", third)
    for path in sorted(third.rglob("*.jpg"), key=lambda path: path.name)[options.images // 3 :]:
        path.unlink()
    sizes = {"third": options.images // 3, "pictures": options.images}
    for name, engine in OURS.items():
        if not _has(engine):
            continue
        runs: dict[str, list[dict[str, Any]]] = {size: [] for size in sizes}
        for turn in range(options.rounds):
            for size, taken in runs.items():
                out = folder / f"{_slug(name)}-{size}-{turn}"
                taken.append(_ask("once", folder / size, out, engine, options.weights))
        middle = {
            size: {key: statistics.median(run[key] for run in taken) for key in taken[0]}
            for size, taken in runs.items()
        }
        few, all_ = middle["third"], middle["pictures"]
        more = sizes["pictures"] - sizes["third"]
        found[name] = {
            FIRST: round(max(few["first"], all_["first"]), 1),
            "peak MB, a third and all": [int(few["peak"]) >> 20, int(all_["peak"]) >> 20],
            "images/s, start-up included": round(options.images / all_["seconds"], 1),
            "images/s beyond start-up": round(more / (all_["seconds"] - few["seconds"]), 1),
            "core-ms/image beyond start-up": round(1000 * (all_["core"] - few["core"]) / more, 2),
        }
    return found


def shares(roofline: dict[str, Any], fresh: dict[str, Any]) -> None:
    """Add to each roofline what share of it a fresh process reaches, start-up included or not."""
    for name, found in roofline.items():
        mine, bound, stages = fresh[name], found["bound, images/s"], found["core-ms/image"]
        core = sum(stages.values()) / mine["core-ms/image beyond start-up"]
        for key in ("start-up included", "beyond start-up"):
            reached = mine[f"images/s{', ' if key.endswith('included') else ' '}{key}"]
            found[f"share of a fresh process {key}, wall"] = round(reached / bound, 3)
        found["share of a fresh process beyond start-up, core"] = round(core, 3)


def pooled(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all mixed layers, pooled, in one pass: times what the deepest alone costs."""
    return {
        name: _ask("pooled", folder / "pictures", folder, engine, options.weights, options.rounds)
        for name, engine in OURS.items()
        if _has(engine)
    }


def _has(engine: str) -> bool:
    return engine == "keras" or importlib.util.find_spec(engine) is not None


def _ask(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, str(SIDES / "ours.py"), *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=_env())
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- real pictures -----------------------------------------------------------------------------


def real(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Precision against float32 with Keras, and storage, on a class folder of real pictures."""
    import headstart

    kinds = {"headstart, float32": ("keras", "float32")}
    kinds |= {name: (engine, "bfloat16") for name, engine in OURS.items() if _has(engine)}
    stores = {
        name: headstart.extract(
            options.pictures,
            folder / f"real-{_slug(name)}",
            engine=engine,
            precision=precision,
            weights=options.weights,
        )
        for name, (engine, precision) in kinds.items()
    }
    first = stores["headstart, float32"]
    exact = first.features().reshape(len(first), -1)
    found: dict[str, Any] = {}
    for name, store in stores.items():
        heads = headstart.compare(store).to_dict()["heads"]
        accuracy = {head["head"]: [head["accuracy"], *head["ci95"]] for head in heads}
        found[name] = {
            "pictures": len(exact),
            **_cosines(exact, store),
            **storage(store),
            "accuracy and its interval": accuracy,
        }
    return found


def _cosines(exact: Any, store: Any) -> dict[str, float]:
    found = store.features().reshape(len(exact), -1)
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    cosines = np.einsum("ij,ij->i", exact, found, dtype=np.float64) / lengths
    return {
        "least cosine": round(float(cosines.min()), 6),
        "mean cosine": round(float(cosines.mean()), 6),
    }


# --- what was asked for ------------------------------------------------------------------------


def acceptance(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the figures against the bars of the issue; a figure that is missing meets none."""
    default, extra = OURS
    ratios, sides = report["ratios"], report["sides"]
    rate = {name: side["images/s"] for name, side in sides.items()}
    things = max((rate[name] for name in rate if name.startswith("THINGS")), default=None)
    lines = [
        _line("times the notebook way", _get(ratios, f"{default} / {NOTEBOOK}", "wall"), 1.7),
        _line("same, with the extra", _get(ratios, f"{extra} / {NOTEBOOK}", "wall"), 2.1),
        _line("times THINGSvision's faster", things and rate[default] / things, 3.0),
        _line("times PyTorch compiled", _get(ratios, f"{default} / {TORCH_SIDE}", "wall"), 0.9),
        _line("same, with the extra", _get(ratios, f"{extra} / {TORCH_SIDE}", "wall"), 1.0),
    ]
    for name in filter(rate.__contains__, OURS):
        roofline, fresh = report["roofline"][name], report["fresh"][name]
        peaks = fresh["peak MB, a third and all"]
        lines += [
            _line(f"{name}: share of the roofline", roofline["share reached, wall"], 0.9),
            _line(f"{name}: same, of a fresh process beyond start-up", roofline[_BEYOND], 0.9),
            _line(f"{name}: s to the first batch", fresh[FIRST], 8.0, most=True),
            _line(f"{name}: memory, all / a third", peaks[1] / peaks[0], 1.05, most=True),
            _line(
                f"{name}: all layers pooled / deepest",
                report["pooled"][name]["core"],
                1.05,
                most=True,
            ),
        ]
    for name in filter(rate.__contains__, OURS):
        lines += _real_lines(name, report.get("real pictures", {}))
    return lines


def _real_lines(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold what was found on real pictures with one engine against the bars."""
    mine = found.get(name, {})
    accuracies = mine.get("accuracy and its interval", {})
    exact = _get(found, "headstart, float32", "accuracy and its interval") or {}
    within = [
        exact[head][1] <= accuracy <= exact[head][2] for head, (accuracy, *_) in accuracies.items()
    ]
    return [
        _line(f"{name}: least cosine to float32", mine.get("least cosine"), 0.999),
        _line(
            f"{name}: heads within float32's interval",
            sum(within) / len(within) if within else None,
            1.0,
        ),
        _line(f"{name}: KB an image", mine.get("KB/image"), 26.0, most=True),
        _line(f"{name}: images read a core-second", mine.get(READ), 5000),
    ]


def _get(tree: dict[str, Any], *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key, {})
    return tree or None


def _line(name: str, found: float | None, bar: float, *, most: bool = False) -> dict[str, Any]:
    met = None if found is None else bool(found <= bar if most else found >= bar)
    return {"what": name, "found": found, "at most" if most else "at least": bar, "met": met}


def table(report: dict[str, Any]) -> str:
    """Lay the report out to be read."""
    rows = [f"{'side':28}{'images/s':>10}{'core-ms/image':>16}"]
    rows += [
        f"{name:28}{side['images/s']:10.1f}{side['core-ms/image']:16.2f}"
        for name, side in report["sides"].items()
    ]
    rows += [f"{name:28}  {reason}" for name, reason in report["missing"].items()]
    for name, roofline in report["roofline"].items():
        rows += ["", f"{name}: roofline"]
        rows += [f"  {key:52}{value}" for key, value in roofline.items()]
    rows += ["", f"{'asked for':58}{'found':>10}{'bar':>15}"]
    for line in report["acceptance"]:
        kind = "at most" if "at most" in line else "at least"
        found = "-" if line["found"] is None else f"{line['found']:.4g}"
        met = {None: "not measured", True: "met", False: "NOT MET"}[line["met"]]
        rows.append(f"{line['what']:58}{found:>10}{f'{kind} {line[kind]:g}':>15}  {met}")
    rows.append(f"\n{report['images']} images, {report['minutes']} minutes; {report['machine']}")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
