"""What the processors of this machine can do."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

_FLAGS = Path("/proc/cpuinfo")
_BFLOAT16_FROM = 8.0  # compute capability: Ampere
_shares: list[int] = []


def keep_to(count: int) -> None:
    """Let this process use no more than so many cores from now on."""
    _shares[:] = [min([count, *_shares])]


def cores() -> int:
    """Return the number of cores this process may use."""
    return min(_available(), *_shares) if _shares else _available()


@cache
def _available() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def native_bfloat16() -> bool:
    """Return whether what Keras runs on here, a GPU or the processor, multiplies bfloat16."""
    capability = gpu_capability()
    return _cpu_has_bfloat16() if capability is None else capability >= _BFLOAT16_FROM


@cache
def gpu_capability() -> float | None:
    """Compute capability of the first NVIDIA GPU; None where there is none."""
    try:
        return float(_first_gpu("compute_cap"))
    except ValueError:
        return None


@cache
def machine() -> str:
    """Return what this process runs on, in words: cores, processor, GPU."""
    count = _available()
    words = f"{count} core{'' if count == 1 else 's'} of {_processor()}"
    gpu = _first_gpu("name")
    return f"{words}, {gpu}" if gpu else f"{words}, no GPU"


def _processor() -> str:
    """Return the processor's name where Linux tells it, else its kind."""
    try:
        lines = _FLAGS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.machine()


def _first_gpu(field: str) -> str:
    """Ask the driver for a field of the first NVIDIA GPU; empty where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            command, capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    lines = done.stdout.splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else ""


def _cpu_has_bfloat16() -> bool:
    """Read the flags Linux lists; elsewhere take the processor for one without."""
    try:
        flags = _FLAGS.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags))
