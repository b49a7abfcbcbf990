"""Heads as Keras layers: the same answers as those of the arrays they are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart._keras import import_keras
from headstart.heads.formats import FORMATS
from headstart.heads.portable import (
    Kernels,
    Layers,
    Linear,
    Machines,
    Neighbours,
    Portable,
    probabilities,
)

pytestmark = pytest.mark.tensorflow

D, N = 24, 30


def _draw(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _calibration(k: int, *, calibrated: bool) -> tuple[Any, Any]:
    return (_draw(k) + 3, _draw(k) / 9) if calibrated else (np.zeros(k, np.float32),) * 2


def _machines(k: int, *, calibrated: bool = True) -> Portable:
    p = k * (k - 1) // 2
    return Machines(_draw(p, D), _draw(p), *_calibration(k, calibrated=calibrated))


def _kernels(k: int) -> Portable:
    p = k * (k - 1) // 2
    width = np.array([0.02], np.float32)
    return Kernels(
        _draw(N, D), 5 * _draw(p, N), _draw(p) / 9, width, *_calibration(k, calibrated=True)
    )


def _neighbours(k: int) -> Portable:
    votes = np.eye(k, dtype=np.float32)[np.arange(N) % k] * (1 + np.arange(N)[:, None] % 2)
    return Neighbours(_draw(N, D).astype(np.float16), votes.astype(np.float32), np.array([5]))


HEADS: dict[str, Callable[[], Portable]] = {
    "linear": lambda: Linear(_draw(3, D), _draw(3)),
    "layers": lambda: Layers(_draw(16, D), _draw(16), _draw(3, 16), _draw(3)),
    "machines of two classes": lambda: _machines(2),
    "machines of two, not calibrated": lambda: _machines(2, calibrated=False),
    "machines of four classes": lambda: _machines(4),
    "machines of four, not calibrated": lambda: _machines(4, calibrated=False),
    "kernels of two classes": lambda: _kernels(2),
    "kernels of four classes": lambda: _kernels(4),
    "neighbours": lambda: _neighbours(3),
}


@pytest.mark.parametrize("name", HEADS)
def test_layers_answer_as_arrays(tmp_path: Path, name: str) -> None:
    """Within rounding, on many rows; also when the network was saved and loaded."""
    from headstart.heads.joined import head

    keras = import_keras()
    classifier = HEADS[name]()
    features = keras.Input((D,))
    network = keras.Model(features, head(classifier, features))
    X = _draw(400, D)
    expected = probabilities(classifier, X)
    assert len(set(expected.argmax(1).tolist())) > 1
    np.testing.assert_allclose(network.predict(X, verbose=0), expected, atol=1e-5)
    FORMATS[".keras"].write(network, tmp_path / "head.keras", None)
    again = FORMATS[".keras"].run(tmp_path / "head.keras")
    np.testing.assert_allclose(again(X), expected, atol=1e-5)
    assert "Lambda" not in str(network.get_config())
