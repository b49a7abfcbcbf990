"""The dense head: a Keras network that scikit-learn can hold."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss

from headstart.errors import HeadError
from headstart.heads import DenseHead, RowSpace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Draw = Callable[..., Any]

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras' own
]


@pytest.fixture(scope="module")
def rows(draw: Draw) -> Any:
    """Return 150 rows and labels to train on, 150 to measure on."""
    features, label = draw(300, signal=0.25)
    X = features.reshape(300, -1).astype(np.float32)
    return X[:150], label[:150], X[150:], label[150:]


def test_it_learns_and_stops_early(rows: Any) -> None:
    """It beats chance by far, before its epochs are over, and can be cloned and pickled."""
    X, y, new, true = rows
    head = clone(DenseHead(units=64, batch_size=32, learning_rate=2e-2)).fit(X, y)
    assert head.score(new, true) > 0.6
    assert head.chosen_["epochs"] < 60
    probability = pickle.loads(pickle.dumps(head)).predict_proba(new)
    assert np.allclose(probability, head.predict_proba(new))
    assert log_loss(true, probability) < np.log(3)


def test_the_best_epoch_is_kept(rows: Any) -> None:
    """The weights that are kept have the loss that was reported for them."""
    X, y, _, _ = rows
    head = DenseHead(units=32, batch_size=32, epochs=8).fit(X, y)
    held = head._held_out(head._training(X, y, None, None, np.float32))[1]
    assert log_loss(y[held], head.predict_proba(X[held])) == pytest.approx(head.loss_, rel=1e-4)


def test_two_classes_and_labels_of_any_kind(rows: Any) -> None:
    """Two classes have one sigmoid, which learns; labels may be words."""
    X, y, new, true = rows
    words = np.array(["cat", "dog"])[(y > 0).astype(int)]
    head = DenseHead(units=16, epochs=3).fit(X, words)
    assert head.weights_[2].shape == (16, 1)
    assert set(head.predict(new)) <= {"cat", "dog"}
    learnt = DenseHead(units=[32, 16], batch_size=32).fit(X, words)
    assert learnt.score(new, np.array(["cat", "dog"])[(true > 0).astype(int)]) > 0.75
    assert np.allclose(head.predict_proba(new).sum(1), 1)


def test_a_grid_is_one_program_and_the_best_is_kept(rows: Any) -> None:
    """All combinations are trained; the lowest loss on held-out training rows wins."""
    X, y, _, _ = rows
    head = DenseHead(
        units=[8, 32], learning_rate=[1e-6, 3e-3], starts=2, epochs=6, batch_size=32
    ).fit(X, y)
    assert len(head.losses_) == 8
    assert head.loss_ == min(loss for _, loss in head.losses_)
    assert head.chosen_["learning_rate"] == pytest.approx(3e-3)
    assert set(head.chosen_) == {"units", "learning_rate", "seed", "epochs"}
    slow = [loss for s, loss in head.losses_ if s["learning_rate"] < 1e-5]
    fast = [loss for s, loss in head.losses_ if s["learning_rate"] > 1e-5]
    assert min(fast) < min(slow)


def test_settings_may_be_arrays(rows: Any) -> None:
    X, y, _, _ = rows
    varied: dict[str, Any] = {"units": np.array([4, 8]), "learning_rate": np.array([1e-3, 1e-2])}
    assert len(DenseHead(**varied, epochs=2).fit(X, y).losses_) == 4


@pytest.mark.parametrize("weight", [0, -1, np.nan, np.inf, "5"])
def test_weights_of_classes_are_numbers_above_zero(rows: Any, weight: Any) -> None:
    X, y, _, _ = rows
    with pytest.raises(HeadError, match="class_weight of 1 must be above 0; found"):
        DenseHead(class_weight={0: 1.0, 1: weight}).fit(X, y)


def test_a_value_that_is_given_twice_is_trained_once(rows: Any) -> None:
    X, y, _, _ = rows
    head = DenseHead(units=[4, 8, 8], learning_rate=[1e-3, 1e-3], epochs=4).fit(X, y)
    assert [settings["units"] for settings, _ in head.losses_] == [4, 8]


def test_a_fit_that_fails_leaves_the_head_as_it_was(rows: Any) -> None:
    X, y, new, _ = rows
    head = DenseHead(units=8, epochs=2).fit(X, y)
    before = head.predict_proba(new)
    with pytest.raises(ValueError, match="NaN"):
        head.fit(np.full_like(X, np.nan), y)
    assert (head.predict_proba(new) == before).all()


def test_settings_race_unless_told_not_to(rows: Any) -> None:
    """Of eight at most two are trained to their end; without a race all are.

    The weights that are kept have the loss that was reported for them.
    """
    X, y, _, _ = rows
    grid: dict[str, Any] = {"dropout": [0.0, 0.1, 0.2, 0.3], "learning_rate": [1e-3, 2e-3]}
    head = DenseHead(units=8, batch_size=32, epochs=9, patience=9, **grid)
    late = {}
    for race in (True, False):
        fitted = head.set_params(race=race).fit(X, y)
        late[race] = sum(settings["epochs"] > 6 for settings, _ in fitted.losses_)
        assert fitted.loss_ == min(loss for _, loss in fitted.losses_)
        held = fitted._held_out(fitted._training(X, y, None, None, np.float32))[1]
        measured = log_loss(y[held], fitted.predict_proba(X[held]))
        assert measured == pytest.approx(fitted.loss_, rel=1e-4)
    assert 1 <= late[True] <= 2
    assert late[False] == 8


def test_a_head_that_was_pickled_before_there_were_races_races(rows: Any) -> None:
    """It has no such attribute of its own; it can be shown, cloned and fitted again."""
    X, y, new, _ = rows
    state = vars(DenseHead(units=8, epochs=2).fit(X, y))
    old = DenseHead.__new__(DenseHead)
    old.__setstate__({name: value for name, value in state.items() if name != "race"})
    assert repr(old) == "DenseHead(epochs=2, units=8)"
    assert clone(old).get_params()["race"]
    before = old.predict_proba(new)
    assert np.allclose(old.fit(X, y).predict_proba(new), before)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_network_of_a_grid_is_what_it_is_alone(rows: Any, dropout: float) -> None:
    """A network learns the same beside others as alone, in whatever group."""
    X, y, new, _ = rows
    options: dict[str, Any] = {"dropout": dropout, "epochs": 3, "units": 16, "batch_size": 32}
    alone = DenseHead(learning_rate=1e-3, **options).fit(X, y)
    for slow in ([1e-5], [1e-8, 1e-7, 1e-6, 1e-5]):
        beside = DenseHead(learning_rate=[*slow, 1e-3], **options).fit(X, y)
        assert beside.chosen_["learning_rate"] == 1e-3
        assert np.allclose(alone.predict_proba(new), beside.predict_proba(new), atol=1e-4)


def test_progress_is_told_epoch_by_epoch(rows: Any) -> None:
    """`progress` hears of every epoch as a share of all that may come."""
    X, y, _, _ = rows
    shares: list[float] = []
    DenseHead(units=8, epochs=4, patience=4).fit(X, y, progress=shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_keras_starts_without_notices(rows: Any, tmp_path: Path) -> None:
    """Training in a process of its own leaves standard error empty."""
    file = tmp_path / "rows.npz"
    np.savez(file, X=rows[0], y=rows[1])
    code = (
        "import sys, numpy; from headstart.heads import DenseHead; d = numpy.load(sys.argv[1]);"
        "DenseHead(units=8, epochs=1).fit(d['X'], d['y'])"
    )
    plain = {name: v for name, v in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
    assert done.stderr == ""


def test_weights_map_back_to_features(rows: Any) -> None:
    """The first layer on coordinates, mapped back, is a first layer on features."""
    X, y, _, _ = rows
    head = DenseHead(units=16, epochs=2).fit(X, y)
    assert isinstance(head.space_, RowSpace)
    inner, bias, outer, last = head.weights_
    on_features = head.space_.back(inner.T / head.unit_).T
    scores = np.maximum(X @ on_features + bias, 0) @ outer + last
    expected = np.log(head.predict_proba(X))
    centred = scores - scores.mean(1, keepdims=True)
    assert np.allclose(centred, expected - expected.mean(1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("plain", [False, True])
def test_a_row_of_weight_0_has_no_part_in_training(rows: Any, *, plain: bool) -> None:
    """Neither in the batches nor in the rows that decide when to stop."""
    X, y, new, _ = rows
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    weight[60:90] = 0
    kept = weight > 0
    head = DenseHead(units=16, epochs=3, plain=plain, class_weight="balanced")
    with_zeros = head.fit(X, y, weight).predict_proba(new)
    without = head.fit(X[kept], y[kept], weight[kept]).predict_proba(new)
    assert np.allclose(with_zeros, without, atol=1e-5)
    assert not np.allclose(head.fit(X, y).predict_proba(new), without, atol=1e-2)


def test_plain_trains_on_the_features(rows: Any) -> None:
    X, y, new, true = rows
    head = DenseHead(plain=True, units=32, epochs=20, learning_rate=1e-3).fit(X, y)
    assert head.space_ is None
    assert head.weights_[0].shape == (X.shape[1], 32)
    assert head.score(new, true) > 0.5


def test_one_row_of_a_class_is_enough(rows: Any) -> None:
    """Where nothing can be held out, it trains on what there is; one class is refused."""
    X, y, _, _ = rows
    few = np.append(np.flatnonzero(y == 0)[:20], np.flatnonzero(y == 1)[:1])
    assert DenseHead(units=8, epochs=2).fit(X[few], y[few]).predict(X).shape == (150,)
    with pytest.raises(HeadError, match="two classes or more"):
        DenseHead().fit(X, np.zeros(150))


def test_training_leaves_the_users_random_numbers_alone(draw: Draw) -> None:
    """Python's and numpy's global generators go on as if nothing had been trained."""
    features, label = draw(40)
    found = []
    for trains in (False, True):
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002 - a user might
        if trains:
            DenseHead(units=4, epochs=1).fit(features.reshape(40, -1), label)
        found.append((random.random(), float(np.random.random())))  # noqa: NPY002
    assert found[0] == found[1]


def test_a_network_without_weights_is_never_chosen() -> None:
    """Of equal losses the one whose weights were kept is taken; if none was, training diverged."""
    from headstart.heads.dense import _best
    from headstart.heads.stack import Trained

    kept = Trained((np.zeros(1, np.float32),), 0.0, 2)
    assert _best([Trained((), 0.0, 1), kept]) == 1
    with pytest.raises(HeadError, match="training diverged: use a smaller learning_rate"):
        _best([Trained((), float("nan"), 1)])


def test_directions_that_no_row_was_trained_on_count_nothing(rows: Any) -> None:
    """What only held-out rows show is not met with weights that are as they were drawn."""
    X, y, new, _ = rows
    wide = np.pad(X, ((0, 0), (0, 1)))
    head = DenseHead(units=16, epochs=2)
    held = head._held_out(head._training(wide, y, None, None, np.float32))[1]
    wide[held, -1] = 5.0
    head.fit(wide, y)
    at_zero, at_five = (np.pad(new, ((0, 0), (0, 1)), constant_values=v) for v in (0.0, 5.0))
    assert np.allclose(head.predict_proba(at_zero), head.predict_proba(at_five), atol=1e-5)


@pytest.mark.parametrize("few", [1, 3, 6])
def test_a_small_class_does_not_make_the_others_smaller(rows: Any, few: int) -> None:
    """A tenth is held out of the classes that have so many rows; the small one is trained on."""
    X, y, _, _ = rows
    kept = np.append(np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:few])
    head = DenseHead()
    training = head._training(X[kept], y[kept], None, np.arange(len(kept)) // 2, np.float32)
    chosen, held = head._held_out(training)
    assert set(y[kept][held]) == {0, 1}
    assert 8 <= len(held) <= 14
    assert sorted(chosen) == sorted(set(range(len(kept))) - set(_pairs(held)))
    assert (y[kept][chosen] == 2).sum() >= few - 1


def _pairs(rows: Any) -> list[int]:
    """Return these rows and those that share a pair with one of them."""
    return [row for first in set(rows // 2) for row in (2 * first, 2 * first + 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"units": 0},
        {"units": []},
        {"units": (8, 16.5)},
        {"dropout": 1.0},
        {"learning_rate": -1},
        {"starts": 0},
        {"batch_size": 0},
        {"epochs": 0},
        {"validation": 2},
        {"starts": [1, 2]},
        {"epochs": None},
        {"dropout": None},
        {"starts": 2.5},
        {"epochs": 2.5},
        {"batch_size": 7.5},
        {"units": "64"},
        {"units": [[8, 16]]},
        {"learning_rate": "0.001"},
        {"learning_rate": [None, 1e-3]},
        {"learning_rate": np.inf},
        {"learning_rate": [1e-3, 1e39]},
    ],
)
def test_parameters_out_of_range_are_refused(rows: Any, wrong: dict[str, Any]) -> None:
    """By name, with what was expected and what was found."""
    X, y, _, _ = rows
    (name,) = wrong
    with pytest.raises(HeadError, match=f"{name} must be .*; found"):
        DenseHead(**wrong).fit(X, y)
