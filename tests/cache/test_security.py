"""A store from a stranger, sealed as it should be, leads nowhere and breaks nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from headstart.cache import Filling, Rows, Spec, Store, _files, pack, verify
from headstart.errors import CorruptStoreError, StoreError, StoreVersionError

ROWS, SHAPE = 6, (2, 2, 3)
LIBVER = ("v108", "v110")
SECRET = b"the stranger wants this"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give an honest store of six rows in two shards."""
    folder, spec = tmp_path / "store", Spec(weights="0" * 64)
    ids = [(b"%064x" % number, 0) for number in range(ROWS)]
    features = np.random.default_rng(0).normal(size=(ROWS, *SHAPE)).astype(np.float16)
    filling = Filling(folder)
    for part in (slice(0, 3), slice(3, 6)):
        filling.add(spec, ids[part], features[part], {})
    paths = [f"cat/{number}.png" for number in range(ROWS)]
    rows = Rows(("cat",), paths, [""] * ROWS, [0] * ROWS, [one for one, _ in ids], [0] * ROWS)
    filling.publish(rows, ["mixed7"], left_out=[], unreadable={}, settings={}, seconds=1.0)
    return folder


@pytest.fixture
def packed(store: Path) -> Path:
    """Give the same rows in one file."""
    return pack(Store.open(store), store.parent / "one.h5")


def forge(path: Path, change: Callable[[h5py.File], None]) -> Path:
    """Change an HDF5 file of ours, and close it with a valid seal: a stranger can, too."""
    body = path.read_bytes()[: -_files.SEAL_BYTES]
    path.write_bytes(body)
    with h5py.File(path, "r+", libver=LIBVER, locking=False) as file:
        change(file)
    path.write_bytes(_files.sealed(path.read_bytes()))
    assert _files.check_seal(path)
    return path


def forge_json(path: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """Change one of the JSON texts in a catalog."""

    def rewrite(file: h5py.File) -> None:
        value = change(json.loads(file[name][:].tobytes()))
        del file[name]
        file[name] = np.frombuffer(json.dumps(value).encode(), np.uint8)

    return forge(path, rewrite)


def refused(path: Path, match: str | None = None) -> None:
    """Assert that opening or reading is refused by a typed error, and that `verify` is not hurt."""
    Store._checked.clear()
    with pytest.raises(CorruptStoreError, match=match):
        Store.open(path).features()
    Store._checked.clear()
    assert not verify(path).sound


def replace(name: str, make: Callable[[h5py.File, Any], None]) -> Callable[[h5py.File], None]:
    """Return a change that makes a dataset anew, given what was in it."""

    def change(file: h5py.File) -> None:
        dataset = file[name]
        old = None if dataset.is_virtual else dataset[:]
        del file[name]
        make(file, old)

    return change


def external_link(file: h5py.File, name: str) -> None:
    """Let a name lead into another file."""
    file[name] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file: h5py.File, name: str) -> None:
    """Let a name lead to another name."""
    file[f"{name}_elsewhere"] = np.zeros(ROWS, np.uint8)
    file[name] = h5py.SoftLink(f"/{name}_elsewhere")


def stored_outside(file: h5py.File, name: str) -> None:
    """Let a dataset's bytes be those of another file."""
    secret = Path(file.filename).parent / "secret"
    secret.write_bytes(SECRET * 10)
    external = [(str(secret), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(name, (ROWS,), "u1", external=external)


def objects(file: h5py.File, name: str) -> None:
    """Store Python-like strings of any length, which live on a heap."""
    file.create_dataset(name, data=[b"x"] * ROWS, dtype=h5py.string_dtype())


def references(file: h5py.File, name: str) -> None:
    """Store references to other objects."""
    file.create_dataset(name, (ROWS,), h5py.ref_dtype)


def huge(file: h5py.File, name: str) -> None:
    """Declare more values than the file has bytes."""
    file.create_dataset(name, (1 << 50,), "u1")


def huge_chunked(file: h5py.File, name: str) -> None:
    """Declare them in compressed chunks, of which there is one."""
    dataset = file.create_dataset(name, (1 << 40,), "u1", chunks=(1 << 20,), compression="gzip")
    dataset[:10] = 1


def virtual(file: h5py.File, name: str) -> None:
    """Let a dataset be a view of another file's."""
    layout = h5py.VirtualLayout((ROWS,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (ROWS,))
    file.create_virtual_dataset(name, layout)


def group(file: h5py.File, name: str) -> None:
    """Put a group where a dataset should be."""
    file.create_group(name)


def scalar(file: h5py.File, name: str) -> None:
    """Put one number where there should be many."""
    file[name] = 1


def compound(file: h5py.File, name: str) -> None:
    """Store records."""
    file.create_dataset(name, (ROWS,), np.dtype([("a", "u1"), ("b", "f8")]))


def nothing(file: h5py.File, name: str) -> None:
    """Leave the dataset out."""


TRICKS = [
    external_link,
    soft_link,
    stored_outside,
    objects,
    references,
    huge,
    huge_chunked,
    virtual,
    group,
    scalar,
    compound,
    nothing,
]
PLAIN = [
    *("label", "split", "path", "image_sha256", "view", "headstart/catalog"),
    *(f"headstart/mixed7/{name}" for name in ("shards", "image_sha256", "view", "position")),
]


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
@pytest.mark.parametrize("name", PLAIN)
def test_catalog(store: Path, name: str, trick: Callable[[h5py.File, str], None]) -> None:
    """No dataset of the catalog may be anything but plain bytes in the file itself."""
    forge(store / "features.h5", replace(name, lambda file, _: trick(file, name)))
    refused(store, "features.h5")


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_packed_features(packed: Path, trick: Callable[[h5py.File, str], None]) -> None:
    """Nor the features of a packed file."""
    forge(packed, replace("mixed7", lambda file, _: trick(file, "mixed7")))
    refused(packed)


def test_groups_that_are_links(store: Path) -> None:
    """A group reached by a link is refused as a dataset is; the other file is not opened."""
    other = store.parent / "other.h5"
    with h5py.File(other, "w") as file:
        file.create_group("mixed7")

    def change(file: h5py.File) -> None:
        del file["headstart/mixed7"]
        file["headstart/mixed7"] = h5py.ExternalLink(str(other), "/mixed7")

    forge(store / "features.h5", change)
    refused(store, "link")


def shard_and_catalog(store: Path, change: Callable[[h5py.File], None]) -> Path:
    """Forge a shard, and the catalog that lists it."""
    shard = forge(min((store / "shards").glob("*.h5")), change)
    about = {"sha256": _files.check_seal(shard), "bytes": shard.stat().st_size}

    def relist(shards: Any) -> Any:
        return [entry | (about if entry["file"] == shard.name else {}) for entry in shards]

    forge_json(store / "features.h5", "headstart/mixed7/shards", relist)
    return shard


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_shard(store: Path, trick: Callable[[h5py.File, str], None]) -> None:
    """Nor those of a shard, even where the catalog agrees with the forgery."""
    shard = shard_and_catalog(store, replace("features", lambda file, _: trick(file, "features")))
    refused(store, shard.name)


def chunked(shape: tuple[int, ...], chunks: tuple[int, ...], **more: Any) -> Any:
    """Return a maker of features that are declared rather than held."""

    def make(file: h5py.File, old: Any) -> None:
        del old
        dataset = file.create_dataset("features", shape, "f2", chunks=chunks, **more)
        dataset[tuple(map(slice, chunks))] = 0

    return make


def twice_deflated(file: h5py.File, old: Any) -> None:
    """Compress zeros twice, a thousandfold each time."""
    del old
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, 1 << 12, 1 << 12, 3))
    properties.set_deflate(9)
    properties.set_deflate(9)
    space = h5py.h5s.create_simple((3, 1 << 12, 1 << 12, 3))
    made = h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F16LE, space, properties)
    for row in range(3):
        h5py.Dataset(made)[row] = 0


def unknown_filter(file: h5py.File, old: Any) -> None:
    """Use a filter that only a plugin knows."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(old.shape)
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple(old.shape)
    h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F16LE, space, properties)


@pytest.mark.parametrize(
    "make",
    [
        chunked((3, 1 << 20, 1 << 20, 3), (3, 16, 16, 3)),
        chunked((3, 1 << 12, 1 << 12, 3), (1, 1 << 12, 1 << 12, 3), compression="gzip"),
        chunked((1 << 40, *SHAPE), (64, *SHAPE)),
        twice_deflated,
        unknown_filter,
    ],
    ids=["torn rows", "a third of it", "endless rows", "twice deflated", "unknown filter"],
)
def test_shapes_the_file_cannot_carry(store: Path, make: Any) -> None:
    """What a shard declares must be what its bytes can hold: nothing is allocated for the rest."""
    with pytest.MonkeyPatch.context() as patch:  # where memory is reserved, it is counted
        taken: list[int] = []
        real = np.empty

        def counted(shape: Any, *args: Any, **options: Any) -> Any:
            made = real(shape, *args, **options)
            taken.append(made.nbytes)
            return made

        shard = shard_and_catalog(store, replace("features", make))
        patch.setattr(np, "empty", counted)
        refused(store, shard.name)
    assert max(taken, default=0) < 1 << 24


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd",
        "/etc/passwd",
        "..",
        "",
        ".",
        "a/b.h5",
        "..\\secret.h5",
        "nul\0.h5",
        "\ud800.h5",
        "mixed7-0123.h5",
        7,
        None,
        ["mixed7.h5"],
    ],
    ids=repr,
)
def test_names_of_shards(store: Path, name: Any) -> None:
    """A shard's name is one that we give, and nothing a path could be made of."""

    def rename(shards: Any) -> Any:
        return [{**shards[0], "file": name}, *shards[1:]]

    forge_json(store / "features.h5", "headstart/mixed7/shards", rename)
    refused(store, "features.h5")


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": -3},
        {"rows": 10**30},
        {"rows": 2.5},
        {"rows": True},
        {"bytes": "many"},
        {"sha256": "../x"},
        {"sha256": None},
        {"more": 1},
    ],
    ids=repr,
)
def test_entries_of_shards(store: Path, wrong: dict[str, Any]) -> None:
    """What the catalog says of a shard is of the types and ranges we write."""

    def spoil(shards: Any) -> Any:
        return [{**shards[0], **wrong}, *shards[1:]]

    forge_json(store / "features.h5", "headstart/mixed7/shards", spoil)
    refused(store, "features.h5")


def test_virtual_sources_outside_the_shards(store: Path) -> None:
    """The dataset that other readers see leads nowhere but to the listed shards."""
    secret = store.parent / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["features"] = np.zeros((3, *SHAPE), np.float16)
    for source in (str(secret), "../secret.h5", ".", "shards/../../secret.h5", "shards/x.h5"):
        copy = store.parent / f"copy{len(source)}"
        shutil.copytree(store, copy)

        def make(file: h5py.File, _: Any, source: str = source) -> None:
            layout = h5py.VirtualLayout((ROWS, *SHAPE), np.float16)
            layout[:3] = h5py.VirtualSource(source, "features", (3, *SHAPE))
            file.create_virtual_dataset("mixed7", layout)

        forge(copy / "features.h5", replace("mixed7", make))
        refused(copy, "outside the store's shards")


def test_other_dataset_of_a_shard(store: Path) -> None:
    """Nor to another dataset of a shard, whatever that leads to."""
    (shard, *_) = sorted((store / "shards").glob("*.h5"))

    def make(file: h5py.File, _: Any) -> None:
        layout = h5py.VirtualLayout((ROWS, *SHAPE), np.float16)
        layout[:3] = h5py.VirtualSource(f"shards/{shard.name}", "secret", (3, *SHAPE))
        file.create_virtual_dataset("mixed7", layout)

    forge(store / "features.h5", replace("mixed7", make))
    refused(store, "outside the store's shards")


@pytest.mark.parametrize(
    "change",
    [
        lambda about: [],
        lambda about: None,
        lambda about: about | {"layers": []},
        lambda about: about | {"layers": {"mixed7": 3}},
        lambda about: about | {"layers": {}},
        lambda about: about | {"layers": {"../mixed7": about["layers"]["mixed7"]}},
        lambda about: about | {"classes": 3},
        lambda about: about | {"left_out": [["one"]]},
        lambda about: about | {"unreadable": "no"},
        lambda about: about | {"settings": [1]},
        lambda about: about | {"columns": {"a": ["too", "short"]}},
        lambda about: about | {"extract_seconds": "long"},
        lambda about: {},
    ],
)
def test_nonsense_in_the_catalog(store: Path, change: Callable[[Any], Any]) -> None:
    """JSON of other types than ours is a damaged catalog, not a traceback."""
    forge_json(store / "features.h5", "headstart/catalog", change)
    refused(store, "features.h5")


@pytest.mark.parametrize(("field", "value"), [("dtype", "floatx"), ("dtype", "V0"), ("shape", [0])])
def test_nonsense_in_a_spec(store: Path, field: str, value: Any) -> None:
    """Rows of no size, or of numbers that there are not, are in no shard."""

    def change(catalog: Any) -> Any:
        layer = catalog["layers"]["mixed7"]
        if field == "shape":
            layer["shape"] = value
        else:
            layer["spec"] = json.dumps(json.loads(layer["spec"]) | {field: value})
        return catalog

    forge_json(store / "features.h5", "headstart/catalog", change)
    refused(store)


@pytest.mark.parametrize(
    "packed_row",
    [b"nonsense", zlib.compress(bytes(3)), zlib.compress(bytes(10_000))],
    ids=["nonsense", "too short", "too long"],
)
def test_a_chunk_that_is_no_row(packed: Path, packed_row: bytes) -> None:
    """What does not unpack to a row is a damaged store, whoever unpacks it."""

    def change(file: h5py.File) -> None:
        file["mixed7"].id.write_direct_chunk((0, 0, 0, 0), packed_row)

    forge(packed, change)
    refused(packed, "one.h5")


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 100_000, b"9" * 100_000, b"\xff", b""])
def test_json_bombs(store: Path, text: bytes) -> None:
    """JSON is no larger than its file, and neither its depth nor its numbers do harm."""

    def change(file: h5py.File) -> None:
        del file["headstart/catalog"]
        file["headstart/catalog"] = np.frombuffer(text, np.uint8)

    forge(store / "features.h5", change)
    refused(store, "features.h5")


@pytest.mark.parametrize("name", ["format", "format_version", "spec", "created"])
@pytest.mark.parametrize(
    "value",
    [
        np.zeros((3, 3)),
        np.array([], np.uint8),
        "x" * 60_000,
        h5py.Empty("f8"),
        np.void(b"opaque"),
        np.float64("nan"),
        -1,
    ],
    ids=lambda value: type(value).__name__,
)
def test_attributes(store: Path, name: str, value: Any) -> None:
    """Attributes of other types are refused, or say nothing that is used."""

    def change(file: h5py.File) -> None:
        del file.attrs[name]
        file.attrs[name] = value

    expected = Store.open(store).features()
    forge(store / "features.h5", change)
    Store._checked.clear()
    try:
        found = Store.open(store).features()
    except (CorruptStoreError, StoreVersionError):
        assert name != "spec"  # a copy for other readers: ours is elsewhere
    else:
        assert np.array_equal(found, expected)


def test_newer_format_is_told_from_damage(store: Path) -> None:
    """The version inside the file counts as the seal's does."""

    def change(file: h5py.File) -> None:
        file.attrs["format_version"] = 2

    forge(store / "features.h5", change)
    with pytest.raises(StoreVersionError, match="upgrade"):
        Store.open(store)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(store: Path, packed: Path) -> None:
    """Pickled bytes in any place of a store are never executed."""
    mark = store.parent / "executed"
    bomb = pickle.dumps(Bomb(mark))
    for name in ("headstart/catalog", "view", "path"):

        def change(file: h5py.File, name: str = name) -> None:
            del file[name]
            file[name] = np.frombuffer(bomb, np.uint8)
            file.attrs["spec"] = np.void(bomb)

        copy = store.parent / name.replace("/", "-")
        shutil.copytree(store, copy)
        forge(copy / "features.h5", change)
        refused(copy)
    packed.write_bytes(_files.sealed(bomb))
    with pytest.raises(StoreError):
        Store.open(packed)
    (store / "features.h5").write_bytes(_files.sealed(bomb))
    refused(store)
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists(), "the bomb was a dud"


def test_no_room_of_ours_unpickles() -> None:
    """Whoever reads stores imports no pickle, and asks numpy for none."""
    code = (
        "import sys, headstart.cache\n"
        "from pathlib import Path\n"
        "folder = Path(headstart.cache.__file__).parent\n"
        "for path in folder.glob('*.py'):\n"
        "    text = path.read_text()\n"
        "    for word in ('pickle', 'np.load', 'eval(', 'exec('):\n"
        "        assert word not in text, (path, word)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pipes_folders_and_loops(store: Path) -> None:
    """What is called like a file of ours and is none: refused at once, never waited for."""
    (shard, *_) = sorted((store / "shards").glob("*.h5"))
    for path in (shard, store / "features.h5"):
        whole = path.read_bytes()
        for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to(path)):
            path.unlink()
            make(path)
            Store._checked.clear()
            with pytest.raises(StoreError):
                Store.open(store).features()
            assert not verify(store).sound
            path.rmdir() if path.is_dir() else path.unlink()
            path.write_bytes(whole)
    Store._checked.clear()
    assert verify(store).sound


def test_pipe_among_the_shards_of_an_unfinished_run(store: Path) -> None:
    """A run that looks for shards of earlier runs does not wait for a pipe."""
    os.mkfifo(store / "shards" / f"mixed7-{'0' * 24}.h5")
    filling = Filling(store)
    assert len(filling.damaged) == 1


def test_forged_shards_are_not_adopted(store: Path) -> None:
    """A shard beside the listed ones must be sound in all it says to be taken."""
    (shard, *_) = sorted((store / "shards").glob("*.h5"))
    stranger = shard.with_name(f"mixed7-{'1' * 24}.h5")
    for trick in (external_link, virtual, huge, objects, nothing):
        shutil.copy(shard, stranger)

        def change(file: h5py.File, trick: Callable[[h5py.File, str], None] = trick) -> None:
            del file["features"]
            trick(file, "features")

        forge(stranger, change)
        assert Filling(store).damaged == [stranger]
    for name, value in {"run": "[1]", "spec": "{}", "rows_sha256": np.zeros(3)}.items():
        shutil.copy(shard, stranger)

        def spoil(file: h5py.File, name: str = name, value: Any = value) -> None:
            file.attrs[name] = value

        forge(stranger, spoil)
        if name != "rows_sha256":
            assert Filling(store).damaged == [stranger]


def test_honest_stores_are_not_refused(store: Path, packed: Path) -> None:
    """The forger's own tools leave an honest store as good as it was."""
    expected = Store.open(store).features()
    forge(store / "features.h5", lambda _: None)
    forge(packed, lambda _: None)
    for path in (store, packed):
        Store._checked.clear()
        assert np.array_equal(Store.open(path).features(), expected)
        assert verify(path).sound
