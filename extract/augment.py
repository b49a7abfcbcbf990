"""Augmented views: seeded changes of a decoded picture, in the meaning of Keras' own layers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headstart.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_VIEWS = 255  # a view is one byte in a store
_RULE = "affine-1"
_BOUNDS = {
    "flip": 1.0,
    "crop": 0.5,
    "rotation": 0.5,
    "zoom": 0.9,
    "brightness": 1.0,
    "contrast": 0.9,
}


@dataclass(frozen=True)
class Augmentation:
    """How views differ from their picture: each is drawn anew, within these bounds.

    A view depends on its picture's bytes, its number, these numbers and nothing else. Flip, crop,
    rotation and zoom are one bilinear resampling of the decoded picture; what comes from outside it
    is its mirror image (Keras' ``fill_mode="reflect"``).

    Parameters
    ----------
    flip
        Probability of a mirror image, left to right: ``RandomFlip("horizontal")`` has 0.5.
    crop
        At most this share of height and width is cut off, and the rest stretched:
        ``RandomCrop`` and ``Resizing``.
    rotation
        At most this share of a full turn, either way: ``RandomRotation(rotation)``.
    zoom
        In or out by at most this share: ``RandomZoom((-zoom, zoom))``.
    brightness
        At most this share of the whole range is added or taken: ``RandomBrightness(brightness)``.
    contrast
        Distance from each channel's mean, times 1 - contrast to 1 + contrast:
        ``RandomContrast(contrast)``.
    seed
        Of what is drawn.

    Raises
    ------
    DataError
        If a number is outside its bounds.

    Examples
    --------
    >>> Augmentation.parse("rotation=0.1,seed=3").rotation
    0.1
    """

    flip: float = 0.5
    crop: float = 0.1
    rotation: float = 0.05
    zoom: float = 0.1
    brightness: float = 0.1
    contrast: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every number."""
        for name, most in _BOUNDS.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise DataError(f"augmentation: {name} is from 0 to {most:g}; found {value}")
        if self.seed < 0:
            raise DataError(f"augmentation: seed is a whole number from 0; found {self.seed}")

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Return what ``NAME=NUMBER[,...]`` says; what is not named stays as it is by default.

        Raises
        ------
        DataError
            If there is no such name, or something is no number.
        """
        given: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, number = part.partition("=")
            try:
                given[name] = int(number) if name == "seed" else float(number)
            except ValueError:
                raise DataError(f"augmentation: expected NAME=NUMBER; found {part!r}") from None
        return cls._of(given)

    @classmethod
    def from_json(cls, text: str) -> Augmentation:
        """Read back what `to_json` wrote.

        Raises
        ------
        DataError
            If it is another rule's, or damaged.
        """
        try:
            found = dict(json.loads(text))
        except (TypeError, ValueError):
            raise DataError(f"the store's augmentation is not JSON: {text[:80]!r}") from None
        if found.pop("rule", None) != _RULE:
            raise DataError(
                f"views were made by another rule than {_RULE!r}, which this Headstart has: "
                f"{text[:80]!r}; choose another -o"
            )
        return cls._of(found)

    @classmethod
    def _of(cls, given: dict[str, Any]) -> Augmentation:
        names = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(given.keys() - set(names)):
            raise DataError(
                f"augmentation: nothing is called {unknown[0]!r}; there are {', '.join(names)}"
            )
        return cls(**given)

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no blanks."""
        every = dataclasses.asdict(self) | {"rule": _RULE}
        return json.dumps(every, sort_keys=True, separators=(",", ":"))

    def view(self, pixels: NDArray[np.uint8], digest: bytes, number: int) -> NDArray[np.uint8]:
        """Return a view of a decoded picture ``(size, size, 3)``; view 0 is the picture itself.

        Parameters
        ----------
        pixels
        digest
            SHA-256 (hex) of the picture's file.
        number
            Of the view, from 0.
        """
        return self.changed(pixels, self._drawn(digest, number)) if number else pixels

    def changed(self, pixels: NDArray[np.uint8], drawn: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return a changed picture; `drawn` are eight numbers, each from -1 to 1.

        They decide mirror image, rotation, zoom, the size of the crop, its place (down, right),
        brightness and contrast.
        """
        moved = _resampled(pixels, self._matrix(len(pixels), drawn))
        brightness, factor = self.brightness * drawn[6], 1 + self.contrast * drawn[7]
        if brightness == 0 and factor == 1:
            return moved
        mean = moved.mean((0, 1), dtype=np.float64)
        colour = (moved - mean) * factor + mean + 255 * brightness
        result: NDArray[np.uint8] = np.clip(np.rint(colour), 0, 255).astype(np.uint8)
        return result

    def _drawn(self, digest: bytes, number: int) -> NDArray[np.float64]:
        words = hashlib.sha256(b"%s:%d:%d" % (digest, number, self.seed)).digest()
        found: NDArray[np.float64] = np.random.default_rng(list(words)).uniform(-1, 1, 8)
        return found

    def _matrix(self, size: int, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where each pixel comes from, ``(3, 3)`` on (x, y, 1): flip, crop, turn, zoom."""
        angle = 2 * math.pi * self.rotation * drawn[1]
        scale = 1 + self.zoom * drawn[2]
        share = 1 - self.crop * abs(drawn[3])
        down, right = (size * (1 - share) * (1 + drawn[4:6]) / 2).tolist()
        cos, sin = math.cos(angle), math.sin(angle)
        centre = _shift(size / 2, size / 2)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        result: NDArray[np.float64]
        result = centre @ turn @ np.diag([scale, scale, 1]) @ np.linalg.inv(centre)
        result = _shift(right, down) @ np.diag([share, share, 1]) @ result
        if (drawn[0] + 1) / 2 < self.flip:
            result = np.array([[-1.0, 0, size], [0, 1, 0], [0, 0, 1]]) @ result
        return result


def _shift(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _resampled(pixels: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the picture whose pixels come from where `matrix` says, mirrored at its edges."""
    size = len(pixels)
    corners = matrix @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    beyond = max(0.0, -corners[:2].min(), corners[:2].max() - size)
    margin = math.ceil(beyond) + 1
    wide = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    inverse = (_shift(margin, margin) @ matrix)[:2].ravel().tolist()
    image = Image.fromarray(wide).transform(
        (size, size), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
    )
    return np.asarray(image)
