"""Choosing an engine and a precision, and OpenVINO against Keras."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart import _hardware
from headstart._hardware import gpu_capability
from headstart._keras import import_keras
from headstart.errors import HeadstartError, MissingExtraError
from headstart.extract.base import load_base
from headstart.extract.engines import (
    is_out_of_memory,
    resolve_engine,
    resolve_precision,
)
from headstart.extract.weights import WeightsFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RANDOM = WeightsFile("random:3", None, "")
FLOAT32_SETTING = {
    "jax": "jax.config.jax_default_matmul_precision == 'highest'",
    "torch": "not torch.backends.cudnn.allow_tf32",
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Describe a machine: its processor's flags, what nvidia-smi answers, what is installed."""

    def describe(flags: str = "fpu", gpu: str | None = None, *, openvino: bool = False) -> None:
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: sse {flags} avx\n")
        monkeypatch.setattr(_hardware, "_FLAGS", tmp_path / "cpuinfo")
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        (tmp_path / "nvidia-smi").unlink(missing_ok=True)
        if gpu is not None:
            (tmp_path / "nvidia-smi").write_text(f"#!{shell}\n{gpu}\n")
            (tmp_path / "nvidia-smi").chmod(0o755)
        missing = {"jax"} if openvino else {"jax", "openvino"}
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name in missing else object()
        )
        gpu_capability.cache_clear()

    shell = shutil.which("sh")
    yield describe
    gpu_capability.cache_clear()


@pytest.mark.parametrize(
    ("flags", "gpu", "expected"),
    [
        ("avx512_bf16", None, "bfloat16"),
        ("amx_bf16 amx_tile", None, "bfloat16"),
        ("avx512f", None, "float32"),
        ("avx512f", "echo 8.9", "bfloat16"),
        ("avx512_bf16", "echo 7.5", "float32"),
        ("avx512_bf16", "echo 'No devices were found'", "bfloat16"),
        ("avx512f", "echo 9.0; exit 9", "float32"),
    ],
)
def test_the_precision_is_what_the_hardware_computes_in(
    machine: Callable[..., None], flags: str, gpu: str | None, expected: str
) -> None:
    """A GPU decides where there is one, else the processor's flags."""
    machine(flags, gpu)
    assert resolve_precision("auto") == expected
    assert resolve_precision("float32") == "float32"
    assert resolve_precision("bfloat16") == "bfloat16"


def test_a_machine_that_lists_no_flags_computes_in_float32(
    machine: Callable[..., None], tmp_path: Path
) -> None:
    machine()
    (tmp_path / "cpuinfo").unlink()
    assert resolve_precision("auto") == "float32"


@pytest.mark.parametrize(
    ("openvino", "gpu", "backend", "expected"),
    [
        (True, None, None, "openvino"),
        (False, None, None, "keras"),
        (True, "echo 8.0", None, "keras"),
        (True, None, "torch", "keras"),
    ],
)
def test_the_engine_is_openvino_where_it_is_installed_and_nothing_asks_for_keras(
    machine: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    openvino: bool,
    gpu: str | None,
    backend: str | None,
    expected: str,
) -> None:
    machine(gpu=gpu, openvino=openvino)
    if backend:
        monkeypatch.setenv("KERAS_BACKEND", backend)
    assert resolve_engine("auto") == expected
    assert resolve_engine("keras") == "keras"


def test_a_missing_engine_names_its_extra(machine: Callable[..., None]) -> None:
    machine(openvino=False)
    with pytest.raises(MissingExtraError, match=r"pip install './headstart\[cpu\]'"):
        resolve_engine("openvino")
    with pytest.raises(MissingExtraError, match=r"headstart\[cpu\]"):
        load_base(RANDOM, size=75, layers=["mixed0"], engine="openvino")


def test_a_missing_backend_says_what_to_do(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is loaded, and also where Keras is imported for something else."""
    machine(openvino=True)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for start in (lambda: resolve_engine("auto"), lambda: resolve_engine("keras"), import_keras):
        with pytest.raises(MissingExtraError, match=r"=jax .* pip install jax, or unset KERAS_B"):
            start()
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    with pytest.raises(HeadstartError, match="=nonsense: expected tensorflow, jax, torch"):
        resolve_engine("keras")
    assert resolve_engine("openvino") == "openvino"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(HeadstartError, match="--engine tpu: expected auto, keras or openvino"):
        resolve_engine("tpu")
    with pytest.raises(HeadstartError, match="--precision int8: expected auto, float32 or bf"):
        resolve_precision("int8")


class ResourceExhaustedError(Exception):
    """TensorFlow's class of this name."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (ResourceExhaustedError("failed to allocate 3 GiB"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes do not match"), False),
        (KeyError("memory"), False),
    ],
)
def test_memory_running_out_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


# --- float32 -----------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_float32_is_not_rounded_to_tf32() -> None:
    """An engine of float32 forbids it; one of bfloat16 leaves it as it is."""
    import_keras()
    config = importlib.import_module("tensorflow").config.experimental
    config.enable_tensor_float_32_execution(True)
    try:
        for precision, allowed in (("bfloat16", True), ("float32", False)):
            load_base(RANDOM, size=75, layers=["mixed0"], batch_size=1, precision=precision)(
                _noise(1)
            )
            assert config.tensor_float_32_execution_enabled() is allowed
    finally:
        config.enable_tensor_float_32_execution(True)


# --- Keras' other backends ---------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_of_keras_compute_the_same(backend: str, tmp_path: Path) -> None:
    """Where they are installed: float32 within 1e-4 of the largest activation, bfloat16 near."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    code = (
        "import sys, numpy as np; from headstart.extract.base import load_base; "
        "from headstart.extract.weights import find_weights; "
        "pixels = np.load(sys.argv[1] + '/pixels.npy'); "
        "[np.save(f'{sys.argv[1]}/{precision}.npy', load_base(find_weights('random:3'), size=75, "
        "layers=['mixed7'], batch_size=4, precision=precision)(pixels)['mixed7']) "
        "for precision in ('float32', 'bfloat16')]; "
        f"import {backend}; assert {FLOAT32_SETTING[backend]}"
    )
    pixels = _noise(4)
    np.save(tmp_path / "pixels.npy", pixels)
    environment = os.environ | {"KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    expected = load_base(RANDOM, size=75, layers=["mixed7"], batch_size=4)(pixels)["mixed7"]
    peak = abs(expected).max()
    assert abs(np.load(tmp_path / "float32.npy") - expected).max() <= 1e-4 * peak
    assert abs(np.load(tmp_path / "bfloat16.npy") - expected).max() <= 0.1 * peak


# --- one spec, one value -----------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_values_depend_on_nothing_but_the_spec(engine: str, precision: str) -> None:
    """Bit for bit the same whatever other layers are asked for, and whatever the batch size.

    The others include what a rewriting removes (a convolution before its normalisation), the
    batches one that runs in parts beside each other.
    """
    if engine == "openvino":
        pytest.importorskip("openvino")

    def features(layers: list[str], batch_size: int) -> Any:
        base = load_base(
            RANDOM,
            size=75,
            layers=layers,
            batch_size=batch_size,
            engine=engine,
            precision=precision,
        )
        return base(_noise(16))["mixed3"]

    alone = features(["mixed3"], 4)
    assert alone.std() > 0
    others = ["mixed1", "conv2d_12", "average_pooling2d_1", "mixed3", "activation_20", "mixed4"]
    np.testing.assert_array_equal(features(others, 16), alone)


# --- OpenVINO ----------------------------------------------------------------------------------


def _noise(count: int) -> Any:
    return np.random.default_rng(1).integers(0, 256, (count, 75, 75, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bases() -> dict[str, Any]:
    pytest.importorskip("openvino")
    layers = ["mixed7", "mixed2", "activation_5"]
    return {
        engine: load_base(RANDOM, size=75, layers=layers, batch_size=4, engine=engine)
        for engine in ("keras", "openvino")
    }


@pytest.mark.tensorflow
def test_openvino_computes_what_keras_computes(bases: dict[str, Any]) -> None:
    """In float32, within 1e-4 of the largest activation, at every layer asked for."""
    expected, found = bases["keras"](_noise(4)), bases["openvino"](_noise(4))
    assert list(found) == list(expected)
    for layer, array in expected.items():
        assert found[layer].shape == array.shape
        assert found[layer].dtype == np.float32
        assert abs(found[layer] - array).max() <= 1e-4 * abs(array).max()


@pytest.mark.tensorflow
def test_openvino_keeps_to_the_share_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a task of a cluster has one, whatever the machine has."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(_hardware, "_shares", [1])
    base = load_base(RANDOM, size=75, layers=["mixed0"], batch_size=16, engine="openvino")
    base(_noise(1))
    assert base.at_once == 1
    engine: Any = base._engine
    model = engine._free.get_nowait().get_compiled_model()
    assert engine._free.empty()
    assert model.get_property("INFERENCE_NUM_THREADS") == 1
    assert model.get_property("NUM_STREAMS") == 1
    assert not model.get_property("ENABLE_CPU_PINNING")  # another process may have these cores


@pytest.mark.parametrize(
    ("threads", "batches"), [(1, 1), (2, 2), (3, 3), (8, 8), (9, 3), (11, 1), (12, 6), (64, 8)]
)
def test_openvino_is_given_a_batch_for_each_core_or_each_few(
    monkeypatch: pytest.MonkeyPatch, threads: int, batches: int
) -> None:
    """Eight at most, since each takes memory; as many cores for one as for another.

    Threads that decode may compute where each has a core.
    """
    engine = pytest.importorskip("headstart.extract._openvino_engine")
    monkeypatch.setattr(engine, "cores", lambda: threads)
    base = load_base(RANDOM, size=75, layers=["mixed0"], engine="openvino")
    assert base.at_once == batches
    assert base.per_core == (batches == threads)


@pytest.mark.tensorflow
def test_openvino_s_batches_have_a_stream_each() -> None:
    """By its own account, on the cores there are."""
    pytest.importorskip("openvino")
    base = load_base(RANDOM, size=75, layers=["mixed0"], batch_size=2, engine="openvino")
    base(_noise(1))
    engine: Any = base._engine
    model = engine._free.get_nowait().get_compiled_model()
    assert engine._free.qsize() == base.at_once - 1
    assert model.get_property("NUM_STREAMS") == base.at_once
    assert model.get_property("INFERENCE_NUM_THREADS") == _hardware.cores()


@pytest.mark.tensorflow
def test_openvino_s_batches_side_by_side_keep_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than it takes batches at once: none gets another's, or what is overwritten."""
    engine = pytest.importorskip("headstart.extract._openvino_engine")
    monkeypatch.setattr(engine, "cores", lambda: 2)
    base = load_base(RANDOM, size=75, layers=["mixed0"], batch_size=4, engine="openvino")
    batches = [_noise(4)[::-1] + n for n in range(12)]
    expected = [base(batch)["mixed0"] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(base, batches))
    for mine, alone in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine["mixed0"], alone)


@pytest.mark.tensorflow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_openvino_pools_what_it_would_give(pool: str, precision: str) -> None:
    """In float32, also where the activations are bfloat16."""
    pytest.importorskip("openvino")
    whole, pooled = (
        load_base(
            RANDOM,
            size=75,
            layers=["mixed2"],
            pool=kind,
            batch_size=4,
            engine="openvino",
            precision=precision,
        )(_noise(4))["mixed2"]
        for kind in ("none", pool)
    )
    reduce: Any = {"avg": np.mean, "max": np.max}[pool]
    np.testing.assert_allclose(pooled, reduce(whole, axis=(1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_openvino_s_features_do_not_depend_on_company(precision: str) -> None:
    pytest.importorskip("openvino")
    base = load_base(
        RANDOM, size=75, layers=["mixed7"], batch_size=4, engine="openvino", precision=precision
    )
    pixels = _noise(7)
    alone = base(pixels[:1])["mixed7"][0]
    for place in range(4):
        company = np.roll(pixels[1:], place, axis=0)[:4]
        company[place] = pixels[0]
        np.testing.assert_array_equal(base(company)["mixed7"][place], alone)


def test_openvino_needs_no_tensorflow() -> None:
    """The whole base runs in a process that never imports Keras."""
    pytest.importorskip("openvino")
    code = (
        "import sys, numpy as np; from headstart.extract.base import load_base; "
        "from headstart.extract.weights import find_weights; "
        "base = load_base(find_weights('random'), size=75, layers=['mixed0'], engine='openvino'); "
        "base(np.zeros((1, 75, 75, 3), np.uint8)); "
        "print([m for m in ('keras', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
