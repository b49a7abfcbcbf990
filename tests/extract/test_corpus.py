"""Bad pictures: each file of the corpus has its outcome; mutants never hang, crash or bloat."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headstart.errors import UnreadableImageError
from headstart.extract.dataset import list_dataset
from headstart.extract.decode import decode
from headstart.extract.hashing import read_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes, odd names and /proc")

CORPUS = Path(__file__).with_name("corpus.py")
SEED = 20_260_101
GIB = 1 << 20  # in KiB


def _module() -> Any:
    """Import corpus.py, which lies beside the tests but in no package."""
    spec = importlib.util.spec_from_file_location("bad_pictures", CORPUS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


corpus = _module()


def outcomes_of(folder: Path) -> dict[str, str]:
    """What a run finds: for every path "" or the reason it is left out."""
    dataset = list_dataset(folder)
    found = {item.path: item.reason for item in dataset.left_out}
    for picture in dataset.pictures:
        try:
            pixels = decode(read_file(picture.file), corpus.SIZE)
            assert pixels.shape == (corpus.SIZE, corpus.SIZE, 3)
            found[picture.path] = corpus.USED
        except UnreadableImageError as error:
            found[picture.path] = str(error)
    return found


def fingerprint(folder: Path) -> dict[str, str]:
    """Every entry below the folder, with its target or content."""
    return {
        str(path.relative_to(folder)): (
            str(path.readlink())
            if path.is_symlink()
            else hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file() and os.access(path, os.R_OK)
            else str(path.lstat().st_mode)
        )
        for path in sorted(folder.rglob("*"))
    }


def test_every_file_has_its_outcome(tmp_path: Path) -> None:
    """Each of the corpus' files is used, or left out for the right reason; none is touched."""
    expected = corpus.write(tmp_path)
    assert len(expected) >= 150
    before = fingerprint(tmp_path)
    found = outcomes_of(tmp_path)
    wrong = {
        path: (outcome, found.get(path, corpus.GONE))
        for path, outcome in expected.items()
        if not _agrees(outcome, found.get(path, corpus.GONE))
    }
    assert wrong == {}
    assert found.keys() <= expected.keys()
    assert all("\n" not in reason and len(reason) < 200 for reason in found.values())
    assert fingerprint(tmp_path) == before


def _agrees(expected: str, found: str) -> bool:
    if expected in {corpus.USED, corpus.GONE}:
        return found == expected
    return expected in found


def fuzz(start: int, stop: int) -> dict[str, Any]:
    """Decode a range of mutated pictures in a process of its own and check its bounds."""
    command = [sys.executable, str(CORPUS), str(SEED), str(start), str(stop)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} died: ...{done.stderr[-3000:]}"
    summary: dict[str, Any] = json.loads(done.stdout)
    print(f"seed {SEED}, pictures {start} to {stop}: {summary}")  # noqa: T201
    assert sum(summary["kinds"].values()) == stop - start
    assert summary["slowest_seconds"] < 10
    assert summary["kib_peak"] < 1.5 * GIB
    return summary


def test_mutated_pictures_are_decoded_or_refused() -> None:
    """A share of the campaign: neither outcome is missing, or the fuzzer would prove nothing."""
    kinds = fuzz(0, 300)["kinds"]
    assert 30 < kinds["used"] < 270
    assert len(kinds) > 8


def test_a_mutant_can_be_made_again() -> None:
    """A number and a seed suffice to get a picture back."""
    few = [corpus.mutant(SEED, index) for index in range(40)]
    assert [corpus.mutant(SEED, index) for index in reversed(range(40))] == few[::-1]
    assert len(set(few)) > 35
    assert corpus.mutant(SEED + 1, 0) != few[0]


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(10))
def test_campaign_of_mutated_pictures(part: int) -> None:
    """20,000 mutated pictures in ten processes: all decoded or refused, in time and in memory."""
    kinds = fuzz(2000 * part, 2000 * (part + 1))["kinds"]
    assert 200 < kinds["used"] < 1800


LARGE = """
import io, pathlib
from PIL import Image
from headstart.extract.decode import decode
from headstart.extract.hashing import read_file

def kib(field):
    return int(pathlib.Path("/proc/self/status").read_text().split(field)[1].split()[0])

image, exif, out = Image.new("RGBA", (5000, 5000), (9, 9, 9, 99)), Image.Exif(), io.BytesIO()
exif[0x0112] = 6
image.save(out, "PNG", exif=exif, compress_level=1)
image.close()
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = kib("VmRSS:")
decode(out.getvalue(), 150)
print((kib("VmHWM:") - before) * 1024 / 25e6)
"""


def test_a_large_transparent_picture_is_held_once() -> None:
    """Compositing 25 megapixels on white and turning them takes no second picture of that size."""
    command = [sys.executable, "-c", LARGE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    bytes_per_pixel = float(done.stdout)
    assert 3.5 < bytes_per_pixel < 5.5
