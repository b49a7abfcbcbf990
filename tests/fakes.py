"""Stand-ins for the slow parts: a base that needs no Keras, and pictures in no time.

The fake base is a real function of the pixels, so that a row which belongs to another
picture, a stale row or a half-written one is seen at once.
"""

from __future__ import annotations

import functools
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headstart.extract import base as base_module
from headstart.extract import layers as layers_module
from headstart.extract import weights as weights_module
from headstart.extract.decode import decode
from headstart.extract.hashing import read_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headstart.extract.places import Place

SHAPES = {"mixed7": (3, 3, 4), "mixed5": (2, 2, 3), "mixed0": (5,)}


class FakeBase:
    """Looks like `headstart.extract.base.Base`; features are a linear map of the pixels."""

    def __init__(
        self,
        weights: weights_module.WeightsFile,
        *,
        size: int,
        layers: Sequence[str],
        **options: Any,
    ) -> None:
        self.layers = tuple(layers)
        self.digest = hashlib.sha256(weights.name.encode()).hexdigest()
        self.batch_size = int(options.get("batch_size", 32))
        self.pool = str(options.get("pool", "none"))
        self.engine = str(options.get("engine", "auto")).replace("auto", "keras")
        self.precision = str(options.get("precision", "auto")).replace("auto", "float32")
        self.shapes = {name: self._shape(name) for name in self.layers}
        self.at_once = 1
        self.per_core = False
        self.delay = 0.0
        self.calls = 0

    def _shape(self, name: str) -> tuple[int, ...]:
        return SHAPES[name] if self.pool == "none" else SHAPES[name][-1:]

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        self.calls += 1
        time.sleep(self.delay)
        return {name: self.expected(name, pixels) for name in self.layers}

    def expected(self, name: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what the features of these pixels must be."""
        flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
        seed = int(self.digest[:8], 16) + len(name)
        width = int(np.prod(self._shape(name)))
        matrix = _matrix(seed, flat.shape[1], width)
        # One row at a time: a picture's features must not depend on its neighbours.
        rows = [row @ matrix for row in flat]
        return np.stack(rows).reshape(len(pixels), *self._shape(name))


@functools.lru_cache(maxsize=4)
def _matrix(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """Return what pixels are multiplied by; to draw it takes longer than all else here."""
    drawn = np.random.default_rng(seed).normal(size=(height, width)) / 100
    return drawn.astype(np.float32)


def fake_find_weights(name: str) -> weights_module.WeightsFile:
    """Stand in for `find_weights`: any name will do."""
    path = Path(name)
    if path.is_file():
        return weights_module.WeightsFile(name, path, hashlib.sha256(path.read_bytes()).hexdigest())
    return weights_module.WeightsFile(name, None, "")


def install(monkeypatch: Any) -> None:
    """Put the fakes where `headstart.extract.run` looks for the real ones."""
    monkeypatch.setattr(base_module, "load_base", FakeBase)
    monkeypatch.setattr(weights_module, "find_weights", fake_find_weights)
    monkeypatch.setattr(layers_module, "MIN_SIZE", 1)


def interrupt_after(monkeypatch: Any, batches: int) -> None:
    """Let the user interrupt the base when it has computed so many batches."""
    real = FakeBase.__call__

    def call(self: FakeBase, pixels: Any) -> Any:
        if self.calls == batches:
            raise KeyboardInterrupt
        return real(self, pixels)

    monkeypatch.setattr(FakeBase, "__call__", call)


def draw(path: Path, seed: int, size: int = 16) -> Path:
    """Write a small PNG that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    return path


def draw_classes(root: Path, classes: Sequence[str] = ("cat", "dog"), per_class: int = 10) -> Path:
    """Write a class folder of small pictures."""
    for number, name in enumerate(classes):
        for index in range(per_class):
            draw(root / name / f"{index:04d}.png", seed=1_000_000 * (number + 1) + index)
    return root


def features_of(
    path: Place, name: str = "mixed7", weights: str = "imagenet", size: int = 150
) -> Any:
    """Return the features the fake base gives for one file, as stored (float16)."""
    base = FakeBase(fake_find_weights(weights), size=size, layers=(name,))
    pixels = decode(read_file(path), size)
    return base.expected(name, pixels[None])[0].astype(np.float16)
