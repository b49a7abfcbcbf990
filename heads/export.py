"""A model as one network that other programs run: base and head joined, checked, published."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cache.catalog import now, versions
from headstart.errors import ModelError, ParityError
from headstart.heads import parity
from headstart.heads.card import check_rule
from headstart.heads.formats import Format, describe, embed, format_of, sidecar
from headstart.heads.model import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headstart.cache import Progress, Store
    from headstart.extract.weights import WeightsFile
    from headstart.heads.parity import Parity

FORMAT, FORMAT_VERSION = "headstart-export", 1
QUANTIZE = ("none", "int8")
_STAGES = ("reading pictures", "joining", "writing", "checking")


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    file : Path
        The network; a folder, of a SavedModel.
    labels : Path
        What it is, as JSON: classes, input, and the model's card.
    kind : str
        ``Keras``, ``SavedModel``, ``ONNX`` or ``TFLite``.
    quantize : str
        ``none`` or ``int8``.
    bytes : int
        Of the network.
    store : str
        Against whose rows it was held.
    parity : Parity
    same_classes : bool
        Whether that store has the model's classes.
    """

    file: Path
    labels: Path
    kind: str
    quantize: str
    bytes: int
    store: str
    parity: Parity
    same_classes: bool

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        plain = dataclasses.asdict(self)
        return {**plain, "file": str(self.file), "labels": str(self.labels)}


def export(
    model: Model | str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    store: Store | str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    quantize: str = "none",
    weights: str | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Join base and head in one network, from uint8 pictures to probabilities, and write it.

    Before the file is published it is opened by its own runtime and must say of up to 100
    pictures of the store what the model says: every probability within 1e-3, and the same labels;
    in 8 bits, 95% of the labels. Else nothing is written.

    Parameters
    ----------
    model
        A model, or its file.
    file
        Where the network goes. The ending decides what it is: ``.keras``, ``.onnx`` (needs
        ``headstart[onnx]``), ``.tflite``, or ``.savedmodel``, a folder. An earlier export there
        is replaced, nothing else.
    store
        The store it was trained on, or another of the same spec; by default that in the folder
        of the model's file which is most like it, by its classes and how many rows each has.
    data
        The store's pictures; where they were at the last extraction by default.
    quantize
        ``int8``: weights and activations in 8 bits, of a TFLite file; their ranges are those of
        100 other pictures of the store.
    weights
        The base's weights, as for `Model.with_weights`.
    progress
        Called with stage, done, total.

    Raises
    ------
    ParityError
        If the network does not answer as the model does; it names the row.
    ModelError
        If the file cannot be written as asked.
    WeightsError
        If the base's weights cannot be had.
    MissingExtraError
        If a package is missing.

    Examples
    --------
    >>> export("pets.model", "pets.onnx", store="pets.features")  # doctest: +SKIP
    """
    target, kind = _target(file), format_of(Path(file))
    if quantize not in QUANTIZE or (quantize != "none" and kind.name != "TFLite"):
        raise ModelError(
            f"quantize {quantize}: expected one of {', '.join(QUANTIZE)}; int8 for .tflite alone"
        )
    near = Path.cwd() if isinstance(model, Model) else Path(model).absolute().parent
    loaded = model if isinstance(model, Model) else Model.load(model)
    loaded = loaded if weights is None else loaded.with_weights(weights)
    check_rule(loaded.card.spec)
    kind.check_can_write()
    found = parity.store_for(loaded, store, near)
    tell = _Steps(progress)
    tell()
    base_weights = loaded.base_weights()
    sample = parity.draw_sample(loaded, found, data, further=quantize != "none")
    wanted = parity.expected(loaded, sample, base_weights)
    tell()
    network = _network(loaded, base_weights)
    kind.check_fits(4 * network.count_params())
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.mkdir()
    try:
        tell()
        place = draft / target.name
        kind.write(network, place, sample.further if quantize != "none" else None)
        about = _description(loaded, target, kind, quantize)
        embed(place, about)
        tell()
        answers = _answers(kind, place, sample)
        same = parity.compare(loaded, sample, wanted, answers, quantized=quantize != "none")
        describe(place, {**about, "parity": dataclasses.asdict(same)})
        _publish(place, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Exported(
        target,
        sidecar(target),
        kind.name,
        quantize,
        _bytes(target),
        str(found.path),
        same,
        parity.has_classes(loaded, found),
    )


class _Steps:
    """Tells of one stage after the other."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done = progress, 0

    def __call__(self) -> None:
        if self._progress is not None:
            self._progress(_STAGES[self._done], self._done + 1, len(_STAGES))
        self._done += 1


def _network(model: Model, weights: WeightsFile) -> Any:
    """Return base and head joined, in float32."""
    from headstart.extract.base import import_keras, keras_base, plain_settings
    from headstart.heads.joined import joined

    base = keras_base(weights, size=model.card.spec.size)
    with plain_settings(import_keras().config):
        return joined(base, model.card, model.classifier)


def _answers(kind: Format, place: Path, sample: parity.Sample) -> NDArray[np.float32]:
    """Return what a file says of a sample, by its own runtime, whose errors are many."""
    try:
        return kind.run(place)(sample.pixels)
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ParityError(f"the file does not run ({why}); nothing was written") from error


def _target(file: str | os.PathLike[str]) -> Path:
    """Return where a network may be written: over nothing but an earlier export.

    Raises
    ------
    ModelError
        If the path is in no folder that exists, or of something else.
    """
    target = Path(file)
    format_of(target)
    if not target.absolute().parent.is_dir():
        raise ModelError(f"{target}: expected a name in a folder that exists")
    taken = [path for path in (target, sidecar(target)) if os.path.lexists(path)]
    if taken and not _is_ours(target):
        raise ModelError(f"{taken[0]} is there already and is no export: name another one with -o")
    return target


def _is_ours(target: Path) -> bool:
    """Tell whether an export, of whatever version, wrote this."""
    try:
        content = json.loads(sidecar(target).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def _description(model: Model, target: Path, kind: Format, quantize: str) -> dict[str, Any]:
    card, size = model.card, model.card.spec.size
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "file": target.name,
        "kind": kind.name,
        "quantize": quantize,
        "input": {
            "shape": [None, size, size, 3],
            "dtype": "uint8",
            "channels": "red, green, blue",
            "decoding": card.spec.decoding,
            "resampling": card.spec.resampling,
        },
        "output": {
            "shape": [None, len(card.classes)],
            "dtype": "float32",
            "label": "the class of the largest probability, the first of equal ones",
        },
        "classes": list(card.classes),
        "created": now(),
        "versions": versions(),
        "model": card.to_dict(),
    }


def _publish(draft: Path, target: Path) -> None:
    """Move a network and its description into their place; the description of a file first."""
    for path in (draft, *draft.rglob("*"), sidecar(draft)):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if draft.is_dir():
        if target.is_dir():
            target.rename(draft.with_name("before"))
        draft.rename(target)
    else:
        sidecar(draft).replace(sidecar(target))
        draft.replace(target)


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
