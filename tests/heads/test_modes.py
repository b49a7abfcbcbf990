"""Every mode of the benchmark on a problem whose outcome is known: red pictures, blue pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from headstart._keras import import_keras
from headstart.cache import Store
from headstart.errors import HeadError, WeightsError
from headstart.extract import Settings, fill_store
from headstart.extract.pixels import decode_rows
from headstart.heads.modes import Bench, Record, base_cost, check_mode, run_mode, split_of
from headstart.heads.splits import labelled_rows

if TYPE_CHECKING:
    from pathlib import Path

SIZE, EACH = 75, {"blue": 16, "red": 24}
pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a benchmark of red and blue pictures, the brightness of which says nothing."""
    folder: Path = tmp_path_factory.mktemp("painted")
    draw = np.random.default_rng(0)
    for channel, (name, count) in zip((2, 0), EACH.items(), strict=True):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(count):
            picture = draw.integers(0, 120, (SIZE, SIZE, 3))
            picture[..., channel] += 80
            image = Image.fromarray(picture.astype(np.uint8))
            image.save(folder / "pictures" / name / f"{number}.png")
    settings = Settings(
        layers=("mixed7", "mixed9"),
        size=SIZE,
        weights="random",
        engine="keras",
        precision="float32",
    )
    store, summary = fill_store(folder / "pictures", folder / "features", settings)
    pixels = decode_rows(store, summary.source, folder)
    return Bench(str(store.path), str(pixels), "random", "mixed7", epochs=3)


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run networks step by step: to compile one takes longer than all its steps here."""
    import_keras()
    from headstart.heads import networks

    compiled = networks.compile_for_training

    def eager(model: Any, learning_rate: float) -> None:
        compiled(model, learning_rate)
        model.run_eagerly = True

    monkeypatch.setattr(networks, "compile_for_training", eager)


def measured(bench: Bench, mode: str, head: str, seed: int = 0) -> Record:
    """Run one mode with one seed."""
    (record,) = run_mode(bench, mode, head, [seed])
    assert (record.mode, record.head, record.seed) == (mode, head, seed)
    assert len(record.right) == sum(EACH.values()) // 5
    assert record.accuracy == record.right.count("1") / len(record.right)
    assert record.peak_mb > 50
    return record


def test_majority_is_right_on_the_larger_class(painted: Bench) -> None:
    """Nothing is trained, nothing extracted, and the log loss is that of the classes' shares."""
    record = measured(painted, "majority", "-")
    store = Store.open(painted.store)
    train, test = split_of(store, labelled_rows(store, None), 0)
    share, red = store.labels()[train].mean(), store.labels()[test].mean()
    assert record.accuracy == red
    assert record.log_loss == pytest.approx(-red * np.log(share) - (1 - red) * np.log(1 - share))
    assert (record.extract_seconds, record.train_seconds, record.trained_parameters) == (0, 0, 0)


def test_untrained_softmax_knows_nothing(painted: Bench) -> None:
    """Random weights are right by chance only, and differ from seed to seed."""
    records = [measured(painted, "untrained", "softmax", seed) for seed in range(5)]
    assert 0.2 < np.mean([record.accuracy for record in records]) < 0.8
    assert len({record.log_loss for record in records}) == 5
    assert all(record.log_loss > 0.5 for record in records)


@pytest.mark.parametrize(
    ("mode", "head", "parameters"),
    [
        ("untrained", "ncm", 0),
        ("frozen", "logreg", 3 * 3 * 768 + 1),
        ("frozen", "svm", 3 * 3 * 768 + 1),
        ("finetune:mixed9", "softmax", 6_070_272 + 4098),
        ("scratch", "convnet", 448 + 4640 + 18496 + (7 * 7 * 64 + 1) * 512 + 513 * 2),
    ],
)
def test_every_mode_tells_red_from_blue(
    painted: Bench, mode: str, head: str, parameters: int
) -> None:
    """Whatever is trained, and means of features too, reaches 100%; its parameters are counted."""
    record = measured(painted, mode, head)
    assert record.accuracy == 1.0
    assert record.log_loss < 0.5
    assert record.trained_parameters == parameters
    assert (record.extract_seconds > 0) == (mode != "scratch")
    assert (record.epochs > 0) == (head in ("softmax", "convnet"))


def test_the_whole_network_is_trained_from_pixels(painted: Bench) -> None:
    """``finetune:all`` trains all but batch normalisation, and needs no features."""
    record = measured(painted, "finetune:all", "softmax")
    assert record.accuracy == 1.0
    assert record.extract_seconds == 0
    assert record.trained_parameters > 21_000_000


def test_each_seed_has_a_fold_of_its_own(painted: Bench) -> None:
    """Five seeds measure every row once; two runs of one seed measure the same rows."""
    store = Store.open(painted.store)
    rows = labelled_rows(store, None)
    tested = [split_of(store, rows, seed)[1] for seed in range(5)]
    assert sorted(np.concatenate(tested)) == list(range(len(store)))
    np.testing.assert_array_equal(split_of(store, rows, 3)[1], tested[3])


def test_base_is_timed(painted: Bench) -> None:
    """What the base costs is measured both ways."""
    cost = base_cost(painted)
    assert set(cost) == {"base_ms", "usual_ms"}
    assert all(milliseconds > 0 for milliseconds in cost.values())


def test_other_weights_are_refused(painted: Bench) -> None:
    """The tail must continue the very base whose features are cached."""
    other = Bench(painted.store, painted.pixels, "random:7", "mixed7")
    with pytest.raises(WeightsError, match="random:7 are not those of"):
        next(run_mode(other, "finetune:mixed9", "softmax", [0]))


@pytest.mark.parametrize(
    ("mode", "head"), [("frosen", "logreg"), ("finetune:", "softmax"), ("frozen", "forest")]
)
def test_unknown_modes_and_heads_are_refused(mode: str, head: str) -> None:
    """The error names those there are."""
    with pytest.raises(HeadError, match="there are"):
        check_mode(mode, head)


def test_tuning_from_the_cache_is_tuning_with_the_lower_part_frozen(painted: Bench) -> None:
    """The same losses over 20 steps, whether the frozen part is run each time or was run once."""
    from headstart.extract.base import keras_base
    from headstart.extract.weights import find_weights
    from headstart.heads import networks

    store = Store.open(painted.store)
    pixels, codes = np.load(painted.pixels), store.labels().astype(np.int64)
    features = store.features("mixed9", dtype="float16")
    losses: list[list[float]] = []
    for make, X in ((networks.tail, features), (networks.above, pixels)):
        base = keras_base(find_weights("random"), size=SIZE)
        model: Any = make(base, "mixed9", 2)
        width = model.layers[-1].input.shape[-1]
        start = np.random.default_rng(1).normal(size=(2, width)) / width
        networks.start_classifier(model, start, np.zeros(2))
        networks.compile_for_training(model, 1e-4)
        steps = networks.Batches(X, codes, np.arange(40), 4, seed=5)
        losses.append([])
        for step in range(20):
            batch = steps[step % len(steps)]
            losses[-1].append(float(model.train_on_batch(*batch)))
            model.reset_metrics()
    assert np.ptp(losses[0]) > 0.05
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)
