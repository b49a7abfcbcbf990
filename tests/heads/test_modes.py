"""Every mode of the benchmark on a problem whose outcome is known: red pictures, blue pictures."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import generators
import numpy as np
import pytest
from PIL import Image

from headstart._child import in_child
from headstart._keras import import_keras
from headstart.cache import Store
from headstart.errors import HeadError, WeightsError
from headstart.extract import Settings, fill_store
from headstart.extract.pixels import decode_rows
from headstart.heads import curve, evaluation, forms, metrics, modes
from headstart.heads.base import softmax
from headstart.heads.dense import DenseHead
from headstart.heads.logreg import LogisticHead
from headstart.heads.modes import (
    Bench,
    Record,
    base_cost,
    check_mode,
    part_of,
    peak_mb,
    run_mode,
    run_parts,
    split_of,
)
from headstart.heads.splits import labelled_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., Any]

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
        layers=("mixed7", "mixed9", "mixed10"),
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
        ("frozen", "ridge", 2 * (3 * 3 * 768 + 1)),
        ("frozen", "knn", 0),
        ("finetune:mixed9", "softmax", 6_070_272 + 4098),
        ("finetune:mixed10", "softmax", 4098),
        ("scratch", "convnet", 448 + 4640 + 18496 + (7 * 7 * 64 + 1) * 512 + 513 * 2),
        ("scratch+augment", "convnet", 448 + 4640 + 18496 + (7 * 7 * 64 + 1) * 512 + 513 * 2),
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
    assert (record.extract_seconds > 0) == (head != "convnet")
    assert (record.epochs > 0) == (head in ("softmax", "convnet"))
    assert (record.share, record.rows) == (1.0, 32)


def test_the_dense_head_learns_what_is_there(make_store: Make, draw: Make) -> None:
    """Rows that lie apart it tells nearly all; forty painted pictures are too few steps."""
    store = make_store(*draw(240, signal=0.6))
    (record,) = run_mode(Bench(str(store.path), "", "random", "mixed7"), "frozen", "dense", [0])
    assert record.accuracy > 0.9
    assert record.trained_parameters == (3 * 3 * 40 + 1) * 1024 + (1024 + 1) * 3
    assert record.epochs > 0


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


@pytest.mark.parametrize(
    ("mode", "head"), [("frozen", "ridge"), ("finetune:mixed10", "softmax"), ("scratch", "convnet")]
)
def test_parts_are_trained_on_fewer_rows_and_measured_on_the_same(
    painted: Bench, mode: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network takes as many steps for them; half of these pictures are enough."""
    from headstart.heads import networks

    recipes: list[networks.Recipe] = []
    train = networks.train

    def noted(*given: Any, recipe: networks.Recipe, **options: Any) -> Any:
        recipes.append(recipe)
        few = dataclasses.replace(recipe, epochs=min(recipe.epochs, 6))
        return train(*given, recipe=few, **options)

    monkeypatch.setattr(networks, "train", noted)
    (record,) = run_parts(painted, mode, head, [(1, 0.5)])
    assert (record.seed, record.share) == (1, 0.5)
    assert 15 <= record.rows <= 16
    assert len(record.right) == 8
    assert record.accuracy == 1.0
    epochs = {"frozen": [], "finetune:mixed10": [2 * painted.epochs], "scratch": [40]}
    assert [recipe.epochs for recipe in recipes] == epochs[mode]


def test_parts_are_those_of_a_learning_curve(
    painted: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`compare --curve` trains on the very same rows, fold by fold."""
    trained: list[set[int]] = []
    evaluate = evaluation.evaluate

    def noted(*given: Any, splits: Any, **options: Any) -> Any:
        trained.extend(set(train) for train, _ in splits)
        return evaluate(*given, splits=splits, **options)

    monkeypatch.setattr(curve, "evaluate", noted)
    curve.learning_curve(painted.store, ["ncm"], layer="mixed9", shares=[0.25, 0.5])
    store = Store.open(painted.store)
    rows = labelled_rows(store, None)
    ours = [part_of(store, rows, seed, share) for share in (0.25, 0.5) for seed in range(5)]
    assert [set(train) for ((train, _),) in ours] == trained
    assert part_of(store, rows, 0, 1 / 32) == []


def test_base_is_timed(painted: Bench) -> None:
    """What the base costs is measured both ways, ours up to each layer."""
    cost = base_cost(painted, ["mixed7", "mixed9"])
    assert list(cost) == ["base_ms", "usual_ms"]
    assert list(cost["base_ms"]) == ["mixed7", "mixed9"]
    assert all(milliseconds > 0 for milliseconds in (*cost["base_ms"].values(), cost["usual_ms"]))


def test_a_second_seed_finds_the_same_layers(painted: Bench) -> None:
    """Keras numbers layers without a name of their own on; a cut among them is found again."""
    run = modes._Run(painted)
    for seed in range(2):
        found = run._model("finetune:activation_3", seed)
        assert found.input_shape[1:] == (17, 17, 80)


def test_a_fat_parent_is_not_counted() -> None:
    """A process's peak is its own, not what the one that started it had in memory."""
    ballast = np.ones(300_000_000, np.uint8)
    (child,) = in_child(generators.peak, 0)
    assert 20 < child < peak_mb() - ballast.nbytes / 2e6
    assert peak_mb() > 300


def test_rows_past_memory_are_streamed(painted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head is trained on batches where the row space does not fit, or says that it cannot."""
    monkeypatch.setattr(forms, "available_memory", lambda: 1000)
    assert measured(painted, "frozen", "logreg").accuracy == 1.0
    with pytest.raises(HeadError, match="'knn' needs all rows in memory"):
        measured(painted, "frozen", "knn")


def test_only_the_first_frozen_head_computes_the_row_space(
    painted: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes to bring rows into a head's form is told apart from training."""

    def slow(*given: Any) -> Any:
        time.sleep(0.2)
        return of(*given)

    of = forms.Forms.of
    monkeypatch.setattr(forms.Forms, "of", slow)
    record = measured(painted, "untrained", "ncm")
    assert record.form_seconds > 0.2 > record.train_seconds


@pytest.mark.parametrize(("best", "run"), [(30, 35), (58, 60)])
def test_epochs_are_those_that_were_run(best: int, run: int) -> None:
    """The dense head says its best epoch, and went on for as many as it is patient."""
    assert modes._epochs_run(DenseHead(epochs=60, patience=5), {"epochs": best}) == run
    assert modes._epochs_run(LogisticHead(), {"C": 1.0}) == 0


def test_a_network_that_diverges_is_named(painted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no number is no result: the error says which mode, seed and learning rate."""
    recipe = {"epochs": 2, "patience": 1, "learning_rate": 1e30}
    monkeypatch.setattr(modes, "_SCRATCH", recipe)
    with pytest.raises(HeadError, match=r"scratch diverged at seed 3 with learning rate 1e\+30"):
        measured(painted, "scratch", "convnet", 3)


def test_the_warm_up_keeps_identical_pictures_together(
    painted: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The penalty of the classifier a network starts from is chosen in folds of groups."""
    given: list[Any] = []

    def fit(self: LogisticHead, X: Any, y: Any, **options: Any) -> Any:
        given.append(options["groups"])
        assert len(options["groups"]) == len(y)
        return fit_alone(self, X, y, **options)

    fit_alone = LogisticHead.fit
    from headstart.heads import networks

    monkeypatch.setattr(LogisticHead, "fit", fit)
    monkeypatch.setattr(networks, "train", lambda *_, **__: networks.Trained(0, 0))
    measured(painted, "finetune:mixed10", "softmax")
    assert len(given) == 1


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_warm_up_is_no_surer_than_its_rows_allow(scale: float) -> None:
    """Where labels are noise, it is at even odds for other rows, whatever the scale of features."""
    draw = np.random.default_rng(0)
    X, codes = scale * draw.normal(size=(400, 100)), draw.integers(0, 3, 400)
    coef, intercept = modes._logistic(X[:200], codes[:200], np.arange(200), 0)
    odds = softmax(X[200:] @ coef.T + intercept)
    assert metrics.log_loss(codes[200:], odds) < 1.05 * np.log(3)


def test_pixels_stay_on_disk(painted: Bench) -> None:
    """A network asks for a batch of the rows that count, by their numbers in the store."""
    run = modes._Run(painted)
    run._rows = dataclasses.replace(run._rows, numbers=run._rows.numbers[::-1])
    found: Any = run._examples("scratch")
    assert isinstance(found.array, np.memmap)
    np.testing.assert_array_equal(found[np.array([0, 3])], np.load(painted.pixels)[[-1, -4]])


def test_predictions_are_timed_without_compilation() -> None:
    """A batch of each size goes first: programs are made for them only once."""
    from headstart.heads import networks

    class Program:
        """Takes its time for a batch of a size that it has not seen."""

        def __init__(self) -> None:
            self.seen: set[int] = set()

        def predict_on_batch(self, X: Any) -> Any:
            time.sleep(0 if len(X) in self.seen else 0.1)
            self.seen.add(len(X))
            return X

    X = np.arange(150, dtype=np.float32)[:, None]
    for count, sizes in ((150, {64, 22}), (128, {64}), (20, {20})):
        program = Program()
        found, seconds = networks.timed_probabilities(program, X, np.arange(count))
        np.testing.assert_array_equal(found, X[:count])
        assert program.seen == sizes
        assert seconds < 0.1


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
    """The same losses over 12 steps, whether the frozen part is run each time or was run once."""
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
        for step in range(12):
            batch = steps[step % len(steps)]
            losses[-1].append(float(model.train_on_batch(*batch)))
            model.reset_metrics()
    assert np.ptp(losses[0]) > 0.05
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)
