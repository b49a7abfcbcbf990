"""What a model says of itself, and what such a card may say."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from headstart.cache import Spec
from headstart.errors import LayerError, ModelError, StoreError
from headstart.heads.portable import KINDS

FORMAT, FORMAT_VERSION = "headstart-model", 1
#: What a card calls weights that came from a file: where that lies is nobody else's business.
A_FILE = "file"
#: No card may let a picture be larger than this, in pixels.
MOST_PIXELS = 1 << 30
_MOST_TEXT = 1000  # characters of anything but a class
_MOST_SIZE = 4096  # pixels


@dataclass(frozen=True)
class Card:
    """What a model says of itself.

    Attributes
    ----------
    head, kind : str
        The head's name, and its portable form.
    params : dict
        Hyperparameters it chose.
    spec : Spec
        Of the features it was trained on.
    pool : str
        Pooling after extraction: ``none``, ``avg`` or ``max``.
    shape : tuple of int
        Of one picture's features, before that pooling.
    weights : str
        What the base's weights are called, ``file`` if they have no name; their digest is in the
        spec.
    max_pixels : int
        Pictures with more are not used.
    classes : tuple of str
    rows : tuple of int
        Training rows of each class.
    accuracy, log_loss : float
        On rows it was not trained on, of the same head with the same protocol.
    ci95 : tuple of float
    majority_accuracy : float
        Of always answering the most frequent class.
    measured : str
        How.
    created : str
        ISO 8601, UTC.
    versions : dict of str to str
        Of the libraries it was trained with.
    """

    head: str
    kind: str
    params: dict[str, Any]
    spec: Spec
    pool: str
    shape: tuple[int, ...]
    weights: str
    max_pixels: int
    classes: tuple[str, ...]
    rows: tuple[int, ...]
    accuracy: float
    log_loss: float
    ci95: tuple[float, ...]
    majority_accuracy: float
    measured: str
    created: str
    versions: dict[str, str]

    @property
    def features(self) -> int:
        """How many numbers the head is given for a picture."""
        return self.shape[-1] if self.pool != "none" else math.prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **{name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()},
            "spec": dataclasses.asdict(self.spec),
        }

    @classmethod
    def from_dict(cls, found: Any) -> Card:
        """Read back what `to_dict` gave.

        Raises
        ------
        ModelError
            If anything is missing, unknown, of another type, or does not fit the rest.
        """
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ModelError("its card is not that of a model")
        if found.get("format_version") != FORMAT_VERSION:
            raise ModelError(
                f"it is of format {found.get('format_version')!r}; this Headstart reads format "
                f"{FORMAT_VERSION}: upgrade to read a newer one"
            )
        fields = {name: value for name, value in found.items() if not name.startswith("format")}
        expected = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != expected:
            raise ModelError(
                f"its card says {sorted(fields.keys() ^ expected)} too much or too little"
            )
        for name, holds in _FIELDS.items():
            if not holds(fields[name]):
                raise ModelError(f"its card says {name}: {str(fields[name])[:60]!r}")
        spec = _spec(fields["spec"])
        lists = {name: tuple(v) for name, v in fields.items() if isinstance(v, list)}
        return _consistent(cls(**{**fields, **lists, "spec": spec}))


def _spec(found: dict[str, Any]) -> Spec:
    try:
        spec = Spec.from_json(json.dumps(found))
    except StoreError as error:
        raise ModelError(f"its card: {str(error)!r}") from error
    for name, holds in _SPEC.items():
        if not holds(getattr(spec, name)):
            raise ModelError(f"its card says {name}: {str(getattr(spec, name))[:60]!r}")
    return spec


def check_rule(spec: Spec) -> None:
    """Refuse a spec whose features this version would not make of a picture.

    Raises
    ------
    ModelError
        If it was made by another rule, or no base has such a layer or size.
    """
    from headstart.extract.decode import RESAMPLING, RULES
    from headstart.extract.layers import check_layers, check_size

    ours = {
        "architecture": [Spec.architecture],
        "decoding": list(RULES.values()),
        "resampling": [RESAMPLING],
    }
    for name, values in ours.items():
        if getattr(spec, name) not in values:
            raise ModelError(
                f"its features are of {name} {getattr(spec, name)!r}, and this Headstart makes "
                f"those of {' or '.join(map(repr, values))}: extract and train again"
            )
    try:
        check_size(spec.size)
        check_layers([spec.layer])
    except LayerError as error:
        raise ModelError(f"no base makes its features: {error}") from error


def _consistent(card: Card) -> Card:
    k, hidden = len(card.classes), len(card.shape) - 1
    if len(set(card.classes)) != k or k < 2 or len(card.rows) != k:
        raise ModelError("its card names no two different classes, or not the rows of each")
    if hidden not in (0, 2) or (hidden == 0 and card.pool != "none"):
        raise ModelError(f"its card says shape {card.shape} and pool {card.pool!r}")
    return card


def _is(kind: type) -> Any:
    return lambda value: type(value) is kind


def _line(value: Any) -> bool:
    """Tell whether it is text that a terminal shows as it is."""
    return type(value) is str and len(value) <= _MOST_TEXT and value.isprintable()


def _list_of(kind: type, *, most: int = 1_000_000) -> Any:
    def holds(value: Any) -> bool:
        return (
            isinstance(value, list) and len(value) <= most and all(type(v) is kind for v in value)
        )

    return holds


def _one_of(*values: str) -> Any:
    return lambda value: isinstance(value, str) and value in values


def _share(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def _counts(value: Any) -> bool:
    return bool(_list_of(int, most=8)(value)) and all(1 <= v <= 1 << 20 for v in value)


def _plain(value: Any) -> bool:
    """Tell whether it is an object of finite numbers and text."""
    return isinstance(value, dict) and all(
        _line(k) and (_line(v) or type(v) is int or (type(v) is float and math.isfinite(v)))
        for k, v in value.items()
    )


_FIELDS: dict[str, Any] = {
    "head": _line,
    "kind": _one_of(*KINDS),
    "params": _plain,
    "spec": _is(dict),
    "pool": _one_of("none", "avg", "max"),
    "shape": _counts,
    "weights": _line,
    "max_pixels": lambda value: type(value) is int and 0 < value <= MOST_PIXELS,
    "classes": _list_of(str),
    "rows": _list_of(int),
    "accuracy": _share,
    "log_loss": lambda value: type(value) is float and 0 <= value < math.inf,
    "ci95": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_share, value)),
    "majority_accuracy": _share,
    "measured": _line,
    "created": _line,
    "versions": _plain,
}
_SPEC: dict[str, Any] = {
    "weights": lambda value: re.fullmatch("[0-9a-f]{64}", value) is not None,
    "architecture": _line,
    "size": lambda value: 1 <= value <= _MOST_SIZE,
    "layer": _line,
    "pool": _one_of("none", "avg", "max"),
    "decoding": _line,
    "resampling": _line,
    "engine": _one_of("keras", "openvino"),
    "precision": _one_of("float32", "bfloat16"),
    "dtype": _one_of("float16", "float32"),
    "augmentation": _line,
}
