"""Networks side by side: in groups, in batches, each as if it were alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart._keras import import_keras

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras' own
]


@pytest.fixture(scope="module")
def stack() -> ModuleType:
    """Return the module, which imports Keras."""
    import_keras()
    from headstart.heads import stack

    return stack


def examples(stack: ModuleType, n: int = 150) -> Any:
    """Return n rows of three classes that can be told apart, the last 30 of them held out."""
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 3
    X = (rng.normal(size=(n, 20)) + 2 * np.eye(20)[codes]).astype(np.float32)
    return stack.Examples(X, codes, np.ones(n, np.float32), np.arange(n - 30), np.arange(n - 30, n))


def test_more_networks_than_stand_side_by_side_take_turns(stack: ModuleType) -> None:
    """Each has its own loss, and learns; weights are kept of those that were best so far."""
    networks = [stack.Network(8, 0.2, 1e-2, seed) for seed in range(10)]
    trained = stack.train(examples(stack), networks, stack.Schedule(32, 10, 3))
    assert len({result.loss for result in trained}) == 10
    assert max(result.loss for result in trained) < np.log(3) - 0.2
    best = min(trained, key=lambda result: result.loss)
    assert [part.shape for part in best.weights] == [(20, 8), (8,), (8, 3), (3,)]


def test_a_step_is_traced_once_for_numbers_of_rows_that_are_nearly_equal(
    stack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds of a comparison differ by a row or two: their training waits for no compiler."""
    traced: list[None] = []
    between = stack.step._between

    def counted(*arguments: Any) -> Any:
        traced.append(None)
        return between(*arguments)

    monkeypatch.setattr(stack.step, "_between", counted)
    for n in (1008, 1009, 1007):  # as of 1,261 in five folds; batches of 140 and 139 rows
        stack.train(examples(stack, n), [stack.Network(7, 0.0, 1e-3, 0)], stack.Schedule(140, 1, 1))
    assert len(traced) == 1


def test_batches_hold_every_row_once_and_weigh_it(stack: ModuleType) -> None:
    """Rows that fill up the last batch do not count; each epoch has an order of its own."""
    rows = examples(stack)
    epochs = stack._batches(rows, 50, 4, seed=3)
    orders = []
    for _ in range(2):
        batches = list(next(epochs))
        assert {batch.numbers.shape for batch in batches} == {(60,)}
        numbers = np.concatenate([batch.numbers for batch in batches])
        weight = np.concatenate([batch.weight for batch in batches])
        assert sorted(numbers[weight > 0]) == rows.chosen.tolist()
        assert np.allclose(weight[weight > 0], 1 / 60)
        assert all((batch.codes == rows.codes[batch.numbers]).all() for batch in batches)
        orders.append(numbers.tolist())
    assert orders[0] != orders[1]


def test_what_fills_up_the_rows_is_zero(stack: ModuleType) -> None:
    """Behind the features is the one of the biases; the rest tells the network nothing."""
    X = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    filled = stack._with_ones(X)
    assert filled.shape == (64, 32)
    assert (filled[:5, :20] == X).all()
    assert (filled[:5, 20] == 1).all()
    assert not filled[5:].any()
    assert not filled[:, 21:].any()
