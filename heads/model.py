"""A trained head that knows its base: from pictures to labels, kept in a file of numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from headstart._hardware import cores
from headstart.cache.store import pooled
from headstart.errors import HeadError, ModelError
from headstart.heads import bundle
from headstart.heads.card import FORMAT, Card, check_rule
from headstart.heads.portable import KINDS, Portable, arrays_of, probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from headstart.cache import Progress
    from headstart.extract.base import Base
    from headstart.extract.live import Picture
    from headstart.extract.weights import WeightsFile

_KEY = "headstart"  # of the file's metadata
_MOST_BYTES = 4 << 30
_MOST_CARD = 16 << 20
_DTYPES = {"F16": "float16", "F32": "float32", "I64": "int64"}
_UNREADABLE = (SafetensorError, ValueError, TypeError, KeyError, RecursionError, OSError)


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture.

    Attributes
    ----------
    picture : str
        Its path; of an array, its number.
    label : str
        The most probable class; empty where the picture cannot be used.
    probabilities : ndarray of shape (k,)
        Of all classes, in the model's order; empty likewise.
    reason : str
        Why the picture cannot be used; empty if it can.
    """

    picture: str
    label: str
    probabilities: NDArray[np.float64]
    reason: str = ""

    @property
    def probability(self) -> float:
        """Of the label."""
        return float(self.probabilities.max()) if len(self.probabilities) else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        from headstart.extract.picture import printable

        return {
            "picture": printable(self.picture),
            "label": self.label or None,
            "probability": self.probability if self.label else None,
            "probabilities": self.probabilities.tolist(),
            "reason": self.reason or None,
        }

    def top(self, classes: Sequence[str], k: int) -> list[tuple[str, float]]:
        """Return the k most probable classes, each with its probability."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(classes[i], float(self.probabilities[i])) for i in order]


class Model:
    """A head and the name of its base.

    Attributes
    ----------
    card : Card
    classifier : Portable
    weights : str
        Where the base's weights are, by name or path; empty for where the card says.
    bundled : WeightsFile or None
        The base's weights themselves, where the model carries them.

    Examples
    --------
    >>> model = Model.load("pets.model")  # doctest: +SKIP
    >>> model.predict(["one.jpg"])[0].label  # doctest: +SKIP
    'cat'
    """

    def __init__(
        self,
        card: Card,
        classifier: Portable,
        weights: str = "",
        bundled: WeightsFile | None = None,
    ) -> None:
        try:
            classifier.check(card.features, len(card.classes))
        except HeadError as error:
            raise ModelError(str(error)) from error
        self.card, self.classifier, self.weights = card, classifier, weights
        self.bundled = bundled

    def __repr__(self) -> str:
        """Show what matters."""
        card = self.card
        return f"Model({card.head} on {card.spec.name}, {len(card.classes)} classes)"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read a model; nothing in a file is ever run.

        Raises
        ------
        ModelError
            If the file is no model, or is damaged.
        """
        try:
            card, classifier, bundled = _read(Path(path))
            return cls(card, classifier, bundled=bundled)
        except ModelError as error:
            raise ModelError(f"{path} is not a model that can be used: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a file, whole or not at all; an older model there is replaced.

        Raises
        ------
        ModelError
            If the path is a folder's, or in none that exists, or of a file that is no model, or
            cannot be written; if the model is too large to be loaded.
        """
        target = check_target(path)
        arrays = arrays_of(self.classifier)
        if self.bundled is not None:
            arrays |= bundle.arrays_in(self.bundled)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        content = self.card.to_dict()
        Card.from_dict(content)
        card = json.dumps(content, sort_keys=True, allow_nan=False)
        _check_size(card, arrays)
        digest = _digest(card, arrays)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                file.write(save(arrays, {_KEY: card, "sha256": digest}))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except OSError as error:
            raise ModelError(
                f"{target} cannot be written: {error.strerror or error}; name another one with -o"
            ) from error
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        return target

    def probabilities(self, features: NDArray[Any]) -> NDArray[np.float64]:
        r"""Return class probabilities ``(m, k)`` of features ``(m, \*card.shape)``.

        They are rounded to the dtype in which the store keeps them, and pooled, as those were
        that the head was trained on.

        Raises
        ------
        ModelError
            If they have another shape, or the model makes no probabilities of them.
        """
        features = np.asarray(features)
        if features.shape[1:] != self.card.shape:
            raise ModelError(f"its features have shape {self.card.shape}; found {features.shape}")
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            rows = pooled(features.astype(self.card.spec.dtype), self.card.pool)  # type: ignore[arg-type]
            flat = rows.reshape(len(rows), -1).astype(np.float32)
            found = probabilities(self.classifier, flat)
        if not np.isfinite(found).all():
            raise ModelError("it gives a picture probabilities that are no numbers")
        return found

    def predict(
        self,
        pictures: Picture | Sequence[Picture],
        *,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """Return a prediction for each picture, in their order.

        Parameters
        ----------
        pictures
            Files, or decoded pictures (height, width, 3) uint8 of any size; or one of them.
        workers
            Threads that decode and, usually, compute; the number of cores by default.
        progress
            Called with ("predicting", done, total).

        Raises
        ------
        WeightsError
            If the base's weights cannot be had.
        ModelError
            If they are not those the model was trained on, or this version makes other features.
        """
        return list(self.stream(pictures, workers=workers, progress=progress))

    def stream(
        self,
        pictures: Picture | Sequence[Picture],
        *,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Prediction]:
        """Yield what `predict` returns, batch by batch."""
        from headstart.extract.live import as_pictures, live_features

        pictures = as_pictures(pictures)

        names = [str(i) if isinstance(p, np.ndarray) else str(p) for i, p in enumerate(pictures)]
        spec, done = self.card.spec, 0
        for positions, features, unusable in live_features(
            pictures,
            self._base,
            size=spec.size,
            workers=workers or max(2, cores()),
            max_pixels=self.card.max_pixels,
            rule=spec.decoding,
        ):
            found = {
                position: Prediction(names[position], "", np.empty(0), reason)
                for position, reason in unusable.items()
            }
            if positions:
                shares = self.probabilities(features[spec.layer])
                for position, share in zip(positions, shares, strict=True):
                    label = self.card.classes[int(share.argmax())]
                    found[position] = Prediction(names[position], label, share)
            done += len(found)
            if progress is not None:
                progress("predicting", done, len(pictures))
            yield from (found[position] for position in sorted(found))

    @cached_property
    def _base(self) -> Base:
        from headstart.extract.base import load_base
        from headstart.extract.engines import require_same_engine

        spec = self.card.spec
        check_rule(spec)
        require_same_engine(
            spec.engine,
            "the store of this model",
            "extract anew into another store, with --engine keras, and train again",
        )
        base = load_base(
            self._weights_file(),
            size=spec.size,
            layers=[spec.layer],
            pool=spec.pool,
            engine=spec.engine,
            precision=spec.precision,
        )
        self._check_digest(base.digest)
        shape = base.shapes[spec.layer]
        if shape != self.card.shape:
            raise ModelError(f"its features have shape {self.card.shape}; its base gives {shape}")
        return base

    def base_weights(self) -> WeightsFile:
        """Return the base's weights, read and known to be those the model was trained on.

        Raises
        ------
        WeightsError
            If they cannot be had.
        ModelError
            If they are others.
        """
        from headstart.extract.base import load_arrays

        file = self._weights_file()
        arrays = load_arrays(file)
        self._check_digest(arrays.digest())
        return dataclasses.replace(file, arrays=arrays)

    def _weights_file(self) -> WeightsFile:
        from headstart.extract.weights import find_weights

        return self.bundled or find_weights(self._weights_name())

    def _check_digest(self, found: str) -> None:
        expected = self.card.spec.weights
        if found != expected:
            name = self.bundled.name if self.bundled else self._weights_name()
            raise ModelError(
                f"it was trained on features of the weights {expected[:16]}..., but "
                f"{name!r} gives {found[:16]}...: name the right ones with "
                "--weights"
            )

    def _weights_name(self) -> str:
        """Return where the base's weights are; a path in a stranger's card is never opened."""
        from headstart.extract.weights import is_name

        name = self.weights or self.card.weights
        if not self.weights and not is_name(name):
            raise ModelError(
                f"its base's weights came from a file (sha256 of the arrays "
                f"{self.card.spec.weights[:16]}...): name it with --weights FILE"
            )
        return name

    def with_weights(self, name: str) -> Model:
        """Return the same model that takes its base's weights from elsewhere."""
        return Model(self.card, self.classifier, name)


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return where a model may be written: over nothing but another model.

    Raises
    ------
    ModelError
        If the path is a folder's, or in none that exists or can be written to, or of a file that
        is no model.
    """
    target = Path(path)
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise ModelError(f"{target}: expected the name of a file in a folder that exists")
    if not os.access(target.absolute().parent, os.W_OK):
        raise ModelError(f"{target}: its folder cannot be written to: name another one with -o")
    if os.path.lexists(target) and not _is_ours(target):
        raise ModelError(f"{target} is there already and is no model: name another one with -o")
    return target


def _is_ours(path: Path) -> bool:
    """Tell whether a file has a model's card, of whatever version."""
    try:
        if not path.is_file():
            return False
        with safe_open(path, "numpy") as file:
            card = json.loads((file.metadata() or {})[_KEY])
    except _UNREADABLE:
        return False
    return isinstance(card, dict) and card.get("format") == FORMAT


def _check_size(card: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse what could not be loaded again; twice its card is the most that quoting makes of it.

    Raises
    ------
    ModelError
        If the file would be too large.
    """
    held = 2 * len(card) + sum(array.nbytes for array in arrays.values()) + 4096
    if len(card) > _MOST_CARD or held > _MOST_BYTES:
        raise ModelError(
            f"the model would take {held / (1 << 30):.3g} GiB, with {len(card) / (1 << 20):.3g} "
            f"MiB of classes; models have up to {_MOST_BYTES / (1 << 30):.3g} GiB and "
            f"{_MOST_CARD >> 20} MiB: use --pool avg, or fewer rows or classes"
        )


def _digest(card: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of a card and arrays, in hex."""
    digest = hashlib.sha256(card.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _is_hdf5(path: Path) -> bool:
    return path.is_file() and h5py.is_hdf5(path)


def _read(path: Path) -> tuple[Card, Portable, WeightsFile | None]:
    """Return a checked card, classifier and weights; nothing is read before its size is known."""
    if not path.exists():
        raise ModelError("there is no such file")
    if path.is_dir() or _is_hdf5(path):
        raise ModelError(
            "it is a folder or an HDF5 file, as a store is; a model is made of a store by "
            "headstart train STORE --head HEAD -o MODEL"
        )
    if not path.is_file():
        raise ModelError("it is no file")
    if path.stat().st_size > _MOST_BYTES:
        raise ModelError(f"it is larger than {_MOST_BYTES >> 30} GiB")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.keys() != {_KEY, "sha256"} or len(metadata[_KEY]) > _MOST_CARD:
                raise ModelError("it has no card of ours")
            card = Card.from_dict(json.loads(metadata[_KEY]))
            arrays = _arrays(file, card)
    except _UNREADABLE as error:
        if isinstance(error, ModelError):
            raise
        why = f"{type(error).__name__}: {str(error)[:200]!r}"
        raise ModelError(f"it cannot be read ({why})") from error
    if _digest(metadata[_KEY], arrays) != metadata["sha256"]:
        raise ModelError("its checksum does not fit: it is damaged or was changed")
    bundled = {name: arrays.pop(name) for name in list(arrays) if name.startswith(bundle.PREFIX)}
    return card, KINDS[card.kind](**arrays), bundle.weights_of(bundled) if bundled else None


def _arrays(file: Any, card: Card) -> dict[str, NDArray[Any]]:
    """Read the arrays of a head's kind, and of a base, and no others: first what they are."""
    kind, names = KINDS[card.kind], sorted(file.keys())
    found = {name: _layout(file.get_slice(name), name) for name in names}
    bundled = {name: found.pop(name) for name in names if name.startswith(bundle.PREFIX)}
    expected = sorted(field.name for field in dataclasses.fields(kind))
    if sorted(found) != expected:
        raise ModelError(f"it holds the arrays {sorted(found)}; expected {expected}")
    try:
        kind.check_layout(found, card.features, len(card.classes))
    except HeadError as error:
        raise ModelError(str(error)) from error
    if bundled:
        bundle.check_layout(bundled)
    return {name: file.get_tensor(name) for name in names}


def _layout(array: Any, name: str) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape of an array that was not read yet."""
    if array.get_dtype() not in _DTYPES:
        raise ModelError(f"its {name!r} is of {array.get_dtype()}")
    return _DTYPES[array.get_dtype()], tuple(array.get_shape())
