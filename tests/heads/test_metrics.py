"""Measures and tests, against values known from elsewhere."""

from __future__ import annotations

import doctest
from importlib import import_module

import numpy as np
import pytest
from scipy.stats import ttest_rel

from headstart.heads import metrics

MODULES = ["base", "gram", "logreg", "metrics", "parallel", "registry", "ridge", "rowspace"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    """What docstrings show is what happens."""
    module = import_module(f"headstart.heads.{name}")
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.failed == 0


def test_calibration_error_of_known_cases() -> None:
    """Right as often as one is sure of is no error; always sure and half right is one half."""
    right = np.array([True, True, True, False])
    assert metrics.calibration_error(right, np.full(4, 0.75)) == pytest.approx(0)
    assert metrics.calibration_error(right, np.ones(4)) == pytest.approx(0.25)
    two = metrics.calibration_error(np.array([True, False]), np.array([0.6, 0.9]))
    assert two == pytest.approx((0.4 + 0.9) / 2)


def test_temperature_undoes_a_scale() -> None:
    """Logits that were made too sharp by a factor are told that factor."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    codes = (rng.random(20_000)[:, None] > p.cumsum(1)).sum(1)
    assert metrics.temperature(codes, logits) == pytest.approx(1, abs=0.05)
    assert metrics.temperature(codes, 5 * logits) == pytest.approx(5, rel=0.05)


def test_log_loss_of_a_sure_mistake_is_finite() -> None:
    probability = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert np.isfinite(metrics.log_loss(np.array([1, 0]), probability))
    assert metrics.log_loss(np.array([0, 0]), probability) == pytest.approx(np.log(2) / 2)
    assert str(metrics.log_loss(np.array([0]), np.ones((1, 1)))) == "0.0"


def test_corrected_t_is_more_careful_than_the_paired_one() -> None:
    """Without overlap it is the paired t-test; with it, p-values grow; no difference is none."""
    a = np.array([0.7, 0.72, 0.69, 0.75, 0.71])
    b = np.array([0.68, 0.7, 0.69, 0.71, 0.7])
    plain = ttest_rel(a, b).pvalue
    assert metrics.corrected_t(a - b, 0.0, resolution=0) == pytest.approx(plain)
    assert metrics.corrected_t(a - b, 0.25, resolution=0) > plain
    assert metrics.corrected_t(np.zeros(5), 0.25, resolution=0.01) == 1
    assert metrics.corrected_t(np.full(5, 0.25), 0.25, resolution=0.01) < 1e-4


def test_folds_that_happen_to_agree_prove_nothing() -> None:
    """One row's difference in each of two folds is no difference to speak of."""
    assert metrics.corrected_t(np.full(2, 1 / 200), 0.25, resolution=1 / 200) > 0.3


def test_holm_never_lowers_and_keeps_the_order() -> None:
    p = [0.04, 0.001, 0.03, 0.5]
    corrected = metrics.holm(p)
    assert corrected == pytest.approx([0.09, 0.004, 0.09, 0.5])
    assert metrics.holm([]) == []


def test_mcnemar_counts_only_where_two_differ() -> None:
    a = np.array([True] * 100 + [False] * 20)
    assert metrics.mcnemar(a, a) == 1
    assert metrics.mcnemar(a, np.roll(a, 5)) == 1
    assert metrics.mcnemar(np.ones(30, bool), np.arange(30) > 9) == pytest.approx(2 * 0.5**10)
