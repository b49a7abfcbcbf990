"""The demo's pictures: small creatures in undergrowth, drawn by code, the same for the same seed.

The classes differ in shape only. Colours, pose, size, light, blur and noise come from the same
distributions for all of them, leaves lie behind and before, and some creatures hide well.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Points = NDArray[np.float64]
    Colour = tuple[int, int, int]

_SMOOTH = 2  # drawn this much larger, then reduced
_OUTLINE = 3
_NOISE = (2.0, 10.0)
_BLUR = (0.0, 1.0)
_SCALE = (0.34, 0.48)
_LEAVES_BEHIND = (6, 18)
_LEAVES_BEFORE = (0, 4)


def draw_dataset(dest: Path, *, per_class: int = 150, seed: int = 0) -> Path:
    """Draw a class folder of JPEG pictures, 160 to 200 pixels on a side.

    Parameters
    ----------
    dest
        The folder; made where missing. Pictures of the same names are replaced.
    per_class
        Pictures in each of the classes `CREATURES`.
    seed
        The same seed gives the same bytes, picture by picture, however many are drawn.

    Returns
    -------
    Path
        `dest`.
    """
    for number, name in enumerate(CREATURES):
        folder = dest / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            rng = np.random.default_rng((seed, number, index))
            quality = int(rng.integers(70, 93))
            picture = draw_picture(name, rng)
            picture.save(folder / f"{name}-{index:03d}.jpg", quality=quality)
    return dest


def draw_picture(name: str, rng: np.random.Generator) -> Image.Image:
    """Draw one creature of `CREATURES` in its surroundings: RGB, 160 to 200 pixels a side."""
    width, height = (int(side) for side in rng.integers(160, 201, 2))
    palette = _palette(rng)
    image = _ground(width * _SMOOTH, height * _SMOOTH, palette, rng)
    draw = ImageDraw.Draw(image)
    _scatter(draw, image.size, palette, rng, _LEAVES_BEHIND)
    _place(draw, image.size, CREATURES[name](rng), _palette(rng), rng)
    _scatter(draw, image.size, palette, rng, _LEAVES_BEFORE)
    image = image.resize((width, height), Image.Resampling.BOX)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*_BLUR)))
    return _exposed(image, rng)


# --- surroundings --------------------------------------------------------------------------------


def _palette(rng: np.random.Generator) -> list[Colour]:
    """Return five colours that go together: neighbours of one hue, and one opposite."""
    hue, spread = rng.uniform(), rng.uniform(0.04, 0.16)
    hues = hue + spread * np.array([-1.0, -0.4, 0.3, 1.0, 0.0]) + np.array([0, 0, 0, 0, 0.5])
    rich, light = rng.uniform(0.2, 0.7, 5), rng.uniform(0.25, 0.95, 5)
    colours = (colorsys.hsv_to_rgb(*hsv) for hsv in zip(hues % 1.0, rich, light, strict=True))
    return [(int(255 * r), int(255 * g), int(255 * b)) for r, g, b in colours]


def _ground(
    width: int, height: int, palette: list[Colour], rng: np.random.Generator
) -> Image.Image:
    """Return a mottled ground: two colours mixed by noise of three coarsenesses."""
    mix = np.zeros((height, width), np.float32)
    for cells, weight in ((4, 0.6), (12, 0.3), (40, 0.2)):
        coarse = Image.fromarray(rng.uniform(0, weight, (cells, cells)).astype(np.float32))
        mix += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    mask = Image.fromarray((255 * np.clip(mix, 0, 1)).astype(np.uint8))
    first, second = (Image.new("RGB", (width, height), palette[i]) for i in (0, 1))
    return Image.composite(first, second, mask)


def _scatter(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    palette: list[Colour],
    rng: np.random.Generator,
    count: tuple[int, int],
) -> None:
    """Strew leaves, blades of grass and pebbles."""
    for _ in range(int(rng.integers(*count))):
        shape = (_leaf, _blade, _pebble)[int(rng.integers(3))](rng)
        centre = rng.uniform(0, 1, 2) * size
        scale = rng.uniform(0.05, 0.2) * min(size)
        points = _posed(shape, rng.uniform(0, 2 * np.pi), scale, centre)
        colour = _shade(palette[int(rng.integers(len(palette)))], rng.uniform(0.6, 1.2))
        _polygon(draw, points, colour)


def _leaf(rng: np.random.Generator) -> Points:
    along = np.linspace(0, np.pi, 12)
    side = np.stack([np.cos(along), rng.uniform(0.2, 0.5) * np.sin(along) ** 1.5], axis=1)
    return np.concatenate([side, side[::-1] * [1, -1]])


def _blade(rng: np.random.Generator) -> Points:
    bend = rng.uniform(-0.6, 0.6)
    along = np.linspace(-2, 2, 10)
    middle = np.stack([along, bend * along**2 / 4], axis=1)
    half = np.stack([np.zeros(10), 0.09 * (2.2 - along) / 2], axis=1)
    return np.concatenate([middle + half, (middle - half)[::-1]])


def _pebble(rng: np.random.Generator) -> Points:
    points = _ellipse(0, 0, rng.uniform(0.4, 0.7), rng.uniform(0.3, 0.6))
    return points * rng.uniform(0.85, 1.15, (len(points), 1))


def _exposed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the picture under some light, with the noise of a cheap camera."""
    pixels = np.asarray(image, np.float32)
    contrast, brightness = rng.uniform(0.6, 1.1), rng.uniform(-30, 30)
    noise = rng.standard_normal(pixels.shape, np.float32) * rng.uniform(*_NOISE)
    lit = (pixels - 128) * contrast + 128 + brightness + noise
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


# --- creatures -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A polygon in the creature's own coordinates, about -1 to 1, and which colour it takes."""

    points: Points
    colour: int
    shade: float = 1.0


def _fish(rng: np.random.Generator) -> Iterator[_Part]:
    depth = rng.uniform(0.28, 0.55)
    fork = rng.uniform(0.25, 0.5)
    yield _Part(_points((-0.6, 0), (-1.15, fork), (-1.0, 0), (-1.15, -fork)), 1)
    yield _Part(_points((-0.3, -depth * 0.7), (0.1, -depth - 0.25), (0.4, -depth * 0.7)), 1, 0.8)
    yield _Part(_points((-0.1, depth * 0.8), (0.05, depth + 0.2), (0.3, depth * 0.7)), 1, 0.8)
    yield _Part(_ellipse(0, 0, 0.8, depth), 0)
    yield from _marks(rng, 0.5, depth * 0.7)
    yield _Part(_ellipse(0.55, -depth * 0.25, 0.07, 0.07), 2, 0.2)


def _bird(rng: np.random.Generator) -> Iterator[_Part]:
    depth, tilt = rng.uniform(0.3, 0.45), rng.uniform(-0.25, 0.15)
    yield _Part(
        _points((-0.5, -0.1), (-1.2, -0.15 + tilt), (-1.15, 0.2 + tilt), (-0.5, 0.2)), 1, 0.7
    )
    for foot in (-0.1, 0.15):
        yield _Part(_line((foot, depth * 0.8), (foot + 0.05, depth + 0.4), 0.035), 2, 0.4)
    yield _Part(_ellipse(0, 0, 0.7, depth), 0)
    yield _Part(_ellipse(0.65, -depth * 0.9, 0.27, 0.25), 0, 1.1)
    beak = -depth * 0.9
    yield _Part(_points((0.86, beak - 0.1), (1.2, beak + 0.05), (0.86, beak + 0.1)), 2)
    yield _Part(_ellipse(-0.15, -0.03, 0.45, depth * 0.6), 1)
    yield from _marks(rng, 0.3, depth * 0.4)
    yield _Part(_ellipse(0.72, beak - 0.05, 0.05, 0.05), 2, 0.2)


def _butterfly(rng: np.random.Generator) -> Iterator[_Part]:
    fold, sweep = rng.uniform(0.5, 1.0), rng.uniform(-0.25, 0.25)
    for side in (-1, 1):
        front = _ellipse(0, 0, 0.42, 0.62)
        hind = _ellipse(0, 0, 0.36, 0.45)
        yield _Part(front * [1, fold] + [0.32 + sweep, side * 0.62 * fold], 0)
        yield _Part(hind * [1, fold] + [-0.4 + sweep, side * 0.5 * fold], 1)
        yield _Part(_ellipse(0.35 + sweep, side * 0.65 * fold, 0.16, 0.22 * fold), 2)
        yield _Part(_line((0.55, side * 0.03), (0.95, side * 0.3), 0.02), 2, 0.4)
    yield from _marks(rng, 0.5, 0.7 * fold)
    yield _Part(_ellipse(0.05, 0, 0.6, 0.08), 2, 0.4)


def _flower(rng: np.random.Generator) -> Iterator[_Part]:
    petals, length = int(rng.integers(5, 10)), rng.uniform(0.3, 0.42)
    bend = rng.uniform(-0.3, 0.3)
    yield _Part(_line((0, 0.2), (bend, 1.2), 0.05), 3, 0.7)
    yield _Part(_ellipse(bend * 0.5 + 0.2, 0.8, 0.24, 0.09), 3, 0.8)
    for angle in rng.uniform(0, 1) + 2 * np.pi * np.arange(petals) / petals:
        petal = _ellipse(length * 1.3, 0, length, 1.6 * length * 2 / petals)
        yield _Part(_posed(petal, angle, 1.0, np.array([0.0, -0.1])), int(rng.integers(2)))
    yield _Part(_ellipse(0, -0.1, 0.22, 0.22), 2)


def _marks(rng: np.random.Generator, x: float, y: float) -> Iterator[_Part]:
    """Yield a coat's spots or stripes, within an ellipse; any creature may wear any of them."""
    spots = int(rng.integers(0, 7))
    striped = rng.uniform() < 0.5
    for _ in range(spots):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.8)
        where = reach * np.cos(angle) * x, reach * np.sin(angle) * y
        radii = (0.04, 0.6 * y * (1 - reach)) if striped else (rng.uniform(0.05, 0.11),) * 2
        yield _Part(_ellipse(*where, *radii), 3)


CREATURES: dict[str, Callable[[np.random.Generator], Iterator[_Part]]] = {
    "bird": _bird,
    "butterfly": _butterfly,
    "fish": _fish,
    "flower": _flower,
}


def _place(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    parts: Iterator[_Part],
    coat: list[Colour],
    rng: np.random.Generator,
) -> None:
    """Draw a creature somewhere, tilted, mirrored, seen somewhat from the side."""
    angle, scale = rng.normal(0, 0.45), rng.uniform(*_SCALE) * min(size)
    centre = rng.uniform(0.3, 0.7, 2) * size
    squash = np.array([rng.choice([-1, 1]), rng.uniform(0.65, 1.0)])
    for part in parts:
        points = _posed(part.points * squash, angle, scale, centre)
        colour = _shade(coat[part.colour], part.shade)
        _polygon(draw, points, colour, outline=_shade(colour, 0.45))


# --- geometry ------------------------------------------------------------------------------------


def _points(*pairs: tuple[float, float]) -> Points:
    return np.array(pairs, np.float64)


def _ellipse(x: float, y: float, across: float, down: float) -> Points:
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)


def _line(start: tuple[float, float], end: tuple[float, float], half: float) -> Points:
    a, b = np.array(start), np.array(end)
    along = (b - a) / np.hypot(*(b - a))
    across = half * np.array([-along[1], along[0]])
    return np.stack([a + across, b + across, b - across, a - across])


def _posed(points: Points, angle: float, scale: float, centre: Points) -> Points:
    cos, sin = np.cos(angle), np.sin(angle)
    turned: Points = scale * points @ np.array([[cos, sin], [-sin, cos]]) + centre
    return turned


def _polygon(
    draw: ImageDraw.ImageDraw, points: Points, colour: Colour, outline: Colour | None = None
) -> None:
    corners = [(float(x), float(y)) for x, y in points]
    draw.polygon(corners, fill=colour, outline=outline, width=_OUTLINE)


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, int(channel * factor)) for channel in colour)
    return r, g, b
