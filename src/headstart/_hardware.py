"""What the processors of this machine can do."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

_FLAGS = Path("/proc/cpuinfo")
_BFLOAT16_FROM = 8.0  # compute capability: Ampere


def native_bfloat16() -> bool:
    """Return whether what Keras runs on here, a GPU or the processor, multiplies bfloat16."""
    capability = gpu_capability()
    return _cpu_has_bfloat16() if capability is None else capability >= _BFLOAT16_FROM


@cache
def gpu_capability() -> float | None:
    """Compute capability of the first NVIDIA GPU; None where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            command, capture_output=True, text=True, timeout=20, check=False
        )
        return float(done.stdout.split()[0]) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None


def _cpu_has_bfloat16() -> bool:
    """Read the flags Linux lists; elsewhere take the processor for one without."""
    try:
        flags = _FLAGS.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags))
