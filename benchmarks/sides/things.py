"""THINGSvision, as its README shows it, with its Keras or its torchvision InceptionV3."""

# Runs on Python 3.10, in an environment of its own.

from __future__ import annotations

import os
import sys
import tempfile

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import h5py
from serve import serve
from thingsvision import get_extractor
from thingsvision.utils.data import DataLoader, ImageDataset

MODULES = {"keras": ("InceptionV3", "mixed7"), "torchvision": ("inception_v3", "Mixed_6e")}
SOURCE = sys.argv[1]
MODEL, MODULE = MODULES[SOURCE]
EXTRACTOR = get_extractor(model_name=MODEL, source=SOURCE, device="cpu", pretrained=False)


def run(folder: str, out: str) -> int:
    backend = EXTRACTOR.get_backend()
    with tempfile.TemporaryDirectory() as scratch:
        dataset = ImageDataset(
            root=folder,
            out_path=scratch,
            backend=backend,
            transforms=EXTRACTOR.get_transformations(resize_dim=150, crop_dim=150),
        )
        batches = DataLoader(dataset=dataset, batch_size=32, backend=backend)
        features = EXTRACTOR.extract_features(
            batches=batches, module_name=MODULE, flatten_acts=False, output_type="ndarray"
        )
    with h5py.File(out, "w") as file:
        file["features"] = features
    return len(features)


if __name__ == "__main__":
    serve(run, *sys.argv[2:])
