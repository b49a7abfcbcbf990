"""The demo's pictures: the same for the same seed, and not to be told apart by colour."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from headstart._pictures import CREATURES, draw_dataset, draw_picture
from headstart.extract.dataset import list_dataset
from headstart.extract.hashing import read_file

if TYPE_CHECKING:
    from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.jpg"))
    }


def test_the_same_seed_draws_the_same_bytes(tmp_path: Path) -> None:
    """Drawn again, or more of them drawn, every picture is the same to the byte."""
    few = digests(draw_dataset(tmp_path / "few", per_class=2))
    more = digests(draw_dataset(tmp_path / "more", per_class=3))
    other = digests(draw_dataset(tmp_path / "other", per_class=2, seed=1))
    assert few.items() <= more.items()
    assert not set(few.values()) & set(other.values())
    assert len(set(more.values())) == 3 * len(CREATURES)


def test_it_is_a_dataset_of_jpeg_pictures(tmp_path: Path) -> None:
    """A class folder like a user's: at least three classes, JPEG, 160 to 200 pixels a side."""
    found = list_dataset(draw_dataset(tmp_path, per_class=3))
    assert found.classes == tuple(sorted(CREATURES))
    assert len(found.classes) >= 3
    assert len(found.pictures) == 3 * len(found.classes)
    for picture in found.pictures:
        with Image.open(io.BytesIO(read_file(picture.file))) as image:
            assert image.format == "JPEG"
            assert all(160 <= side <= 200 for side in image.size)


def test_colours_do_not_give_the_class_away() -> None:
    """A classifier that sees only how much of each colour there is hardly beats chance."""
    colours, labels = [], []
    for label, name in enumerate(CREATURES):
        for index in range(40):
            rng = np.random.default_rng((9, label, index))
            pixels = np.asarray(draw_picture(name, rng), np.float64) / 255
            colours.append(np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1))]))
            labels.append(label)
    accuracy = cross_val_score(LogisticRegression(max_iter=1000), colours, labels, cv=4).mean()
    assert accuracy < 1 / len(CREATURES) + 0.15
