"""Heads in the row space against scikit-learn and plain Keras, on the same features.

    python benchmarks/heads.py [STORE ...] [--only logreg,svm,dense,table,memory] [--quick]

``synthetic`` as a STORE, or none: a synthetic set of 2,000 x 37,632 features, 86% zeros. All parts
on both sets, about twenty minutes: ``python benchmarks/heads.py STORE synthetic --quick``. Both
sides of a ratio run in this process. Lines that begin with -> are the ratios that were promised.
With --quick a slow peer runs on part of its work, and what it would have taken is extrapolated and
marked as such.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from headstart.cache import Filling, Rows, Spec, Store
from headstart.heads import DenseHead, LogisticHead, RowSpace, SVMHead
from headstart.heads.logistic import solve
from headstart.heads.metrics import wilson
from headstart.heads.rows import FeatureRows

GRID = [float(C) for C in np.logspace(-2, 4, 10)]


@dataclass(frozen=True)
class Data:
    """What all benchmarks run on."""

    store: Store
    rows: FeatureRows
    X: Any
    y: Any
    folds: list[Any]
    seeds: int


def synthetic(folder: Path, n: int = 2000) -> Store:
    """Return a store of sparse features with four classes that overlap."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 4
    basis = rng.normal(size=(64, 37632)).astype(np.float32)
    code = rng.normal(size=(n, 64)) + 0.3 * rng.normal(size=(4, 64))[y]
    features = np.empty((n, 7, 7, 768), np.float16)
    for i in range(n):
        dense = 0.13 * code[i].astype(np.float32) @ basis + rng.normal(size=37632)
        features[i] = np.maximum(dense - 1.63, 0).reshape(7, 7, 768)
    print(f"synthetic: {np.mean(features == 0):.2f} zeros")
    ids = [b"%064d" % i for i in range(n)]
    rows = Rows(tuple("abcd"), [f"{i:05}" for i in range(n)], [""] * n, y.tolist(), ids, [0] * n)
    filling = Filling(folder)
    for first in range(0, n, 250):
        part = slice(first, first + 250)
        filling.add(Spec(weights="0" * 64), rows.ids()[part], features[part], {})
    filling.publish(rows, ["mixed7"], left_out=[], unreadable={}, settings={}, seconds=0.0)
    return Store.open(folder)


def load(store: Store, seeds: int) -> Data:
    """Return labelled rows, as stored and scaled to a mean squared norm of 1."""
    labels = store.labels()
    numbers = np.flatnonzero((labels >= 0) & (store.views() == 0) & (store.splits() != "test"))
    rows = FeatureRows(store, None, numbers)
    X = rows.load().astype(np.float32)
    X /= np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64).mean())
    y = labels[numbers].astype(np.int64)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))
    return Data(store, rows, X, y, folds, seeds)


def processor_time() -> float:
    """Return the seconds of processor that this process and its children took."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def timed(label: str, work: Any) -> tuple[Any, float]:
    """Return a result and its seconds, and print wall and processor time."""
    wall, cpu = time.perf_counter(), processor_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, processor_time() - cpu
    print(f"  {label:58s} {wall:8.2f} s   ({cpu:.2f} s of processor)", flush=True)
    return result, wall


class _Loaded:
    """Stored rows that are in memory already."""

    def __init__(self, rows: FeatureRows) -> None:
        from headstart.heads.gram import ArrayRows

        self._rows = ArrayRows(rows.load())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)


def peer(label: str, search: Any, X: Any, y: Any, share: float) -> tuple[Any, float]:
    """Fit a peer; on a part of its grid the time is extrapolated, and says so."""
    fitted, seconds = timed(label, lambda: search.fit(X, y))
    if share < 1:
        print(f"    extrapolated from {share:.0%} of the grid: {seconds / share:.0f} s")
    return fitted, seconds / share


def logreg(data: Data, quick: bool) -> None:
    print("logistic regression, 10 penalties x 5 folds")
    stored = _Loaded(data.rows)
    space, first = timed(
        "row space (inner products and factorisation)",
        lambda: RowSpace()._fit(stored, None),  # noqa: SLF001
    )
    Z = space.coordinates_
    runs = [
        timed(
            "LogisticHead, whole grid and final fit",
            lambda: LogisticHead(GRID, cv=data.folds).fit(Z, data.y),
        )
        for _ in range(3)
    ]
    ours = runs[0][0]
    mine = sorted(seconds for _, seconds in runs)[1]
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": GRID}, cv=data.folds)
    coordinates, theirs = timed("GridSearchCV on coordinates", lambda: search.fit(Z, data.y))
    print(f"  -> {theirs / mine:.1f} times faster than GridSearchCV on coordinates (promised: 5)")
    folds, grid = (data.folds[:1], GRID[2::4]) if quick else (data.folds, GRID)
    share = len(folds) * len(grid) / 50
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": grid}, cv=folds, refit=not quick)
    _, flat = peer("GridSearchCV on flat features", search, data.X, data.y, share)
    print(
        f"  -> {flat / (first + mine):.0f} times faster than GridSearchCV on features, "
        "row space included (promised: 50)"
    )
    print(f"  best C: ours {ours.C_:.3g}, theirs {coordinates.best_params_['C']:.3g}")
    agreement(data, Z, quick)


def agreement(data: Data, Z: Any, quick: bool) -> None:
    """Run both sides to a tight tolerance on every problem, or on those of the first fold."""
    folds = data.folds[:1] if quick else data.folds
    weight = np.zeros((len(Z), 10 * len(folds)))
    for number, (train, _) in enumerate(folds):
        weight[train, number * 10 : number * 10 + 10] = 1
    C = np.tile(GRID, len(folds))
    k = len(np.unique(data.y))
    ours, _ = timed(
        "tight: ours, tol=1e-8", lambda: solve(Z, data.y, k, weight, C, tol=1e-8, max_iter=5000)
    )
    worst, same, total, started = 0.0, 0, 0, time.perf_counter()
    scores = np.zeros((2, len(folds), 10))
    for number, (train, test) in enumerate(folds):
        for c, penalty in enumerate(GRID):
            p = number * 10 + c
            model = LogisticRegression(C=penalty, tol=1e-8, max_iter=20_000).fit(
                Z[train], data.y[train]
            )
            a = objective(Z[train], data.y[train], ours.coef[p], ours.intercept[p], penalty)
            b = objective(Z[train], data.y[train], model.coef_, model.intercept_, penalty)
            worst = max(worst, (a - b) / b)
            mine = (Z[test] @ ours.coef[p].T + ours.intercept[p]).argmax(1)
            guess = model.predict(Z[test])
            same, total = same + int((mine == guess).sum()), total + len(test)
            scores[0, number, c] = (mine == data.y[test]).mean()
            scores[1, number, c] = (guess == data.y[test]).mean()
    print(f"  {'tight: scikit-learn, tol=1e-8':58s} {time.perf_counter() - started:8.2f} s")
    best = [GRID[int(s.mean(0).argmax())] for s in scores]
    print(
        f"  -> objective above theirs by at most {worst:.1e} (promised: 1e-6); same predictions on "
        f"{same / total:.2%} of {total} held-out rows (promised: 99.9%); "
        f"best C {best[0]:.3g} and {best[1]:.3g}"
    )


def objective(X: Any, y: Any, coef: Any, intercept: Any, C: float) -> float:
    """Return what logistic regression minimises."""
    scores = X @ coef.T + intercept
    loss = np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(X)), y]
    return float(C * loss.sum() + 0.5 * (coef**2).sum())


def svm(data: Data, quick: bool) -> None:
    print("linear SVM, 10 penalties x 5 folds")
    stored = _Loaded(data.rows)
    space, first = timed("row space", lambda: RowSpace()._fit(stored, None))  # noqa: SLF001
    Z = space.coordinates_
    ours, mine = timed(
        "SVMHead, whole grid, final fit, calibration",
        lambda: SVMHead(GRID, cv=data.folds).fit(Z, data.y),
    )
    folds, grid = (data.folds[:1], GRID[2::4]) if quick else (data.folds, GRID)
    share = len(folds) * len(grid) / 50
    search = GridSearchCV(SVC(kernel="linear"), {"C": grid}, cv=folds, refit=not quick)
    theirs, flat = peer("GridSearchCV(SVC) on flat features", search, data.X, data.y, share)
    print(
        f"  -> {flat / mine:.0f} times faster, {flat / (first + mine):.0f} with the row space "
        "(promised: 200)"
    )
    train, test = data.folds[0]
    same = total = 0
    for C in grid if quick else [0.01, 1.0, 100.0]:
        a = SVMHead(C).fit(Z[train], data.y[train]).predict(Z[test])
        b = SVC(kernel="linear", C=C).fit(data.X[train], data.y[train]).predict(data.X[test])
        same, total = same + int((a == b).sum()), total + len(test)
    print(f"  -> same predictions on {same} of {total} held-out rows (promised: all)")
    if not quick:
        print(f"  best C: ours {ours.chosen_['C']:.3g}, theirs {theirs.best_params_['C']:.3g}")


class KerasHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The head as a course has it: Keras' own layers, Adam and fit, on the features."""

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> KerasHead:
        """Train until the loss on a tenth of the rows has not fallen for 3 epochs, as DenseHead."""
        import keras

        self.classes_ = np.unique(y)
        train, held = next(
            StratifiedKFold(10, shuffle=True, random_state=self.random_state).split(X, y)
        )
        keras.utils.set_random_seed(self.random_state)
        self._model = keras.Sequential(
            [
                keras.layers.Dense(1024, activation="relu"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(len(self.classes_), activation="softmax"),
            ]
        )
        self._model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy")
        unit = np.sqrt(np.mean(np.square(X)))
        self._unit = unit
        self._model.fit(
            X[train] / unit,
            y[train],
            validation_data=(X[held] / unit, y[held]),
            epochs=60,
            callbacks=[keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)],
            verbose=0,
        )
        return self

    def predict(self, X: Any) -> Any:
        """Return the most probable classes."""
        return self.classes_[self._model.predict(X / self._unit, verbose=0).argmax(1)]


def dense(data: Data, quick: bool) -> None:
    print("dense head, 1024 units")
    Z = RowSpace().fit_rows(data.rows).coordinates_
    train, test = data.folds[0]
    DenseHead(units=8, epochs=1).fit(Z[train], data.y[train])  # TensorFlow's start is not counted
    grid = {"dropout": [0.1, 0.2, 0.3, 0.4], "learning_rate": [3e-4, 6e-4, 1e-3, 2e-3]}
    forms = {
        "features, its row space included": (data.X, DenseHead()),
        "coordinates that are there already": (Z, DenseHead()),
        "the same, 128 rows a step, patience 5": (Z, DenseHead(batch_size=128, patience=5)),
        "plain": (data.X, DenseHead(plain=True)),
        "Keras": (data.X, KerasHead()),
        "16 starts on features": (data.X, DenseHead(starts=16)),
        "16 starts on coordinates": (Z, DenseHead(starts=16)),
        "16 settings on features": (data.X, DenseHead(**grid)),
        "16 settings on coordinates": (Z, DenseHead(**grid)),
    }
    scores: dict[str, list[float]] = {form: [] for form in forms}
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for seed in range(min(2, data.seeds) if quick else data.seeds):
        for form, (X, head) in forms.items():
            mine = clone(head).set_params(random_state=seed)
            fitted, taken = timed(
                f"{form}, seed {seed}", lambda X=X, h=mine: h.fit(X[train], data.y[train])
            )
            seconds[form].append(taken)
            scores[form].append(fitted.score(X[test], data.y[test]))
    for form, values in scores.items():
        low, high = wilson(round(np.mean(values) * len(test)), len(test))
        print(
            f"  {form}: accuracy {np.mean(values):.3f} +- {np.std(values):.3f} over "
            f"{len(values)} seeds (95% of one: {low:.3f}-{high:.3f})"
        )
    took = {form: float(np.median(values)) for form, values in seconds.items()}
    for form in ("features, its row space included", "coordinates that are there already"):
        print(
            f"  -> {took['Keras'] / took[form]:.0f} times faster than Keras (promised: 10), "
            f"{took['plain'] / took[form]:.0f} times faster than DenseHead(plain=True): {form}"
        )
        place = form.split(",")[0].split()[0]
        print(
            f"  -> 16 starts cost {took[f'16 starts on {place}'] / took[form]:.1f} "
            f"times one, 16 settings {took[f'16 settings on {place}'] / took[form]:.1f} times "
            f"(promised: at most 4): {form}"
        )


HEADS = "logreg,svm,ridge,knn"


def table(data: Data, quick: bool) -> None:
    print(f"headstart compare STORE --heads {HEADS}, from process start to table")
    folder = data.store.derived
    command = [sys.executable, "-m", "headstart", "compare", str(data.store.path)]
    command += ["--heads", HEADS]
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for state in ("cold", "warm") * (1 if quick else 3):
        if state == "cold" and folder is not None and folder.exists():
            for file in folder.glob("rowspace-*"):
                file.unlink()
        done, taken = timed(
            state, lambda: subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        )
        seconds[state].append(taken)
    print(done.stdout)
    cold, warm = (np.median(seconds[state]) for state in ("cold", "warm"))
    print(f"  -> cold {cold:.1f} s (promised: 8), warm {warm:.1f} s (promised: 4)")


MEASURE = """
import sys
import numpy as np, scipy.stats, sklearn.svm, sklearn.model_selection
from headstart.cache import Store
from headstart.heads import compare, stream
from headstart.heads.modes import peak_mb
store = Store.open(sys.argv[1])
np.ones((512, 512), np.float32) @ np.ones((512, 512), np.float32)  # BLAS has work space of its own
before = peak_mb()
bound, head, pool = int(sys.argv[2]) or None, sys.argv[3], sys.argv[4]
result = compare(store, [head], pool=pool, cv=2, max_memory=bound)
after = peak_mb()
print(after - before, result.heads[0].accuracy, result.heads[0].form.replace(' ', '-'))
"""


def memory(data: Data, quick: bool) -> None:
    del quick
    n, d = data.rows.shape
    # Of pooled rows there are more than features: then inner products are no way, and both heads
    # learn by mini-batches.
    past_memory(data, "logreg", "none", n * d * data.rows.itemsize // 4)
    for head in ("logreg", "svm"):
        past_memory(data, head, "avg", n * data.store.shape(data.store.layers[0])[-1])


def past_memory(data: Data, head: str, pool: str, bound: int) -> None:
    """Measure a head with a bound of so many bytes, and without one."""
    print(f"{head}, pool {pool}, on features four times larger than --max-memory")
    found = {}
    for most in (bound, 0):
        command = [sys.executable, "-c", MEASURE, str(data.store.path), str(most), head, pool]
        done, _ = timed(
            f"at most {most / 1e6:.1f} MB" if most else "in memory",
            lambda c=command: subprocess.run(c, capture_output=True, text=True, check=True),
        )
        found[most] = done.stdout.split()
    (used, past, form), (_, inside, _) = found.values()
    print(
        f"  -> {form}: peak {float(used):.1f} MB of {bound / 1e6:.1f} MB, accuracy "
        f"{float(past):.3f} against {float(inside):.3f} in memory (promised: within 0.01)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="*", default=["synthetic"], metavar="STORE")
    parser.add_argument("--only", default="logreg,svm,dense,table,memory")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=5, help="of the dense heads")
    options = parser.parse_args()
    sides = {"logreg": logreg, "svm": svm, "dense": dense, "table": table, "memory": memory}
    for place in options.stores:
        with tempfile.TemporaryDirectory() as folder:
            drawn = place == "synthetic"
            store = synthetic(Path(folder) / "s") if drawn else Store.open(place)
            data = load(store, options.seeds)
            print(
                f"{place}: {data.X.shape[0]:,} rows x {data.X.shape[1]:,} features, "
                f"{len(np.unique(data.y))} classes"
            )
            for name in options.only.split(","):
                sides[name](data, options.quick)


if __name__ == "__main__":
    main()
