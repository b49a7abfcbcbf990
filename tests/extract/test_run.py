"""A whole extraction: every row is its own picture's, and only what is new is computed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fakes
from headstart.cache import Store, verify
from headstart.errors import (
    CorruptStoreError,
    DataError,
    InterruptedRunError,
    LayerError,
    MissingExtraError,
    SpecMismatchError,
    StoreError,
    WeightsError,
)
from headstart.extract import (
    Settings,
    Speed,
    Summary,
    decode,
    engines,
    extract,
    fill_store,
    hashing,
    pipeline,
    reading,
)
from headstart.extract import base as base_module
from headstart.extract import decode as decoding
from headstart.extract import plan as planning
from headstart.extract._bases import Bases
from headstart.extract.augment import Augmentation
from headstart.extract.identical import Conflicts
from headstart.repair import verify_and_repair
from headstart.status import staleness

pytestmark = pytest.mark.usefixtures("fake_base")
SIZE = 75


def run(data: Any, store: Path, *, size: int | None = SIZE, **settings: Any) -> Summary:
    speed = Speed(batch_size=8, workers=3)
    _, summary = fill_store(data, store, Settings(size=size, **settings), speed=speed)
    return summary


def assert_rows_are_their_pictures(store: Store, root: Path, layer: str = "mixed7") -> None:
    features = store.features(layer, dtype="float16")
    for path, row in zip(store.paths(), features, strict=True):
        np.testing.assert_array_equal(row, fakes.features_of(root / path, layer, size=SIZE))


def test_every_picture_becomes_its_row(pets: Path, tmp_path: Path) -> None:
    """Rows come in the order of the paths, with label and features of their own picture."""
    summary = run(pets, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert (summary.rows, summary.computed, summary.reused, summary.duplicates) == (20, 20, 0, 0)
    assert store.paths() == sorted(store.paths())
    assert store.classes == ("cat", "dog")
    assert [store.classes[label] for label in store.labels()] == [
        path.split("/")[0] for path in store.paths()
    ]
    assert_rows_are_their_pictures(store, pets)


def test_exactly_the_new_and_edited_are_computed(pets: Path, tmp_path: Path) -> None:
    """Five added, renamed, removed and edited in place: ten are computed, rows stay true."""
    run(pets, tmp_path / "store")
    files = sorted(pets.rglob("*.png"))
    for number in range(5):
        fakes.draw(pets / "cat" / f"new{number}.png", seed=number)
        files[number].rename(files[number].with_name(f"renamed{number}.png"))
        files[5 + number].unlink()
        edited = files[10 + number]
        status, data = edited.stat(), bytearray(edited.read_bytes())
        other = fakes.draw(tmp_path / "other.png", seed=500 + number).read_bytes()
        edited.write_bytes(other.ljust(len(data), b"\0"))
        os.utime(edited, ns=(status.st_atime_ns, status.st_mtime_ns))
    summary = run(pets, tmp_path / "store")
    assert (summary.rows, summary.computed, summary.reused) == (20, 10, 10)
    assert_rows_are_their_pictures(Store.open(tmp_path / "store"), pets)


def test_second_run_needs_no_base(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is missing, the base is not even loaded."""
    run(pets, tmp_path / "store")

    def no_base(*args: object, **options: object) -> None:
        raise AssertionError("the base was loaded")

    monkeypatch.setattr(base_module, "load_base", no_base)
    summary = run(pets, tmp_path / "store", size=None)
    assert (summary.computed, summary.reused, summary.changed) == (0, 20, False)
    assert run(pets, tmp_path / "store", weights="imagenet").computed == 0


def test_settings_not_given_are_the_stores(pets: Path, tmp_path: Path) -> None:
    """Size, weights, layers and validation share are taken from the store."""
    run(pets, tmp_path / "store", weights="random:7", layers=("mixed5",), validation=0.5)
    fakes.draw(pets / "cat" / "new.png", seed=5)
    summary = run(pets, tmp_path / "store", size=None)
    store = Store.open(tmp_path / "store")
    assert summary.computed == 1
    assert store.layers == ("mixed5",)
    assert store.spec.size == SIZE
    assert set(store.splits()) == {"train", "validation"}
    row = store.paths().index("cat/new.png")
    expected = fakes.features_of(pets / "cat" / "new.png", "mixed5", "random:7", SIZE)
    np.testing.assert_array_equal(store.features(dtype="f2")[row], expected)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": 80}, "size"),
        ({"dtype": "float32"}, "dtype"),
        ({"weights": "random:9"}, "weights"),
        ({"decoding": "scaled"}, "decoding"),
    ],
)
def test_another_spec_is_refused(
    pets: Path, tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    """The store stays as it was, and the message names what differs."""
    run(pets, tmp_path / "store")
    before = (tmp_path / "store" / "features.h5").read_bytes()
    with pytest.raises(SpecMismatchError, match=f"{field}: the store has"):
        run(pets, tmp_path / "store", **({"size": SIZE} | change))
    assert (tmp_path / "store" / "features.h5").read_bytes() == before


def test_the_rule_of_decoding_is_the_stores(tmp_path: Path) -> None:
    """Large JPEGs decoded at a part of their size are other rows, also when they come later."""
    folder = fakes.draw_classes(tmp_path / "large", ("a", "b"), 2)
    for name in ("a/1.jpg", "b/2.jpg"):
        Image.effect_noise((4 * SIZE, 4 * SIZE), 90).convert("RGB").save(folder / name)
    run(folder, tmp_path / "full")
    run(folder, tmp_path / "scaled", decoding="scaled")
    full, scaled = Store.open(tmp_path / "full"), Store.open(tmp_path / "scaled")
    assert scaled.spec.decoding == "pillow-1-scaled"
    same = (full.features() == scaled.features()).reshape(len(full), -1).all(1)
    assert [path for path, equal in zip(full.paths(), same, strict=True) if not equal] == [
        "a/1.jpg",
        "b/2.jpg",
    ]
    shutil.copy(folder / "a" / "1.jpg", folder / "b" / "3.jpg")
    with (folder / "b" / "3.jpg").open("ab") as file:
        file.write(b"more")
    assert run(folder, tmp_path / "scaled").computed == 1
    store = Store.open(tmp_path / "scaled")
    found = {path: row.tobytes() for path, row in zip(store.paths(), store.features(), strict=True)}
    assert found["b/3.jpg"] == found["a/1.jpg"]
    with pytest.raises(StoreError, match="--decoding half: expected one of full, scaled"):
        run(folder, tmp_path / "scaled", decoding="half")


def expected_views(store: Store, root: Path, augmentation: Augmentation) -> list[Any]:
    """Return the features of every row, each made by itself."""
    base = fakes.FakeBase(fakes.fake_find_weights("imagenet"), size=SIZE, layers=("mixed7",))
    found = []
    for path, digest, view in zip(store.paths(), store.image_sha256(), store.views(), strict=True):
        pixels = decoding.decode((root / path).read_bytes(), SIZE)
        changed = augmentation.view(pixels, digest, int(view))
        found.append(base.expected("mixed7", changed[None])[0].astype(np.float16))
    return found


def test_views_of_training_pictures(pets: Path, tmp_path: Path) -> None:
    """Each has its own, after it; those of validation have none; nothing is computed again."""
    count = run(pets, tmp_path / "store", validation=0.3).rows
    summary = run(pets, tmp_path / "store", views=2, augment="rotation=0.1,seed=4")
    store = Store.open(tmp_path / "store")
    training = int(((store.splits() == "train") & (store.views() == 0)).sum())
    assert 0 < training < count
    assert summary.computed == 2 * training
    assert len(store) == count + 2 * training
    assert store.views().max() == 2
    assert set(store.splits()[store.views() > 0]) == {"train"}
    paths = list(zip(store.paths(), store.views().tolist(), strict=True))
    assert paths == sorted(paths)
    some = Augmentation(rotation=0.1, seed=4)
    assert store.spec.augmentation == some.to_json()
    expected = expected_views(store, pets, some)
    np.testing.assert_array_equal(store.features(dtype="f2"), np.stack(expected))
    assert verify(tmp_path / "store").sound


def test_views_are_remembered_and_dropped(pets: Path, tmp_path: Path) -> None:
    """A later run keeps their number and kind; fewer cost nothing, and none is none."""
    run(pets, tmp_path / "store", views=2)
    rows = len(Store.open(tmp_path / "store"))
    fakes.draw(pets / "cat" / "new.png", seed=50)
    assert run(pets, tmp_path / "store").computed == 3
    assert len(Store.open(tmp_path / "store")) == rows + 3
    assert staleness(tmp_path / "store", pets).to_compute == 0
    assert run(pets, tmp_path / "store", views=1).computed == 0
    with pytest.raises(SpecMismatchError, match="augmentation: the store has"):
        run(pets, tmp_path / "store", views=1, augment="flip=0")
    assert run(pets, tmp_path / "store", views=0).computed == 0
    store = Store.open(tmp_path / "store")
    assert store.views().max() == 0
    assert store.spec.augmentation == ""
    assert run(pets, tmp_path / "store", views=1, augment="flip=0").computed == len(store)
    store = Store.open(tmp_path / "store")
    expected = expected_views(store, pets, Augmentation(flip=0))
    np.testing.assert_array_equal(store.features(dtype="f2"), np.stack(expected))


def test_layers_gained_later_have_the_views_too(pets: Path, tmp_path: Path) -> None:
    """A layer is added for every row."""
    run(pets, tmp_path / "store", views=1)
    rows = len(Store.open(tmp_path / "store"))
    assert run(pets, tmp_path / "store", layers=("mixed5",)).computed == rows
    store = Store.open(tmp_path / "store")
    assert store.features("mixed5").shape[0] == rows
    assert store.catalog.layers["mixed5"].spec.augmentation == store.spec.augmentation != ""


@pytest.mark.parametrize(
    ("given", "words"),
    [({"views": 256}, "expected 0 to 255"), ({"augment": "flip=0"}, "give --views too")],
)
def test_views_that_cannot_be(
    pets: Path, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        run(pets, tmp_path / "store", **given)
    assert not (tmp_path / "store").exists()


def test_other_weights_are_refused_by_name(pets: Path, tmp_path: Path) -> None:
    """What the store was made with and what was asked for, as people know them, and digests."""
    run(pets, tmp_path / "store", weights="random:3")
    digest = r"\(sha256 \w{16}\.\.\.\)"
    asked = rf"weights: the store has 'random:3 {digest}', asked for 'random:9"
    with pytest.raises(SpecMismatchError, match=rf"{asked} {digest}'"):
        run(pets, tmp_path / "store", weights="random:9")
    with pytest.raises(SpecMismatchError, match=rf"{asked}'"):
        run(pets, tmp_path / "store", size=80, weights="random:9")


def test_a_store_of_an_engine_that_is_not_here_says_both_ways_on(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has to be computed is refused, as is another engine; what is there is still served."""
    monkeypatch.setattr(engines, "_has_openvino", lambda: True)
    run(pets, tmp_path / "store", engine="openvino")
    monkeypatch.setattr(engines, "_has_openvino", lambda: False)
    assert run(pets, tmp_path / "store", size=None).reused == 20
    fakes.draw(pets / "cat" / "new.png", seed=1)
    said = r"store was made with the engine openvino.*headstart\[cpu\].*; or .*--engine keras"
    with pytest.raises(MissingExtraError, match=said):
        run(pets, tmp_path / "store", size=None)
    with pytest.raises(SpecMismatchError, match="engine"):
        run(pets, tmp_path / "store", size=None, engine="keras")
    shard = next((tmp_path / "store" / "shards").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(MissingExtraError, match=said):
        verify_and_repair(tmp_path / "store", repair=True)


def test_layers_are_gained_and_kept(pets: Path, tmp_path: Path) -> None:
    """A layer asked for later is computed for all; new pictures get every layer."""
    run(pets, tmp_path / "store")
    assert run(pets, tmp_path / "store", layers=("mixed5", "mixed0")).computed == 20
    fakes.draw(pets / "dog" / "new.png", seed=5)
    assert run(pets, tmp_path / "store").computed == 1
    store = Store.open(tmp_path / "store")
    assert store.layers == ("mixed7", "mixed5", "mixed0")
    for layer in store.layers:
        assert_rows_are_their_pictures(store, pets, layer)


def test_maps_and_pooled_features_in_one_store(pets: Path, tmp_path: Path) -> None:
    """A pooled layer lives beside the map, and both gain new pictures."""
    run(pets, tmp_path / "store")
    run(pets, tmp_path / "store", pool="avg")
    fakes.draw(pets / "dog" / "new.png", seed=5)
    assert run(pets, tmp_path / "store").computed == 1
    store = Store.open(tmp_path / "store")
    assert store.layers == ("mixed7", "mixed7.avg")
    assert store.features("mixed7.avg").shape == (21, 4)


def test_a_layer_asked_for_later_is_pooled_as_the_store_is(pets: Path, tmp_path: Path) -> None:
    """The store's pooling is kept unless another is given."""
    run(pets, tmp_path / "store", pool="avg")
    run(pets, tmp_path / "store", layers=("mixed5",))
    assert Store.open(tmp_path / "store").layers == ("mixed7.avg", "mixed5.avg")
    run(pets, tmp_path / "store", layers=("mixed5",), pool="none")
    assert Store.open(tmp_path / "store").layers == ("mixed7.avg", "mixed5.avg", "mixed5")


@pytest.mark.parametrize("name", ["imagenet", "random"])
def test_a_folder_called_like_the_weights_is_not_looked_at(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A folder ``imagenet`` in the current folder does not load the base again each time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    run(pets, tmp_path / "store", weights=name)
    monkeypatch.setattr(base_module, "load_base", lambda *_, **__: pytest.fail("loaded"))
    assert run(pets, tmp_path / "store", weights=name).computed == 0


def test_a_weights_file_is_found_from_anywhere(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given relative to one folder, it is found from another, and known by its bytes."""
    (tmp_path / "mine.h5").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    run(pets, tmp_path / "store", weights="mine.h5")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Store.open(tmp_path / "store").catalog.settings["weights"] == str(tmp_path / "mine.h5")
    fakes.draw(pets / "cat" / "new.png", seed=1)
    assert run(pets, tmp_path / "store").computed == 1
    monkeypatch.setattr(base_module, "load_base", lambda *_, **__: pytest.fail("loaded"))
    assert run(pets, tmp_path / "store", weights="../mine.h5").computed == 0


def test_unreadable_pictures_are_in_the_ledger_once(pets: Path, tmp_path: Path) -> None:
    """Each has its reason, is not tried again, and comes back once it is mended."""
    (pets / "cat" / "bad.png").write_bytes(b"")
    (pets / "cat" / "cut.png").write_bytes((pets / "cat" / "0000.png").read_bytes()[:200])
    (pets / "cat" / "gone.png").symlink_to("nowhere.png")
    summary = run(pets, tmp_path / "store")
    reasons = {row.path: row.reason for row in Store.open(tmp_path / "store").catalog.left_out}
    assert set(reasons) == {"cat/bad.png", "cat/cut.png", "cat/gone.png"}
    assert "empty" in reasons["cat/bad.png"]
    assert summary.rows == 20
    again = run(pets, tmp_path / "store")
    assert (again.computed, len(again.left_out), again.changed) == (0, 3, False)
    fakes.draw(pets / "cat" / "bad.png", seed=77)
    mended = run(pets, tmp_path / "store")
    assert (mended.computed, len(mended.left_out)) == (1, 2)


def test_larger_limit_tries_again(pets: Path, tmp_path: Path) -> None:
    """What was over the pixel limit is in, once the limit allows it."""
    fakes.draw(pets / "cat" / "big.png", seed=1, size=64)
    assert run(pets, tmp_path / "store", max_pixels=1000).rows == 20
    summary = run(pets, tmp_path / "store", max_pixels=5000)
    assert (summary.rows, summary.computed) == (21, 1)


def test_on_error_fail_stops_and_names_the_picture(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first unusable picture ends the run; what was computed is kept."""
    done: list[int] = []
    compute = Bases._run

    def counted(self: Bases[Any], pixels: Any) -> Any:
        features = compute(self, pixels)
        done.append(len(pixels))
        return features

    monkeypatch.setattr(Bases, "_run", counted)
    (pets / "dog" / "9999.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^dog/9999\.png: .*; mend or remove it, or let"):
        fill_store(
            pets,
            tmp_path / "store",
            Settings(size=SIZE),
            on_error="fail",
            speed=Speed(batch_size=5, workers=2),
        )
    (pets / "dog" / "9999.png").unlink()
    kept = sum(done)  # a batch that had not been begun is none of them
    assert kept >= 10
    assert run(pets, tmp_path / "store").computed == 20 - kept


@pytest.mark.parametrize("kind", ["link", "remembered"])
def test_on_error_fail_passes_over_nothing_known(pets: Path, tmp_path: Path, kind: str) -> None:
    """What the listing left out, or an earlier run could not decode, stops the run too."""
    bad = pets / "cat" / "0005x.png"
    if kind == "link":
        bad.symlink_to("nowhere.png")
    else:
        bad.write_bytes(b"no picture")
    run(pets, tmp_path / "store")
    with pytest.raises(DataError, match=r"^cat/0005x\.png: .*--on-error ledger"):
        fill_store(pets, tmp_path / "store", Settings(), on_error="fail")
    bad.unlink()
    _, summary = fill_store(pets, tmp_path / "store", Settings(), on_error="fail")
    assert (summary.rows, summary.computed) == (20, 0)


def test_another_pillow_tries_again(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one version cannot decode is remembered for that version alone."""
    bad = pets / "cat" / "9999.png"
    bad.write_bytes(b"BM of a kind that only the next version reads")
    assert run(pets, tmp_path / "store").rows == 20
    real, tried = decode.decode, []

    def newer(data: bytes, *args: Any, **options: Any) -> Any:
        tried.append(1)
        return real(
            (pets / "cat" / "0000.png").read_bytes() if data[:2] == b"BM" else data,
            *args,
            **options,
        )

    monkeypatch.setattr(pipeline, "decode", newer)
    assert run(pets, tmp_path / "store").rows == 20
    assert tried == []
    monkeypatch.setattr("headstart.extract.plan.DECODER", "Pillow 99")
    summary = run(pets, tmp_path / "store")
    assert (summary.rows, summary.computed, tried) == (21, 1, [1])


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    """A store without rows is not made."""
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture of .* can be used; first: a/x\.png: empty"):
        run(tmp_path / "data", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list of the files that are read from now on, in whatever thread."""
    read = list[Any]()

    def read_file(file: Any) -> bytes:
        read.append(file)
        return b""

    monkeypatch.setattr(reading, "read_file", read_file)
    monkeypatch.setattr("headstart.extract.plan.hash_files", lambda *_, **__: pytest.fail("read"))
    return read


def test_a_refusal_leaves_no_store_and_comes_before_reading(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown layers, sizes and places are refused before a file is hashed; nothing is made."""
    read = reads(monkeypatch)
    monkeypatch.setattr("headstart.extract.layers.MIN_SIZE", 75)
    for settings, message in (
        ({"layers": ("mixd7",)}, "no layer 'mixd7'"),
        ({"size": 74}, "75x75 pixels or more"),
    ):
        with pytest.raises(LayerError, match=message):
            run(pets, tmp_path / "new" / "store", **settings)
    refused: tuple[dict[str, Any], ...] = ({"dtype": "float64"}, {"pool": "median"})
    for wrong in refused:
        (name,) = wrong
        with pytest.raises(StoreError, match=rf"--{name} \w+: expected one of"):
            run(pets, tmp_path / "new" / "store", **wrong)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"store cannot be made, as .*file is a file; choose"):
        run(pets, tmp_path / "file" / "store")
    with pytest.raises(DataError, match="no dataset at"):
        run(tmp_path / "nowhere", tmp_path / "new" / "store")
    assert not (tmp_path / "new").exists()
    assert read == []


def test_weights_that_cannot_be_had_leave_no_store(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what fails after the pictures were read leaves nothing empty behind."""

    def none(name: str) -> None:
        raise WeightsError("no network")

    monkeypatch.setattr("headstart.extract.weights.find_weights", none)
    with pytest.raises(WeightsError, match="no network"):
        run(pets, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_place_that_refuses_is_said_in_words(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be written, and where a folder cannot be made: what to do instead."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(StoreError, match="cannot be written to; choose another place"):
            run(pets, tmp_path / "store")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"store cannot be made: Operation not permitted; choose"):
        run(pets, tmp_path / "store")


def test_a_missing_shard_is_missed_before_a_picture_is_read(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shard and the remedy are named at once, not after minutes of computing."""
    run(pets, tmp_path / "store")
    (gone,) = (tmp_path / "store" / "shards").iterdir()
    gone.unlink()
    fakes.draw(pets / "cat" / "new.png", seed=1)
    read = reads(monkeypatch)
    with pytest.raises(CorruptStoreError, match=rf"{gone.name} is missing.*verify .* --repair"):
        run(pets, tmp_path / "store")
    assert read == []


def test_identical_pictures_are_computed_once(pets: Path, tmp_path: Path) -> None:
    """Copies are rows of their own, but no work; two labels are reported."""
    source = (pets / "cat" / "0000.png").read_bytes()
    for name in ("cat/copy.png", "dog/copy.png"):
        (pets / name).write_bytes(source)
    summary = run(pets, tmp_path / "store")
    assert (summary.rows, summary.computed, summary.duplicates) == (22, 20, 2)
    assert summary.source.conflicts.across_labels == (
        ("cat/0000.png", "cat/copy.png", "dog/copy.png"),
    )
    assert_rows_are_their_pictures(Store.open(tmp_path / "store"), pets)


def change_once_read(monkeypatch: pytest.MonkeyPatch, *victims: Path) -> None:
    """Write other bytes into files once all were read, before the second pass reads them again."""
    real = planning.make_source

    def make_source(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        for victim in victims:
            victim.write_bytes(b"changed")
        return found

    monkeypatch.setattr(planning, "make_source", make_source)


def test_what_is_hashed_is_what_is_computed(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that changes as soon as it was read is a row of what it was, by that's digest."""
    victim = pets / "cat" / "0003.png"
    before = victim.read_bytes()
    expected = fakes.features_of(victim, "mixed7", size=SIZE)

    def read_file(file: Any) -> bytes:
        data = hashing.read_file(file)
        if file == victim:
            victim.write_bytes(b"changed")
        return data

    monkeypatch.setattr(reading, "read_file", read_file)
    summary = run(pets, tmp_path / "store")
    assert (summary.rows, summary.computed, summary.left_out) == (20, 20, ())
    store = Store.open(tmp_path / "store")
    row = store.paths().index("cat/0003.png")
    assert store.image_sha256()[row] == hashlib.sha256(before).hexdigest().encode()
    np.testing.assert_array_equal(
        store.features("mixed7", rows=np.array([row]), dtype="float16")[0], expected
    )


def test_picture_that_changes_before_the_second_pass_is_left_out(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes other than the ones hashed never become a row under the old name."""
    victim = pets / "cat" / "0003.png"
    before = victim.read_bytes()
    victim.unlink()
    run(pets, tmp_path / "store")
    victim.write_bytes(before)
    change_once_read(monkeypatch, victim)
    summary = run(pets, tmp_path / "store", pool="avg")
    assert [(row.path, "changed while" in row.reason) for row in summary.left_out] == [
        ("cat/0003.png", True)
    ]
    assert (summary.rows, summary.computed, summary.reused) == (19, 19, 0)
    victim.write_bytes(before)
    monkeypatch.undo()
    fakes.install(monkeypatch)
    assert run(pets, tmp_path / "store").computed == 1


def test_a_copy_of_a_changed_picture_takes_its_place(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two paths with the same bytes one changes in between: that one alone is left out."""
    victim, other = pets / "cat" / "0003.png", pets / "dog" / "0003.png"
    copies = pets / "cat" / "copy.png", pets / "dog" / "copy.png"
    before = {file: victim.read_bytes() for file in (victim, *copies)}
    before[other] = other.read_bytes()
    for file in (victim, other):
        file.unlink()
    for name in ("store", "other", "third"):
        run(pets, tmp_path / name)

    def restore() -> None:
        for file, content in before.items():
            file.write_bytes(content)

    restore()
    change_once_read(monkeypatch, victim, other)
    victim_only = {"cat/0003.png"}
    summary = run(pets, tmp_path / "store", pool="avg")
    assert {row.path for row in summary.left_out} - {"dog/0003.png"} == victim_only
    assert (summary.rows, summary.computed, summary.duplicates) == (20, 19, 1)
    store = Store.open(tmp_path / "store")
    assert {"cat/copy.png", "dog/copy.png"} <= set(store.paths())
    assert_rows_are_their_pictures(store, pets)
    restore()
    change_once_read(monkeypatch, *before)
    again = run(pets, tmp_path / "other", pool="avg")
    assert {row.path for row in again.left_out} == {
        "cat/0003.png",
        "cat/copy.png",
        "dog/0003.png",
        "dog/copy.png",
    }
    restore()
    with pytest.raises(DataError, match=r"^cat/0003\.png: changed while"):
        fill_store(pets, tmp_path / "third", Settings(size=SIZE, pool="avg"), on_error="fail")


def test_only_usable_pictures_are_counted(pets: Path, tmp_path: Path) -> None:
    """Identical files that do not decode are no duplicates and contradict nothing."""
    for name in ("cat/cut1.png", "cat/cut2.png", "dog/cut.png"):
        (pets / name).write_bytes((pets / "cat" / "0000.png").read_bytes()[:200])
    summary = run(pets, tmp_path / "store")
    assert (summary.rows, summary.duplicates, len(summary.left_out)) == (20, 0, 3)
    assert summary.source.conflicts == Conflicts((), (), ())
    assert len(summary.source) == 20
    again = run(pets, tmp_path / "store")
    assert again.to_dict()["across_labels"] == ()


def test_what_became_of_the_rows_is_told(pets: Path, tmp_path: Path) -> None:
    """Rows that came, were replaced, moved and went, and what two datasets have in common."""
    first = run(pets, tmp_path / "store")
    assert (len(first.changes.new), first.changes.before) == (20, 0)
    (pets / "cat" / "0000.png").rename(pets / "dog" / "moved.png")
    (pets / "cat" / "0001.png").unlink()
    fakes.draw(pets / "cat" / "0002.png", seed=5)
    found = run(pets, tmp_path / "store").changes
    assert found.counts() == {
        "new": 0,
        "changed": 1,
        "moved": 1,
        "removed": 2,
        "relabelled": 0,
        "resplit": 0,
        "before": 20,
        "in_common": 18,
    }
    assert (found.changed, found.removed) == (
        ("cat/0002.png",),
        ("cat/0000.png", "cat/0001.png"),
    )
    other = fakes.draw_classes(tmp_path / "other", ("owl", "yak"), per_class=2)
    fakes.draw(other / "owl" / "0000.png", seed=77)
    fakes.draw(other / "owl" / "0001.png", seed=78)
    fakes.draw(other / "yak" / "0000.png", seed=79)
    fakes.draw(other / "yak" / "0001.png", seed=80)
    strange = run(other, tmp_path / "store")
    assert (strange.changes.before, strange.changes.in_common) == (19, 0)
    assert strange.to_dict()["changes"]["removed"] == 19
    assert run(pets, tmp_path / "store").computed == 0


@pytest.mark.parametrize("seed", range(4))
def test_labels_cannot_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Many workers, random delays and failures: each row is its own path's picture."""
    rng = random.Random(seed)
    root = fakes.draw_classes(tmp_path / "data", ("a", "b", "c"), per_class=40)
    broken = set(rng.sample(sorted(root.rglob("*.png")), 15))
    for path in broken:
        path.write_bytes(path.read_bytes()[: rng.randrange(0, 200)])
    real, lock, threads = decode.decode, threading.Lock(), set()

    def slow_decode(*args: Any, **options: Any) -> Any:
        with lock:
            delay = rng.choice([0, 0, 0.001, 0.01])
            threads.add(threading.get_ident())
        time.sleep(delay)
        return real(*args, **options)

    monkeypatch.setattr(pipeline, "decode", slow_decode)
    settings, speed = Settings(size=SIZE), Speed(batch_size=7, workers=8)
    store, summary = fill_store(root, tmp_path / "store", settings, speed=speed)
    assert len(threads) > 1
    assert summary.rows == 105
    assert {root / row.path for row in summary.left_out} == broken
    assert_rows_are_their_pictures(store, root)
    assert [path.split("/")[0] for path in store.paths()] == [
        store.classes[label] for label in store.labels()
    ]


def test_interruption_keeps_what_is_computed(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C writes the batches that are done and says how many; the next run goes on."""
    with monkeypatch.context() as patch:
        fakes.interrupt_after(patch, 2)
        with pytest.raises(InterruptedRunError, match="stopped: 16 of 20 pictures are kept"):
            run(pets, tmp_path / "store")
        for number in range(20):
            fakes.draw(pets / "cat" / f"z{number}.png", seed=number)
        said = "stopped: 16 of 24 pictures of this run are kept, beside all kept before, in"
        with pytest.raises(InterruptedRunError, match=said):
            run(pets, tmp_path / "store")
    assert run(pets, tmp_path / "store").computed == 8
    assert_rows_are_their_pictures(Store.open(tmp_path / "store"), pets)


def test_a_run_that_goes_on_has_the_layers_that_were_begun(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them where none is asked for, as the store's other settings; else those asked for."""
    with monkeypatch.context() as patch:
        fakes.interrupt_after(patch, 2)
        for name in ("store", "other"):
            with pytest.raises(InterruptedRunError):
                run(pets, tmp_path / name, layers=("mixed5", "mixed0"))
    assert run(pets, tmp_path / "store").computed == 4
    assert set(Store.open(tmp_path / "store").layers) == {"mixed0", "mixed5"}
    assert run(pets, tmp_path / "other", layers=("mixed0",)).computed == 4
    assert Store.open(tmp_path / "other").layers == ("mixed0",)


def test_error_in_the_writer_reaches_the_caller(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is not swallowed by the writing thread."""
    from headstart.cache import _files

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files, "publish_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        run(pets, tmp_path / "store")


def test_public_function(pets: Path, tmp_path: Path) -> None:
    """`extract` takes what the command line takes, and a list of paths with labels."""
    paths = sorted(pets.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    store = extract(paths, tmp_path / "store", labels=labels, size=SIZE, layer=["mixed5"])
    assert store.layers == ("mixed5",)
    assert store.classes == ("cat", "dog")
    told: list[tuple[str, int, int]] = []
    steps = lambda *step: told.append(step)  # noqa: E731
    again = extract(pets, tmp_path / "two", size=SIZE, batch_size=4, progress=steps)
    assert len(again) == 20
    stage, *numbers = told[-1]  # on a busy machine the stage says what it waits for, too
    assert (stage.partition(" ")[0], numbers) == ("extracting", [20, 20])


def test_columns_of_a_manifest_stay_with_their_rows(pets: Path, tmp_path: Path) -> None:
    """What a manifest says beside is kept row by row, and follows it when it changes."""
    manifest = tmp_path / "pets.csv"
    lines = [
        f"{path.relative_to(tmp_path)},{path.parent.name},{path.stem}"
        for path in pets.rglob("*.png")
    ]
    manifest.write_text("\n".join(["path,label,animal", *reversed(lines), ""]))
    run(manifest, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert store.column("animal").tolist() == [Path(path).stem for path in store.paths()]
    manifest.write_text(manifest.read_text().replace(",0003\n", ",0004\n"))
    assert run(manifest, tmp_path / "store").computed == 0
    assert "0003" not in Store.open(tmp_path / "store").column("animal")
    with pytest.raises(StoreError, match="no column 'owner'; the manifest brought animal"):
        store.column("owner")


def test_output_is_a_file(pets: Path, tmp_path: Path) -> None:
    """``-o`` pointing at a file is refused before anything is read."""
    (tmp_path / "f").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        run(pets, tmp_path / "f")
