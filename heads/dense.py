"""The course's head: one dense layer of relu units with dropout, trained by gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from headstart.heads.base import Head, softmax
from headstart.heads.folds import fewest_groups, grouped_folds
from headstart.heads.rowspace import RowSpace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from headstart.heads.base import ClassWeight, Training
    from headstart.heads.folds import Int


class DenseHead(Head):
    """Flatten, Dense relu, Dropout, softmax (for two classes: sigmoid), in Keras.

    Trained on row-space coordinates unless `plain`. A dense layer on the features is a linear
    function first, and on the training rows every linear function of the features is one of the
    coordinates, so both forms can represent the same functions of the training rows; they
    differ in where training starts.

    Parameters
    ----------
    units : int
    dropout : float
    learning_rate : float
        Of Adam.
    batch_size : int
    epochs : int
        At most; training stops early when the loss on held-out training rows has not improved
        for `patience` epochs, and the best weights are kept.
    patience : int
    validation : float
        Share of the training rows that is held out for this.
    class_weight : dict or "balanced", optional
    plain : bool
        Train on the features themselves.
    random_state : int
    """

    def __init__(
        self,
        *,
        units: int = 1024,
        dropout: float = 0.2,
        learning_rate: float = 1e-3,
        batch_size: int = 32,
        epochs: int = 40,
        patience: int = 5,
        validation: float = 0.1,
        class_weight: ClassWeight = None,
        plain: bool = False,
        random_state: int = 0,
    ) -> None:
        self.units = units
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.validation = validation
        self.class_weight = class_weight
        self.plain = plain
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Train on rows ``(n, d)``."""
        import keras

        rows = self._training(X, y, sample_weight, groups)
        self.space_ = None if self.plain else RowSpace().fit(rows.X)
        Z = rows.X if self.space_ is None else self.space_.coordinates_
        self.unit_ = float(np.sqrt(np.mean(Z * Z))) or 1.0
        Z = (Z / self.unit_).astype(np.float32)
        keras.utils.set_random_seed(self.random_state)
        model = self._model(keras, Z.shape[1], len(self.classes_))
        train, held = self._held_out(rows)
        target = rows.codes.astype(np.int32)
        history = model.fit(
            Z[train],
            target[train],
            sample_weight=rows.weight[train].astype(np.float32),
            validation_data=(Z[held], target[held], rows.weight[held].astype(np.float32)),
            batch_size=self.batch_size,
            epochs=self.epochs,
            callbacks=[
                keras.callbacks.EarlyStopping(patience=self.patience, restore_best_weights=True)
            ],
            verbose=0,
        )
        self.n_iter_ = len(history.history["loss"])
        self.weights_ = model.get_weights()
        self.chosen_ = {"epochs": int(np.argmin(history.history["val_loss"])) + 1}
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities ``(m, classes)``."""
        rows = self._rows(X)
        Z = rows if self.space_ is None else self.space_.transform(rows)
        inner, bias, outer, last = self.weights_
        scores = np.maximum((Z / self.unit_) @ inner + bias, 0) @ outer + last
        if len(self.classes_) == 2:
            scores = np.column_stack([np.zeros(len(Z)), scores])
        return softmax(scores)

    def _model(self, keras: Any, width: int, n_classes: int) -> Any:
        two = n_classes == 2
        model = keras.Sequential(
            [
                keras.Input((width,)),
                keras.layers.Dense(self.units, activation="relu"),
                keras.layers.Dropout(self.dropout),
                keras.layers.Dense(
                    1 if two else n_classes, activation="sigmoid" if two else "softmax"
                ),
            ]
        )
        loss = "binary_crossentropy" if two else "sparse_categorical_crossentropy"
        model.compile(keras.optimizers.Adam(self.learning_rate), loss)
        return model

    def _held_out(self, rows: Training) -> tuple[Int, Int]:
        """Return training and held-out rows: one of as many folds as the share asks for."""
        wanted = round(1 / self.validation)
        n_splits = min(wanted, fewest_groups(rows.codes, rows.groups)[0])
        if n_splits < 2:
            everything = np.arange(len(rows.codes))
            return everything, everything
        return grouped_folds(rows.codes, rows.groups, n_splits, self.random_state)[0]
