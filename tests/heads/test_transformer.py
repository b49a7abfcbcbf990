"""Pictures to features inside scikit-learn, each computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import fakes
from headstart.cache import Store
from headstart.errors import DataError, SpecMismatchError
from headstart.extract import Settings, fill_store
from headstart.extract import base as base_module
from headstart.heads.transformer import InceptionFeatures

SIZE = 16
pytestmark = pytest.mark.usefixtures("fake_base")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the pictures that go through the base."""
    counts: list[int] = []

    class Counting(fakes.FakeBase):
        def __call__(self, pixels: Any) -> Any:
            counts.append(len(pixels))
            return super().__call__(pixels)

    monkeypatch.setattr(base_module, "load_base", Counting)
    return counts


def files(pets: Path) -> list[Path]:
    return sorted(pets.rglob("*.png"))


def test_a_search_computes_no_picture_twice(
    pets: Path, tmp_path: Path, computed: list[int]
) -> None:
    """A pipeline is cloned, searched and cross-validated; the base sees each picture once."""
    features = InceptionFeatures(tmp_path / "cache", size=SIZE, weights="random")
    pipeline = make_pipeline(features, LogisticRegression())
    paths = [str(file) for file in files(pets)]
    labels = [file.parent.name for file in files(pets)]
    search = GridSearchCV(clone(pipeline), {"logisticregression__C": [0.1, 10.0]}, cv=3)
    search.fit(paths, labels)
    assert search.score(paths, labels) > 0.8
    scores = cross_val_score(clone(pipeline), paths, labels, cv=4)
    assert np.isfinite(scores).all()
    assert sum(computed) == len(paths)
    assert Store.open(tmp_path / "cache").labels().tolist() == [-1] * len(paths)


def test_rows_of_a_store_are_used_and_kept(pets: Path, tmp_path: Path, computed: list[int]) -> None:
    """What was extracted is read, in the order asked for; new pictures become further rows."""
    store, _ = fill_store(pets, tmp_path / "store", Settings(size=SIZE, weights="random"))
    done = sum(computed)
    chosen = [store.paths()[n] for n in (7, 3, 3, 12)]
    found = InceptionFeatures(store.path).transform([pets / path for path in chosen])
    assert sum(computed) == done
    expected = store.features(dtype="float32")[[7, 3, 3, 12]].reshape(4, -1)
    assert np.array_equal(found, expected)
    new = fakes.draw(tmp_path / "new.png", seed=99)
    again = InceptionFeatures(store.path).transform([new, pets / chosen[0]])
    assert sum(computed) == done + 1
    assert np.array_equal(again[1], found[0])
    after = Store.open(store.path)
    assert after.paths()[:-1] == store.paths()
    assert after.paths()[-1] == str(new)
    assert after.labels().tolist() == [*store.labels().tolist(), -1]
    assert after.classes == store.classes


def test_a_file_that_changed_is_another_picture(pets: Path, tmp_path: Path) -> None:
    """Content decides, not the path: both are kept."""
    cache, file = tmp_path / "cache", files(pets)[0]
    features = InceptionFeatures(cache, size=SIZE, weights="random")
    before = features.transform([file])
    fakes.draw(file, seed=1234)
    after = features.transform([file])
    assert not np.array_equal(before, after)
    assert Store.open(cache).paths() == [str(file), f"{file} (2)"]


@pytest.mark.parametrize("cache", [True, False])
def test_arrays_are_pictures_too(pets: Path, tmp_path: Path, cache: bool) -> None:
    """A decoded picture gives the features of its file, with a cache and without."""
    features = InceptionFeatures(tmp_path / "c" if cache else None, size=SIZE, weights="random")
    arrays = [np.array(Image.open(file)) for file in files(pets)]
    assert np.array_equal(features.fit_transform(arrays), features.transform(files(pets)))
    pooled = clone(features).set_params(pool="avg").transform(arrays)
    assert pooled.shape == (len(arrays), fakes.SHAPES["mixed7"][-1])


def test_what_cannot_be_used_is_refused(pets: Path, tmp_path: Path) -> None:
    """A picture without features is named; so are an array that is none, and another spec."""
    features = InceptionFeatures(tmp_path / "cache", size=SIZE, weights="random")
    good = files(pets)[:2]
    (pets / "bad.png").write_bytes(b"no picture")
    for pictures, message in (
        ([pets / "bad.png"], "leave this one out"),
        ([pets / "nothing.png"], "leave this one out"),
        ([np.zeros((4, 4), np.uint8)], "found \\(4, 4\\) of uint8"),
    ):
        with pytest.raises(DataError, match=message):
            features.transform([*good, *pictures])
    features.transform(good)
    with pytest.raises(SpecMismatchError, match="size"):
        clone(features).set_params(size=SIZE + 1).transform(good)
