"""scikit-learn's own checks, on every head and on the row space."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart.heads import (
    DenseHead,
    LogisticHead,
    NearestMeanHead,
    NeighboursHead,
    RidgeHead,
    RowSpace,
    SVMHead,
)
from headstart.heads.stream import StreamedLinear, StreamedRidge

ESTIMATORS = [
    RowSpace(),
    LogisticHead(C=1.0, tol=1e-10),
    LogisticHead(),
    SVMHead(),
    SVMHead(kernel="rbf"),
    RidgeHead(),
    RidgeHead(alpha=1.0),
    NearestMeanHead(),
    NeighboursHead(),
]


_WEIGHTS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "choice and calibration leave out rows, not units of weight: a row of weight 2 is left "
        "out whole, one of two copies is not"
    )
}


def exceptions(estimator: Any) -> dict[str, str]:
    """Return the checks that cannot pass, each with its reason."""
    if isinstance(estimator, SVMHead) and estimator.kernel == "linear":
        return _WEIGHTS | {
            "check_classifiers_train": "as in SVC, votes need not agree with probabilities"
        }
    chooses = isinstance(estimator, SVMHead | RidgeHead | NearestMeanHead | NeighboursHead)
    if chooses or estimator.get_params().get("C", 1.0) != 1.0:
        return _WEIGHTS
    return {}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=exceptions)  # type: ignore[untyped-decorator]
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    """The estimator does what scikit-learn expects of one."""
    check(estimator)


@pytest.mark.campaign
@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [DenseHead(units=32, batch_size=32, learning_rate=0.01, epochs=30)],
    expected_failed_checks=lambda _: _WEIGHTS,
)
def test_scikit_learn_checks_of_the_dense_head(estimator: Any, check: Any) -> None:
    """The Keras head does too; apart, because each of its fits is a program to compile."""
    check(estimator)


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [StreamedLinear(epochs=40), StreamedLinear("squared_hinge", epochs=40), StreamedRidge()],
    expected_failed_checks=lambda _: _WEIGHTS,
)
def test_scikit_learn_checks_of_streamed_heads(estimator: Any, check: Any) -> None:
    """Those that read the store again and again do too."""
    check(estimator)
