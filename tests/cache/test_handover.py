"""Rows in the containers of other libraries are the store's rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from headstart._keras import import_keras
from headstart.cache import Rows, Store
from headstart.cache.handover import parts
from headstart.errors import LayerError, MissingExtraError, StoreError
from stores import fill, picture_id

COUNT = 70


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Give rows in two splits; every seventh has no label."""
    folder = tmp_path_factory.mktemp("handover") / "store"
    names = [f"{number:03}.png" for number in range(COUNT)]
    rows = Rows(
        ("a", "b"),
        names,
        ["train" if number % 3 else "validation" for number in range(COUNT)],
        [-1 if number % 7 == 0 else number % 2 for number in range(COUNT)],
        [picture_id(name) for name in names],
        [0] * COUNT,
        {"camera": [str(number % 4) for number in range(COUNT)]},
    )
    fill(folder, rows, shard=16)
    return Store.open(folder)


@pytest.mark.parametrize("split", [None, "train", "validation"])
def test_arrays_are_the_labelled_rows(store: Store, split: str | None) -> None:
    """Features and labels of the same rows, in order; those without a label are left out."""
    X, y = store.to_numpy(split=split)
    rows = [row for row in store.rows(split) if store.labels()[row] >= 0]
    np.testing.assert_array_equal(X, store.features(rows=np.array(rows)))
    np.testing.assert_array_equal(y, store.labels()[rows])
    pooled, _ = store.to_numpy(split=split, pool="avg", dtype="float16")
    assert pooled.shape == (len(rows), 4)
    assert pooled.dtype == np.float16
    with pytest.raises(LayerError, match="mixed3"):
        store.to_numpy("mixed3")


@pytest.mark.tensorflow
def test_datasets_are_the_labelled_rows(store: Store) -> None:
    """Batch after batch; shuffled, each pass has another order of the same rows."""
    import_keras()
    X, y = store.to_numpy(split="train", dtype="float16")
    found = store.to_tf_dataset(split="train", batch_size=7, dtype="float16")
    batches = [(a.numpy(), b.numpy()) for a, b in found]
    assert [len(b) for _, b in batches] == [7] * (len(y) // 7) + [len(y) % 7]
    assert int(found.cardinality()) == len(batches)
    np.testing.assert_array_equal(np.concatenate([a for a, _ in batches]), X)
    np.testing.assert_array_equal(np.concatenate([b for _, b in batches]), y)

    def passes(seed: int) -> list[list[tuple[float, int]]]:
        shuffled = store.to_tf_dataset(pool="avg", shuffle=True, seed=seed, batch_size=16)
        return [
            [(float(x[0]), int(k)) for a, b in shuffled for x, k in zip(a, b, strict=True)]
            for _ in range(2)
        ]

    pooled, labels = store.to_numpy(pool="avg")
    expected = sorted(zip(pooled[:, 0].tolist(), labels.tolist(), strict=True))
    first, second = passes(5)
    assert sorted(first) == sorted(second) == expected
    assert first != second
    assert passes(5) == [first, second]
    with pytest.raises(StoreError, match="batch_size must be 1 or more; found 0"):
        store.to_tf_dataset(batch_size=0)


def test_parts_hold_every_row_once() -> None:
    """Whatever the size, drawn or not; rows that are read together are near each other."""
    rows = np.arange(1000) * 2
    for size in (1, 64, 999, 5000):
        for draw in (None, np.random.default_rng(0)):
            found = list(parts(rows, size, draw))
            assert sorted(np.concatenate(found).tolist()) == rows.tolist()
            assert {len(part) for part in found[:-1]} <= {size}
    drawn = next(parts(rows, 64, np.random.default_rng(0)))
    assert len(set((drawn // 64).tolist())) <= 3
    assert drawn.tolist() != sorted(drawn.tolist())
    assert list(parts(rows[:0], 8, np.random.default_rng(0))) == []


def test_frames_are_the_rows(store: Store) -> None:
    """One line a row, in their order, the manifest's columns last."""
    frame = store.to_frame()
    assert list(frame.columns) == ["path", "label", "split", "view", "image_sha256", "camera"]
    assert frame["path"].tolist() == store.paths()
    assert frame["label"].isna().sum() == 10
    assert frame["label"].cat.codes.tolist() == store.labels().tolist()
    assert frame["split"].tolist() == store.splits().tolist()
    assert frame["image_sha256"][3].encode() == picture_id("003.png")
    assert frame["camera"].tolist() == store.column("camera").tolist()


def test_pandas_is_asked_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the error names what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"headstart\[pandas\]"):
        store.to_frame()


def test_nothing_is_imported_before(tmp_path: Path) -> None:
    """Reading rows as arrays needs neither TensorFlow nor pandas."""
    import subprocess

    code = "import sys, headstart.cache.handover; print({'tensorflow', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
