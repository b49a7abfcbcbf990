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
    networks = [stack.Network(8, 0.2, 1e-2 + seed * 1e-4, seed) for seed in range(10)]
    trained = stack.train(examples(stack), networks, stack.Schedule(32, 10, 3))
    assert len({result.loss for result in trained}) == 10
    assert max(result.loss for result in trained) < np.log(3) - 0.2
    best = min(trained, key=lambda result: result.loss)
    assert [part.shape for part in best.weights] == [(20, 8), (8,), (8, 3), (3,)]


def test_starts_of_the_same_settings_race(stack: ModuleType) -> None:
    """After three epochs the best of four goes on, whatever others do; settings never race."""
    starts = [stack.Network(8, 0.2, 3e-3, seed) for seed in range(6)]
    slower = [stack.Network(8, 0.2, 1e-3, seed) for seed in range(2)]
    told: list[float] = []
    trained = stack.train(examples(stack), starts + slower, stack.Schedule(32, 12, 9), told.append)
    for heat in (slice(0, 3), slice(3, 6), slice(6, 8)):
        first, *rest = sorted(trained[heat], key=lambda result: result.loss)
        assert first.epoch > 3
        assert all(result.epoch <= 3 for result in rest)
    best = min(trained, key=lambda result: result.loss)
    assert best.weights
    assert told == sorted(told)
    assert told[-1] == 1


@pytest.mark.parametrize("units", [(7, 7), (5, 8)])
def test_who_goes_on_goes_on_from_where_it_was(stack: ModuleType, units: tuple[int, int]) -> None:
    """Weights, means and steps of a network are the same in its new place."""
    networks = [stack.Network(size, 0.2, 1e-2, size) for size in units]
    rows = examples(stack)
    X = stack._with_ones(rows.X)
    on_device = stack.ops.cast(X, stack._dtype())
    shape = rows.X.shape[1], X.shape[1], 3
    first = stack.Stack(networks, 2, shape)
    for batch in next(stack._batches(rows, 40, first.units, (0, 1))):
        first.state = stack.step.step(first.state, on_device, batch, first.places)
    begun = [first.begun(h) for h in (1, 0)]
    assert begun[0].steps == 3
    assert all(np.abs(part).any() for weight in begun[0].weights for part in weight)
    second = stack.Stack(networks[::-1], 2, shape, begun)
    for h in (0, 1):
        for old, new in zip(first.separate(h), second.separate(1 - h), strict=True):
            assert (old == new).all()
        for old, new in zip(first.begun(h).weights, second.begun(1 - h).weights, strict=True):
            for before, after in zip(old, new, strict=True):
                assert (before == after).all()


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
    epochs = stack._batches(rows, 50, 4, seed=(3, 1))
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
