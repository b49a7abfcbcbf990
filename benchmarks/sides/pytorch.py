"""PyTorch: the same network and cut, compiled, bfloat16, channels last, behind a DataLoader."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch._inductor.config
from PIL import Image
from serve import serve

from headstart.extract._graph import INPUT, Concat, Conv, Norm, Pool
from headstart.extract._inception import blank, inception_v3

torch._inductor.config.freezing = True  # noqa: SLF001 - its public name; folds the weights into the program


class Network(torch.nn.Module):
    """InceptionV3 to mixed7, weights drawn: only its speed matters here."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = inception_v3(blank).cut(["mixed7"])
        self.parts = torch.nn.ModuleDict()
        for step in self.graph.steps.values():
            part = _part(step.operation)
            if part is not None:
                self.parts[step.name] = part

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn (n, 3, 150, 150) uint8 into (n, 768, 7, 7)."""
        maps = {INPUT: pixels.to(torch.bfloat16) / 127.5 - 1}
        for step in self.graph.steps.values():
            inputs = [maps[name] for name in step.inputs]
            if isinstance(step.operation, Concat):
                maps[step.name] = torch.cat(inputs, 1)
            elif step.name in self.parts:
                maps[step.name] = self.parts[step.name](inputs[0])
            else:
                maps[step.name] = torch.relu(inputs[0])
        return maps["mixed7"]


def _part(operation: Any) -> torch.nn.Module | None:
    if isinstance(operation, Conv):
        height, width, inward, outward = operation.kernel.shape
        same = operation.padding == "same"
        return torch.nn.Conv2d(
            inward,
            outward,
            (height, width),
            operation.strides,
            (height // 2, width // 2) if same else 0,
            bias=False,
        )
    if isinstance(operation, Norm):
        return torch.nn.BatchNorm2d(len(operation.scale), eps=1e-3)
    if isinstance(operation, Pool):
        if operation.kind == "max":
            return torch.nn.MaxPool2d(3, 2)
        return torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return None


class Pictures(torch.utils.data.Dataset[Any]):
    """JPEG files as (3, 150, 150) uint8."""

    def __init__(self, folder: str) -> None:
        self.files = sorted(Path(folder).rglob("*.jpg"))

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        """Decode one picture."""
        with Image.open(self.files[index]) as image:
            small = image.convert("RGB").resize((150, 150), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(small).transpose(2, 0, 1))


NETWORK = Network().eval().to(torch.bfloat16).to(memory_format=torch.channels_last)
COMPILED = torch.compile(NETWORK)


@torch.inference_mode()
def run(folder: str, out: str) -> int:
    loader = torch.utils.data.DataLoader(Pictures(folder), batch_size=32, num_workers=2)
    parts = []
    for batch in loader:
        count = len(batch)
        padded = torch.nn.functional.pad(batch, (0, 0, 0, 0, 0, 0, 0, 32 - count))
        maps = COMPILED(padded.to(memory_format=torch.channels_last))[:count]
        parts.append(maps.to(torch.float16).permute(0, 2, 3, 1).numpy())
    with h5py.File(out, "w") as file:
        file["features"] = np.concatenate(parts)
    return sum(map(len, parts))


if __name__ == "__main__":
    serve(run, *sys.argv[1:])
