"""Frozen, fine-tuned or from scratch: one mode at one seed, measured."""

from __future__ import annotations

import re
import resource
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart._keras import import_keras
from headstart.cache import Store
from headstart.errors import HeadError, WeightsError
from headstart.heads import metrics
from headstart.heads.base import softmax
from headstart.heads.curve import part_of_splits
from headstart.heads.evaluation import evaluate
from headstart.heads.folds import fewest_groups, grouped_folds
from headstart.heads.forms import Forms
from headstart.heads.logreg import LogisticHead
from headstart.heads.registry import HEAD_NAMES, make_fitting, make_head
from headstart.heads.rows import FeatureRows
from headstart.heads.splits import FOLDS, Labelled, labelled_rows, protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headstart.extract.weights import WeightsFile
    from headstart.heads.folds import Folds
    from headstart.heads.networks import Examples

    Double = NDArray[np.float64]
    Float = NDArray[np.floating[Any]]
    Int = NDArray[np.int64]
    Split = tuple[Int, Int]

#: Modes that run on pixels, not on cached features.
FROM_PIXELS = ("finetune:all", "scratch", "scratch+augment")
UNITS = 1024  # of the dense head
_SCRATCH = {"epochs": 20, "patience": 4, "learning_rate": 1e-3}
_VIEWS = re.compile(r"frozen\+(\d+)views")
_BATCH, _BATCHES = 32, 8  # pictures at a time, and how often, to time the base
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, in which the peak is given


@dataclass(frozen=True)
class Bench:
    """What is benchmarked: the rows, and how networks are trained on them.

    Attributes
    ----------
    store : str
        With the features at `layer` and at every cut.
    pixels : str
        A ``.npy`` of the decoded pictures of all rows, (rows, size, size, 3) uint8.
    weights : str
        The base's, as ``--weights`` names them.
    layer : str
        What frozen heads are trained on.
    epochs : int
        At most, for fine-tuning.
    train_bn : bool
        Train batch normalisation too when fine-tuning.
    views : str
        The store of the same pictures at `layer` with augmented views; "" for none.
    """

    store: str
    pixels: str
    weights: str
    layer: str
    epochs: int = 5
    train_bn: bool = False
    views: str = ""


@dataclass(frozen=True)
class Record:
    """How one mode did with one seed.

    Attributes
    ----------
    mode, head : str
    seed : int
    accuracy : float
    log_loss : float
    extract_seconds : float
        What the features it is trained on cost, once; 0 for what runs on pixels.
    train_seconds : float
        Hyperparameters and the warm-up included; without `form_seconds`.
    trained_parameters : int
    epochs : int
        That were run; of the dense head, those up to its best and the ones it waited after that.
    predict_ms_per_image : float
        Of what comes after the cached features, or of all after the pixels.
    peak_mb : float
        Most memory of the process that ran this mode, in 10^6 bytes.
    right : str
        One character, 0 or 1, for each row that was measured.
    form_seconds : float
        To bring all rows into the form a frozen head is given, as their row space: to compute
        that the first time, to read it afterwards.
    share : float
        Of the training rows: below 1 for a point of a learning curve.
    rows : int
        Trained on; 0 where that was not kept.
    """

    mode: str
    head: str
    seed: int
    accuracy: float
    log_loss: float
    extract_seconds: float
    train_seconds: float
    trained_parameters: int
    epochs: int
    predict_ms_per_image: float
    peak_mb: float = 0.0
    right: str = field(default="", repr=False)
    form_seconds: float = 0.0
    share: float = 1.0
    rows: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def check_mode(mode: str, head: str) -> None:
    """Refuse a mode or a head that there is not.

    Raises
    ------
    HeadError
        Naming those there are.
    """
    cut = mode.startswith("finetune:") and mode != "finetune:"
    known = cut or _VIEWS.fullmatch(mode)
    if not known and mode not in ("majority", "untrained", "frozen", *FROM_PIXELS):
        raise HeadError(
            f"no mode is called {mode!r}; there are majority, untrained, frozen, frozen+Kviews, "
            f"finetune:LAYER, {', '.join(FROM_PIXELS)}"
        )
    if mode.startswith("frozen") and head not in HEAD_NAMES:
        make_head(head)


def run_mode(bench: Bench, mode: str, head: str, seeds: list[int]) -> Iterator[Record]:
    """Run one mode with each seed; yield each result as it is there.

    Raises
    ------
    HeadError
        If a class has too few rows, a head needs more memory than there is, or a network
        diverges.
    """
    yield from run_parts(bench, mode, head, [(seed, 1.0) for seed in seeds])


def run_parts(
    bench: Bench, mode: str, head: str, points: Sequence[tuple[int, float]]
) -> Iterator[Record]:
    """Run one mode with seeds and shares of their training rows; yield each result at once.

    A network takes as many steps for a part as for all, in more epochs: fewer would tell less of
    what more rows are worth than of what more steps are.

    Raises
    ------
    HeadError
        As `run_mode`.
    """
    run = _Run(bench)
    for seed, share in points:
        yield run.one(mode, head, seed, share)


def base_cost(bench: Bench, layers: Sequence[str]) -> dict[str, Any]:
    """Measure what the base costs a picture, here and as it is usually run.

    Returns
    -------
    dict
        ``base_ms``: as `extract` runs it, with all cores at work, from decoded pixels to each of
        the layers, layer to milliseconds; ``usual_ms``: to the bench's own layer, as an unmodified
        Keras model that is run again in each epoch. Medians over batches.
    """
    from headstart.extract.base import batch_seconds, keras_base, load_base

    run = _Run(bench)
    spec, keras = run.store.spec, import_keras()
    pixels = np.load(bench.pixels, mmap_mode="r")
    starts = range(0, max(1, len(pixels) - _BATCH + 1), _BATCH)[:_BATCHES]
    batches = [np.array(pixels[first : first + _BATCH]) for first in starts]
    weights = run.weights()
    base = keras_base(weights, size=spec.size)
    usual = keras.Model(base.input, base.get_layer(bench.layer).output)

    def ours(layer: str) -> float:
        base = load_base(
            weights,
            size=spec.size,
            layers=[layer],
            engine=spec.engine,
            precision=spec.precision,
            batch_size=_BATCH,
        )
        return batch_seconds(base, batches)

    def theirs() -> float:
        taken = []
        for batch in [batches[0], *batches]:
            started = time.perf_counter()
            usual.predict_on_batch(batch.astype(np.float32) / 127.5 - 1)
            taken.append(time.perf_counter() - started)
        return float(np.median(taken[1:]))

    per_picture = 1e3 / len(batches[0])
    return {
        "base_ms": {layer: per_picture * ours(layer) for layer in layers},
        "usual_ms": per_picture * theirs(),
    }


def peak_mb() -> float:
    """Return the most memory this process has had, in 10^6 bytes.

    The kernel's own figure of this program where there is one: what `getrusage` says begins at
    the memory of the process that started this one.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / 1e6


def split_of(store: Store, rows: Labelled, seed: int) -> Split:
    """Return the rows to train on and to measure: the store's own split, or a fold a seed."""
    return part_of(store, rows, seed, 1.0)[0]


def part_of(store: Store, rows: Labelled, seed: int, share: float) -> Folds:
    """Return the split of a seed with a share of its training rows; none if they are too few.

    Rows are those which `headstart.heads.curve.learning_curve` takes: with folds under the seed of
    their round, with a split of the store's own under the same seed.
    """
    splits = protocol(store, rows, cv=None, seed=seed // FOLDS).splits
    drawn = seed if rows.validation.any() else seed // FOLDS
    mine = [splits[seed % len(splits)]]
    return mine if share == 1 else part_of_splits(mine, rows, share, drawn)


class _Run:
    """One process's share: what several seeds of a mode have in common."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.store = Store.open(bench.store)
        self._rows = labelled_rows(self.store, None)
        self._classes = int(self._rows.codes.max()) + 1
        self._share = 1.0

    def one(self, mode: str, head: str, seed: int, share: float) -> Record:
        """Measure one mode with one seed and a share of its training rows."""
        if _VIEWS.fullmatch(mode):
            return replace(self._with_views.one("frozen", head, seed, share), mode=mode)
        (split,) = part_of(self.store, self._rows, seed, share)
        self._share = share
        kind = {"majority": self._majority, "untrained": self._untrained, "frozen": self._frozen}
        found = kind.get(mode, self._network)(mode, head, split, seed)
        features = layer_of(mode, self._bench.layer)
        return Record(
            mode=mode,
            head=head,
            seed=seed,
            extract_seconds=self.store.extract_seconds if features else 0.0,
            peak_mb=peak_mb(),
            share=share,
            rows=len(split[0]),
            **found,
        )

    @cached_property
    def _with_views(self) -> _Run:
        """The same on the store that has augmented views, too: all are trained on."""
        return _Run(replace(self._bench, store=self._bench.views))

    def _majority(self, mode: str, head: str, split: Split, seed: int) -> dict[str, Any]:
        del mode, head, seed
        counts = np.bincount(self._rows.codes[split[0]], minlength=self._classes)
        return self._measures(np.tile(counts / counts.sum(), (len(split[1]), 1)), split)

    def _untrained(self, mode: str, head: str, split: Split, seed: int) -> dict[str, Any]:
        """Measure class means, or a softmax layer with the weights that it would start from."""
        if head == "ncm":
            return self._frozen(mode, head, split, seed)
        X = FeatureRows(self.store, self._bench.layer, self._rows.numbers[split[1]]).load()
        limit = np.sqrt(6 / (X.shape[1] + self._classes))  # Glorot, as Keras starts
        draw = np.random.default_rng(seed)
        weights = draw.uniform(-limit, limit, (X.shape[1], self._classes))
        return self._measures(softmax(X.astype(np.float32) @ weights.astype(np.float32)), split)

    def _frozen(self, mode: str, head: str, split: Split, seed: int) -> dict[str, Any]:
        del mode
        source = FeatureRows(self.store, self._bench.layer, self._rows.numbers)
        forms = Forms(source, plain=False, max_memory=None, progress=None)
        classifier = make_fitting(head, streamed=bool(forms.streamed))
        if "random_state" in classifier.get_params():
            classifier.set_params(random_state=seed)
        started = time.perf_counter()
        form = forms.of(head, classifier)
        formed = time.perf_counter() - started
        found = evaluate(head, classifier, form, rows=self._rows, splits=[split])
        return {
            "accuracy": found.accuracy,
            "log_loss": float(found.log_loss or 0.0),
            "right": _digits(found.right),
            "form_seconds": formed,
            "train_seconds": found.fit_seconds,
            "trained_parameters": _parameters(head, source.shape[1], self._classes),
            "epochs": _epochs_run(classifier, found.params),
            "predict_ms_per_image": found.predict_ms_per_image,
        }

    def _network(self, mode: str, head: str, split: Split, seed: int) -> dict[str, Any]:
        del head
        model = self._model(mode, seed)
        from headstart.heads import networks

        codes, X = self._rows.codes, self._examples(mode)
        rows, held = self._held(split[0], seed)
        started = time.perf_counter()
        if mode.startswith("finetune:"):
            given = networks.before_classifier(model, X, rows)
            networks.start_classifier(
                model, *_logistic(given, codes[rows], self._rows.groups[rows], seed)
            )
        settings = {"epochs": self._bench.epochs} if mode.startswith("finetune:") else _SCRATCH
        recipe = networks.Recipe(seed=seed, **settings).for_share(self._share)
        cost = networks.train(model, X, codes, rows=rows, held=held, recipe=recipe)
        trained = time.perf_counter() - started
        probability, seconds = networks.timed_probabilities(model, X, split[1])
        if not np.isfinite(probability).all():
            raise HeadError(
                f"{mode} diverged at seed {seed} with learning rate {recipe.learning_rate:g}: "
                "its probabilities are not numbers"
            )
        return self._measures(probability, split) | {
            "train_seconds": trained,
            "trained_parameters": cost.parameters,
            "epochs": cost.epochs,
            "predict_ms_per_image": 1e3 * seconds / len(split[1]),
        }

    def _measures(self, probability: NDArray[Any], split: Split) -> dict[str, Any]:
        """Return what probabilities ``(m, k)`` of the rows to measure are worth."""
        true = self._rows.codes[split[1]]
        right = probability.argmax(1) == true
        return {
            "accuracy": float(right.mean()),
            "log_loss": metrics.log_loss(true, probability),
            "right": _digits(right),
            "train_seconds": 0.0,
            "trained_parameters": 0,
            "epochs": 0,
            "predict_ms_per_image": 0.0,
        }

    def _held(self, train: Int, seed: int) -> Split:
        """Return the rows to train on, and a tenth that decides when to stop."""
        codes, groups = self._rows.codes[train], self._rows.groups[train]
        folds = min(10, fewest_groups(codes, groups)[0])
        if folds < 2:
            return train, train
        rows, held = grouped_folds(codes, groups, folds, seed)[0]
        return train[rows], train[held]

    def _examples(self, mode: str) -> Examples:
        """Return what a network is given, a row each: pixels on disk, or features at the cut."""
        from headstart.heads import networks

        if mode in FROM_PIXELS:
            return networks.Picked(np.load(self._bench.pixels, mmap_mode="r"), self._rows.numbers)
        layer = layer_of(mode, self._bench.layer)
        features: NDArray[np.float16] = self.store.features(
            layer, rows=self._rows.numbers, dtype="float16"
        )
        return features

    def _model(self, mode: str, seed: int) -> Any:
        """Return the network, with the weights it starts from."""
        keras = import_keras()
        keras.utils.clear_session()  # else the layers of a second base have other names
        keras.utils.set_random_seed(seed)
        from headstart.heads import networks

        size = self.store.spec.size
        if mode.startswith("scratch"):
            return networks.convnet(size, self._classes, augment=mode.endswith("augment"))
        base, train_bn = self.base(), self._bench.train_bn
        if mode == "finetune:all":
            return networks.whole(base, self._classes, train_bn=train_bn)
        return networks.tail(
            base, layer_of(mode, self._bench.layer), self._classes, train_bn=train_bn
        )

    def base(self) -> Any:
        """Return the base as Keras has it, with its pretrained weights."""
        from headstart.extract.base import keras_base

        return keras_base(self.weights(), size=self.store.spec.size)

    def weights(self) -> WeightsFile:
        """Return the weights that the store's features are of, read."""
        from headstart.extract.base import load_arrays
        from headstart.extract.weights import find_weights

        weights = find_weights(self._bench.weights)
        arrays, expected = load_arrays(weights), self.store.spec.weights
        found = arrays.digest()
        if found != expected:
            raise WeightsError(
                f"--weights {self._bench.weights} are not those of {self.store.path} "
                f"({found[:16]}... instead of {expected[:16]}...)"
            )
        return replace(weights, arrays=arrays)


def layer_of(mode: str, layer: str) -> str:
    """Return the layer whose features a mode needs, where frozen heads need those of `layer`.

    Examples
    --------
    >>> layer_of("frozen", "mixed7"), layer_of("finetune:mixed9", "mixed7")
    ('mixed7', 'mixed9')
    >>> layer_of("scratch", "mixed7")
    ''
    """
    if mode in (*FROM_PIXELS, "majority"):
        return ""
    return mode.partition(":")[2] or layer


def _epochs_run(classifier: Any, params: dict[str, Any]) -> int:
    """Return how many epochs a head was trained, where it says which was the best."""
    if "epochs" not in params:
        return 0
    settings = classifier.get_params()
    return int(min(params["epochs"] + settings["patience"], settings["epochs"]))


def _logistic(X: Float, codes: Int, groups: Int, seed: int) -> tuple[Double, Double]:
    """Return coefficients ``(k, d)`` and intercepts of a network's last layer before it is trained.

    Chosen by log loss, which is what training goes on to lower: by accuracy it may start, and
    stay, far too sure of itself.
    """
    scale = np.sqrt(np.square(X, dtype=np.float64).sum(1).mean()) or 1.0  # the grid is for norm 1
    head = LogisticHead(scoring="neg_log_loss", random_state=seed)
    head.fit(X / scale, codes, groups=groups)
    return head.coef_ / scale, head.intercept_


def _digits(right: NDArray[np.bool_]) -> str:
    return "".join(np.where(right, "1", "0"))


def _parameters(head: str, d: int, k: int) -> int:
    """Return how many numbers a head fits to `d` features and `k` classes; 0 if it keeps rows."""
    machines = k * (k - 1) // 2
    linear = {"logreg": 1 if k == 2 else k, "ridge": k, "svm": machines}
    if head == "dense":
        return (d + 1) * UNITS + (UNITS + 1) * (1 if k == 2 else k)
    return linear.get(head, 0) * (d + 1)
