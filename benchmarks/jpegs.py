"""Pictures to measure extraction on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def draw(folder: Path, count: int) -> None:
    """Write JPEGs of 500x375, about 60 KB each: soft coloured shapes under fine grain."""
    for i in range(count):
        random = np.random.default_rng(i)
        coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        soft = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        grain = random.normal(0, 12, (375, 500, 1)).astype(np.int16)
        path = folder / f"class{i % 2}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
