"""Heads past memory: they see every row once an epoch, and hold few of them."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
import tempfile
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from headstart.errors import HeadError
from headstart.heads import compare
from headstart.heads.gram import ArrayRows
from headstart.heads.logreg import LogisticHead
from headstart.heads.rows import FeatureRows
from headstart.heads.rowspace import CompactSpace, RowSpace
from headstart.heads.stream import (
    _COVARIANCE_BYTES,
    StreamedDense,
    StreamedLinear,
    StreamedRidge,
    shuffled_batches,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from headstart.cache import Store

    MakeStore = Callable[..., Store]
    Draw = Callable[..., Any]


def test_batches_hold_every_row_once_with_its_own_features(
    make_store: MakeStore, draw: Draw
) -> None:
    """An epoch gives each wanted row once, in another order each time, paired with its features."""
    features, label = draw(300)
    rows = FeatureRows(make_store(features, label), None, np.arange(300))
    wanted = np.flatnonzero(np.arange(300) % 3 != 0)
    rng = np.random.default_rng(0)
    orders = []
    for _ in range(2):
        seen = []
        for positions, X in shuffled_batches(rows, wanted, batch=17, buffer_rows=90, rng=rng):
            assert len(positions) <= 17
            assert np.array_equal(X, features[positions].reshape(len(X), -1).astype(np.float32))
            seen.extend(positions.tolist())
        assert sorted(seen) == wanted.tolist()
        orders.append(seen)
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
def test_linear_heads_come_as_near_as_the_data_allow(draw: Draw, loss: str) -> None:
    """By mini-batches a linear head is as good as one trained on all rows at once."""
    features, label = draw(1200, signal=0.2)
    X = features.reshape(1200, -1).astype(np.float32)
    head = StreamedLinear(loss).fit(X[:800], label[:800])
    exact = RidgeClassifier(100).fit(X[:800], label[:800])
    assert head.score(X[800:], label[800:]) > exact.score(X[800:], label[800:]) - 0.03
    assert np.allclose(head.predict_proba(X).sum(1), 1)


def test_ridge_in_closed_form_is_ridge(draw: Draw) -> None:
    """Sums over blocks give the weights that scikit-learn finds with all rows in memory."""
    features, label = draw(400, shape=(30,))
    X = features.astype(np.float64)
    square = float((X**2).sum(1).mean())
    head = StreamedRidge(alpha=0.1).fit(X, label)
    exact = RidgeClassifier(alpha=0.1 * square).fit(X.astype(np.float32), label)
    scores = head._scores(X.astype(np.float32)) * head.temperature_
    assert np.allclose(scores, exact.decision_function(X), atol=1e-3)


def test_ridge_stays_within_the_memory_it_asks_for(draw: Draw) -> None:
    """The least memory that is accepted is enough, on one fold; a byte less is refused."""
    d = 600
    features, label = draw(1500, shape=(d,))
    bound = _COVARIANCE_BYTES * d * d
    tracemalloc.start()
    StreamedRidge(max_memory=bound).fit(features, label)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used - features.astype(np.float32).nbytes < bound
    with pytest.raises(HeadError, match="covariance of 600 features"):
        StreamedRidge(max_memory=bound - 1).fit(features, label)


def test_ridge_refuses_what_does_not_fit(draw: Draw) -> None:
    features, label = draw(60)
    with pytest.raises(HeadError, match="use --pool avg"):
        StreamedRidge(max_memory=10_000).fit(features.reshape(60, -1), label)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
def test_dense_reads_batches(draw: Draw) -> None:
    """The dense head learns from batches; one that cannot fit is refused with the remedy."""
    features, label = draw(300, signal=0.3)
    X = features.reshape(300, -1).astype(np.float32)
    head = StreamedDense(units=32, epochs=10, learning_rate=1e-3).fit(X[:200], label[:200])
    assert head.score(X[200:], label[200:]) > 0.5
    with pytest.raises(HeadError, match="larger --max-memory"):
        StreamedDense(max_memory=100_000).fit(X, label)
    with pytest.raises(HeadError, match=r"takes \d.* MB to train, and 0.1 MB may be used"):
        StreamedDense(max_memory=100_000).fit(X, label)


@pytest.mark.parametrize(
    "head",
    [
        StreamedLinear(epochs=3),  # exactly, as there are few rows
        StreamedLinear(epochs=3, max_memory=250_000),
        StreamedLinear("squared_hinge", epochs=3),
        StreamedRidge(),
        pytest.param(StreamedDense(units=8, epochs=3), marks=pytest.mark.tensorflow),
    ],
)
def test_progress_grows_from_step_to_step(draw: Draw, head: Any) -> None:
    """A long training tells which share of it is done, in steps that rise to one at most."""
    features, label = draw(90)
    told: list[float] = []
    rows = ArrayRows(features.reshape(90, -1).astype(np.float32))
    head.fit_rows(rows, label, progress=told.append)
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] <= 1
    assert told[-1] >= 2 / 3 or len(told) == 1


def test_logistic_regression_of_few_rows_is_exact(draw: Draw) -> None:
    """Where inner products fit, the head past memory is the one in memory, its penalty too."""
    features, label = draw(150, signal=0.2)
    X = features.reshape(150, -1).astype(np.float32)
    X /= np.sqrt((X**2).sum(1).mean())
    for classes in (3, 2):
        mine = label < classes
        head = StreamedLinear(max_memory=4_000_000).fit(X[mine], label[mine])
        exact = LogisticHead().fit(X[mine], label[mine])
        assert head.C_ == exact.C_
        assert np.allclose(head.predict_proba(X), exact.predict_proba(X), atol=5e-3)


def test_weak_directions_beside_a_strong_mean_are_kept() -> None:
    """What tells classes apart may be a hundred-thousandth of what all rows share."""
    rng = np.random.default_rng(0)
    n, d = 400, 1200
    label = np.arange(n) % 3
    X = rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(3, d))[label]
    X = (rng.normal(size=d) + 0.03 * X).astype(np.float32)
    X /= np.sqrt((X**2).sum(1).mean())
    weight = np.linspace(0.5, 2, n)
    space = CompactSpace(ArrayRows(X), 10_000_000)
    assert space.coordinates.shape[1] == RowSpace().fit(X - X.mean(0)).rank_ == n - 1
    for C in (10.0, 1000.0):
        head = StreamedLinear(C=C, max_memory=10_000_000).fit(X[::2], label[::2], weight[::2])
        exact = LogisticHead(C=C).fit(X[::2], label[::2], weight[::2])
        assert np.allclose(head.predict_proba(X), exact.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_rows_that_are_all_alike_leave_the_shares_of_classes(value: float) -> None:
    X, label = np.full((20, 30), value, np.float32), np.arange(20) % 4 == 0
    head = StreamedLinear(C=1.0, max_memory=10_000_000).fit(X, label)
    assert np.allclose(head.predict_proba(X), [0.75, 0.25], atol=1e-3)


@pytest.mark.parametrize("C", [0.01, 0.1, 1.0])
def test_mini_batches_end_near_the_minimum(draw: Draw, C: float) -> None:
    """With any penalty mini-batches give nearly the exact weights: steps suit their size."""
    features, label = draw(600, signal=0.2)
    X = features.reshape(600, -1).astype(np.float32)
    X /= np.sqrt((X**2).sum(1).mean())
    head = StreamedLinear(C=C, max_memory=1_000_000).fit(X, label)
    exact = LogisticHead(C=C).fit(X, label)
    ours, theirs = head.decision_function(X), exact.decision_function(X)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95
    assert 0.8 < np.linalg.norm(head.coef_) / np.linalg.norm(exact.coef_) < 1.25


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the rows that are read from stores, block by block."""
    counts: list[int] = []
    blocks = FeatureRows.blocks

    def counted(self: FeatureRows, block_rows: int = 256) -> Any:
        for positions, block in blocks(self, block_rows):
            counts.append(len(block))
            yield positions, block

    monkeypatch.setattr(FeatureRows, "blocks", counted)
    return counts


def test_pooled_rows_are_pooled_once(
    make_store: MakeStore, draw: Draw, rows_read: list[int]
) -> None:
    """Maps are read once a fit where heads see them pooled; the head is the same."""
    features, label = draw(200, shape=(4, 4, 6), signal=0.3)
    rows = FeatureRows(make_store(features, label), None, np.arange(200), "avg")
    head = StreamedLinear(max_memory=60_000)
    pooled = head.fit_rows(rows, label).coef_
    assert rows.pooled_when_read
    assert sum(rows_read) == 200
    assert np.allclose(pooled, head.fit(rows.load(), label).coef_)


def test_maps_that_are_pooled_are_read_a_few_at_a_time(
    make_store: MakeStore, draw: Draw, rows_read: list[int]
) -> None:
    """It is the maps that take the memory, not the few numbers that are made of them."""
    features, label = draw(64, shape=(64, 64, 8))
    rows = FeatureRows(make_store(features, label), None, np.arange(64), "avg")
    StreamedLinear(max_memory=20_000, epochs=1, C=1.0).fit_rows(rows, label)
    assert rows.width_read == 64 * 64 * 8
    assert max(rows_read) == 16


class FullDisk(io.RawIOBase):
    """A file without room."""

    def seek(self, position: int, whence: int = 0) -> int:
        return position

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("disk", ["read-only", "full"])
def test_pooled_rows_without_room_are_pooled_as_they_are_read(
    make_store: MakeStore,
    draw: Draw,
    rows_read: list[int],
    monkeypatch: pytest.MonkeyPatch,
    disk: str,
) -> None:
    """A read-only store or a full disk costs time, and nothing else."""
    features, label = draw(200, shape=(4, 4, 6), signal=0.3)
    rows = FeatureRows(make_store(features, label), None, np.arange(200), "avg")
    head = StreamedLinear(max_memory=60_000)
    expected = head.fit_rows(rows, label).coef_

    def opened(**_: Any) -> Any:
        if disk == "read-only":
            raise PermissionError(errno.EROFS, "Read-only file system")
        return io.BufferedWriter(FullDisk())

    monkeypatch.setattr(tempfile, "TemporaryFile", opened)
    rows_read.clear()
    assert np.allclose(head.fit_rows(rows, label).coef_, expected)
    assert sum(rows_read) > 10 * 200


def test_compare_says_which_way_it_took(make_store: MakeStore, draw: Draw) -> None:
    """Below the memory a row space needs, heads read the store, and the table says why."""
    store = make_store(*draw(300, signal=0.3))
    inside = compare(store, ["logreg"], cv=3)
    past = compare(store, ["logreg", "svm", "ridge"], cv=3, max_memory=6_000_000)
    assert "row space" in inside.features
    assert (
        "batches read from the store"
        in compare(store, ["logreg"], cv=3, max_memory=400_000).features
    )
    assert "row space" in past.features
    with pytest.raises(HeadError, match="'knn' needs all rows in memory"):
        compare(store, ["knn"], cv=3, max_memory=400_000)


MEASURE = """
import sys
import numpy as np, scipy.stats, scipy.linalg, sklearn.svm, sklearn.model_selection
from headstart.cache import Store
from headstart.heads import compare, stream
store = Store.open(sys.argv[1])
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
np.ones((512, 512), np.float32) @ np.ones((512, 512), np.float32)  # wakes BLAS
before = peak()
result = compare(store, ["logreg"], max_memory=int(sys.argv[2]))
print(peak() - before, result.heads[0].accuracy, "batches" in result.features)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_store_four_times_the_memory_trains_within_it(make_store: MakeStore, draw: Draw) -> None:
    """Peak memory stays within the bound, and accuracy within a point of the in-memory fit."""
    n, bound = 1900, 10_000_000
    features, label = draw(n, classes=2, shape=(4, 4, 700), signal=0.03)
    assert features.nbytes > 4 * bound
    split = ["train" if i < 1300 else "validation" for i in range(n)]
    store = make_store(features, label, split=split)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(store.path), str(bound)],
        capture_output=True,
        text=True,
        check=True,
    )
    used, accuracy, streamed = done.stdout.split()
    exact = compare(store, ["logreg"]).heads[0].accuracy
    assert streamed == "True"
    assert int(used) < bound
    assert float(accuracy) > exact - 0.01


@pytest.mark.parametrize(("memory", "other"), [(1_500_000, "_fit_exactly"), (5_000_000, "_train")])
def test_rows_in_memory_are_rows_too(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, memory: int, other: str
) -> None:
    """`fit` on an array and `fit_rows` on the same rows give the same head, either way."""
    monkeypatch.delattr(StreamedLinear, other)
    features, label = draw(120)
    X = features.reshape(120, -1)
    head = StreamedLinear(epochs=2, max_memory=memory)
    a = head.fit(X.astype(np.float32), label).coef_
    b = head.fit_rows(ArrayRows(X), label).coef_
    assert np.allclose(a, b)


def test_penalties_take_turns_where_memory_is_short(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In as many passes as memory asks for, the same penalty is chosen; too little is refused."""
    features, label = draw(120, signal=0.3)
    X = features.reshape(120, -1).astype(np.float32)
    one = 20 * X.shape[1] * 3
    grid = [0.1, 1.0, 10.0, 100.0]
    monkeypatch.delattr(StreamedLinear, "_fit_exactly")
    passes = []
    train = StreamedLinear._train

    def batches(self: StreamedLinear, rows: Any, wanted: Any, batch_size: int, rng: Any) -> Any:
        return shuffled_batches(rows, wanted, batch=batch_size, buffer_rows=64, rng=rng)

    def counted(self: StreamedLinear, data: Any, trained: Any, *rest: Any) -> Any:
        passes.append(trained.shape[1])
        return train(self, data, trained, *rest)

    monkeypatch.setattr(StreamedLinear, "_batches", batches)
    monkeypatch.setattr(StreamedLinear, "_train", counted)
    wide = StreamedLinear(C=grid, batch_size=8, max_memory=40 * one).fit(X, label)
    tight = StreamedLinear(C=grid, batch_size=8, max_memory=4 * one).fit(X, label)
    assert passes == [20, 1] + [2] * 10 + [1]
    assert tight.score(X, label) > 0.9
    assert wide.chosen_ == tight.chosen_
    assert np.allclose(wide.coef_, tight.coef_, atol=1e-4)
    with pytest.raises(HeadError, match="linear head on 360 features"):
        StreamedLinear(max_memory=one - 1).fit(X, label)
