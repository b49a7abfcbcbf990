"""What decides a feature's value: the spec."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from headstart.errors import CorruptStoreError, StoreVersionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Fields that may differ between the layers of one store.
PER_LAYER = frozenset({"layer", "pool"})


@dataclass(frozen=True)
class Spec:
    """Everything that decides a feature's value, and nothing else.

    Two rows with the same picture, view and spec are the same row. Batch size,
    workers and device are not here: they change speed, not values.

    Parameters
    ----------
    architecture
        Name of the base, ``"InceptionV3"``.
    weights
        SHA-256 (hex) of the weight arrays actually loaded.
    size
        Height and width of the base's input, in pixels.
    layer
        The cut: the layer whose activations are kept.
    pool
        Pooling done over height and width before storing: ``none``, ``avg``, ``max``.
    decoding, resampling
        Names of the rules that turn a file into pixels.
    engine, precision
        What ran the base, and in which arithmetic: ``float32`` or ``bfloat16``.
    dtype
        How a number is stored: ``float16`` or ``float32``.
    augmentation
        Canonical JSON of the augmentation and its seed, of which views other than 0 are made;
        empty where only the pictures themselves (view 0) are kept. Nothing of it decides the
        value of a view 0.

    Examples
    --------
    >>> spec = Spec(weights="0" * 64)
    >>> Spec.from_json(spec.to_json()) == spec
    True
    """

    weights: str
    architecture: str = "InceptionV3"
    size: int = 150
    layer: str = "mixed7"
    pool: str = "none"
    decoding: str = "pillow-1"
    resampling: str = "bilinear-antialias"
    engine: str = "keras"
    precision: str = "float32"
    dtype: str = "float16"
    augmentation: str = ""

    @property
    def name(self) -> str:
        """Name of this spec's dataset in a store: ``mixed7``, or ``mixed7.avg`` if pooled."""
        return self.layer if self.pool == "none" else f"{self.layer}.{self.pool}"

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no blanks."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """Read back what `to_json` wrote.

        Raises
        ------
        StoreVersionError
            If it has a field this version does not know.
        CorruptStoreError
            If `text` is not JSON, or a field is missing or of another type.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise CorruptStoreError(f"the spec is not JSON: {error}") from error
        hints = {key: kind for key, kind in get_type_hints(cls).items() if key != "return"}
        if not isinstance(found, dict):
            raise CorruptStoreError(f"the spec is a {type(found).__name__}; expected an object")
        if unknown := sorted(found.keys() - hints.keys()):
            raise StoreVersionError(
                f"the spec says {', '.join(unknown)}, which this Headstart does not know: it was "
                "made by a newer Headstart; upgrade to read it"
            )
        if missing := sorted(hints.keys() - found.keys()):
            raise CorruptStoreError(f"the spec does not say {', '.join(missing)}")
        for key, kind in hints.items():
            if type(found[key]) not in (get_args(kind) or (kind,)):
                raise CorruptStoreError(
                    f"the spec's {key} is {found[key]!r}; expected a {kind.__name__}"
                )
        return cls(**found)

    def of(self, views: NDArray[np.uint8]) -> Spec:
        """Return the spec of rows with these views: a picture itself has no augmentation."""
        return self if views.any() else dataclasses.replace(self, augmentation="")

    def differences(self, other: Spec, *, ignore: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return ``{field: (mine, theirs)}`` for every field that differs."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {
            key: (mine[key], theirs[key])
            for key in mine
            if key not in ignore and mine[key] != theirs[key]
        }
