"""Memory: smaller batches where there is too little of it, and no more of it for more pictures."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fakes
from headstart import cli
from headstart.cache import Store
from headstart.extract import Settings, Speed, _kept, fill_store
from headstart.extract.base import Base
from headstart.extract.engines import Program
from reliability import lab
from reliability.counts import share


def framework_error(name: str, text: str) -> Exception:
    """Return an error as a framework would raise it, without the framework."""
    error: Exception = type(name, (RuntimeError,), {})(text)
    return error


SHORT = [
    framework_error(
        "ResourceExhaustedError",
        "{{function_node __wrapped__Conv2D_device_/job:localhost/replica:0/task:0/device:CPU:0}} "
        "OOM when allocating tensor with shape[32,64,73,73] and type float on "
        "/job:localhost/replica:0/task:0/device:CPU:0 by allocator mklcpu [Op:Conv2D]",
    ),
    framework_error(
        "ResourceExhaustedError",
        "Graph execution error: OOM when allocating tensor with shape[64,80,73,73] and type float "
        "on /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc",
    ),
    framework_error(
        "XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory allocating 18253611008 bytes."
    ),
    framework_error(
        "JaxRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate"
    ),
    framework_error(
        "JaxRuntimeError",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 68719476736 bytes.\n"
        "BufferAssignment OOM Debugging.",
    ),
    RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:245:\nstd::bad_alloc"),
    MemoryError("Unable to allocate 1.50 GiB for an array with shape (64, 7, 7, 768)"),
]


class Cramped:
    """Stands in for `load_base`: a real `Base` on an engine that takes only so many pictures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fits: int, error: Exception) -> None:
        self.batches: list[int] = []
        self._fits, self._error = fits, error
        _kept.forget()
        monkeypatch.setattr("headstart.extract.base.start_engine", lambda _, program: program)
        monkeypatch.setattr(Program, "__call__", self._run, raising=False)
        monkeypatch.setattr("headstart.extract.base.load_base", self._load)
        monkeypatch.setattr("headstart.extract.weights.find_weights", fakes.fake_find_weights)
        monkeypatch.setattr("headstart.extract.layers.MIN_SIZE", 1)

    def _load(self, weights: Any, *, size: int, batch_size: int, **_: Any) -> Base:
        self._fake = fakes.FakeBase(weights, size=size, layers=("mixed7",))
        graph: Any = SimpleNamespace(outputs=("mixed7",))
        program = Program(graph, size, batch_size, "none", "float32")
        shapes = self._fake.shapes
        return Base(program, engine="keras", digest=self._fake.digest, shapes=shapes)

    def _run(self, pixels: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        self.batches.append(len(pixels))
        if len(pixels) > self._fits:
            raise self._error
        return self._fake(pixels)


@share("out of memory")
def test_smaller_batches_where_memory_is_short(
    count: int,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Callable[[str], None],
) -> None:
    """Whatever the framework calls it: the batch is halved, rows and their order are the same."""
    for number in range(count):
        fits, store = (16, 5, 2, 1)[number % 4], tmp_path / f"{number}"
        base = Cramped(monkeypatch, fits, SHORT[number % len(SHORT)])
        _, summary = fill_store(data, store, Settings(size=lab.SIZE), speed=Speed(32, 2))
        assert summary.computed == 40
        assert base.batches[0] == 32
        assert base.batches[-1] <= fits
        lab.check(store, data)
        lab.check_clean(store)
    figures(f"{count} shortages of memory, at batches above 16, 5, 2 and 1")


def test_other_errors_propagate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is no shortage of memory is not tried again."""
    base = Cramped(monkeypatch, 0, framework_error("InvalidArgumentError", "Incompatible shapes"))
    with pytest.raises(RuntimeError, match="Incompatible shapes"):
        fill_store(data, tmp_path / "store", Settings(size=lab.SIZE), speed=Speed(40))
    assert base.batches == [40]


def test_not_even_one_picture_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A batch of one that fails is one clear line, exit code 1, and no store."""
    base = Cramped(monkeypatch, 0, SHORT[0])
    data, store = fakes.draw_classes(tmp_path / "data", per_class=2), tmp_path / "store"
    code = cli.main([str(word) for word in lab.extract_words(data, store)])
    assert code == 1
    assert base.batches == [4, 2, 1]
    error = capsys.readouterr().err
    assert error.startswith("headstart: Not even one picture")
    assert error.count("\n") == 1
    assert not (store / "features.h5").exists()


def photographs(folder: Path, count: int) -> Path:
    """Write JPEG pictures of 500 x 375 pixels, two classes, no two with the same bytes."""
    base = Image.effect_noise((500, 375), 60).resize((50, 38)).resize((500, 375))
    out = io.BytesIO()
    Image.merge("RGB", (base, base.rotate(180), base.rotate(90).resize(base.size))).save(
        out, "JPEG", quality=90
    )
    start, rest = out.getvalue()[:2], out.getvalue()[2:]
    for number in range(count):
        path = folder / ("cat", "dog")[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(start + b"\xff\xfe\x00\x0a%08d" % number + rest)  # in a comment
    return folder


@share("pictures")
def test_memory_does_not_grow_with_the_dataset(
    count: int, forge: lab.Forge, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    """Peak memory of extracting ten times the pictures (in the share: three) is within 10%.

    In processes of their own, with maps of mixed7's size and the real shards of 16 MB; the
    base takes next to no memory, so that what the rest takes is seen.
    """
    peaks = {}
    for number in (500, count):
        data = photographs(tmp_path / f"data{number}", number)
        words = ("extract", data, "-o", tmp_path / f"store{number}", "--quiet", "--workers", "2")
        ended = forge.start(*words, big=True).wait(600)
        assert ended.code == 0, ended
        (peaks[number],) = ended.values("peak")
    assert len(list((tmp_path / f"store{count}" / "shards").glob("*.h5"))) > count // 250
    figures(said(peaks))
    shutil.rmtree(tmp_path)
    assert peaks[count] < 1.1 * peaks[500], peaks


def said(peaks: dict[int, int]) -> str:
    """Put peaks, in KiB by number of pictures, into words."""
    (few, less), (many, more) = peaks.items()
    growth = more / less - 1
    return f"peak {less >> 10} MiB for {few}, {more >> 10} MiB for {many}: {growth:+.1%}"


#: Runs a command, then tells the peak of its memory in KiB (that of `getrusage` would count
#: also what this process was before it became a program).
PEAK = """
import re, sys; from headstart import cli; code = cli.main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]); sys.exit(code)
"""


@pytest.mark.campaign
@pytest.mark.tensorflow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("engine", "size"), [("keras", "75"), ("openvino", "150")])
def test_memory_with_the_real_base(
    engine: str, size: str, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    """So it is with InceptionV3 itself, by either engine."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    peaks: dict[int, int] = {}
    for number in (500, 5_000):
        data, store = photographs(tmp_path / f"data{number}", number), tmp_path / f"store{number}"
        words = ["extract", str(data), "-o", str(store), "--weights", "random", "--quiet"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *words, "--engine", engine, "--size", size],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(Store.open(store)) == number
        peaks[number] = int(done.stdout)
    figures(said(peaks))
    shutil.rmtree(tmp_path)
    assert peaks[5_000] < 1.1 * peaks[500], peaks
