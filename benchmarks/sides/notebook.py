"""The usual notebook way: image_dataset_from_directory, model.predict, h5py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import h5py
from serve import serve

if TYPE_CHECKING:
    from collections.abc import Callable


def notebook(weights: str) -> Callable[[str, str], int]:
    from headstart.extract.base import import_keras, keras_base
    from headstart.extract.weights import find_weights

    keras = import_keras()
    base = keras_base(find_weights(weights), size=150)
    model = keras.Model(base.input, base.get_layer("mixed7").output)

    def run(folder: str, out: str) -> int:
        dataset: Any = keras.utils.image_dataset_from_directory(
            folder, label_mode=None, image_size=(150, 150), batch_size=32, shuffle=False
        )
        features = model.predict(dataset.map(lambda x: x / 127.5 - 1), verbose=0)
        with h5py.File(out, "w") as file:
            file["features"] = features
        return len(features)

    return run


if __name__ == "__main__":
    pictures, warm, scratch, weights = sys.argv[1:]
    serve(notebook(weights), pictures, warm, scratch)
