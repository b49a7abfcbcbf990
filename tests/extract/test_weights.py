"""Finding, fetching and reading the base's weights."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from headstart.errors import WeightsError
from headstart.extract import _files, _registry, weights
from headstart.extract.weights import WeightsFile, find_weights, is_name, random_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALTERNATIVES = ("--weights registry", "--weights FILE", "--weights random")


@pytest.fixture(autouse=True)
def _private_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


# --- names -------------------------------------------------------------------------------------


def test_random_weights_need_no_file() -> None:
    """Random weights are named with their seed and come from no file."""
    assert find_weights("random") == WeightsFile("random", None, "")
    assert random_seed("random") == 0
    assert find_weights("random:7").name == "random:7"
    assert random_seed("random:7") == 7


@pytest.mark.parametrize("name", ["random:", "random:x", "random:-1", "random:1.5", "random:²"])
def test_a_seed_is_a_whole_number(name: str) -> None:
    with pytest.raises(WeightsError, match="whole number"):
        find_weights(name)


def test_a_file_is_named_by_its_bytes(tmp_path: Path) -> None:
    """The SHA-256 of a given file's bytes identifies it without Keras."""
    file = tmp_path / "my weights.h5"
    file.write_bytes(b"anything")
    expected = hashlib.sha256(b"anything").hexdigest()
    assert find_weights(str(file)) == WeightsFile(str(file), file, expected)


def test_a_file_that_is_as_it_was_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was changed is read again, and so is what might be changed without a trace."""
    file, other = tmp_path / "old.h5", tmp_path / "new.h5"
    file.write_bytes(b"first")
    other.write_bytes(b"other")
    read: list[str] = []

    def digest(opened: IO[bytes], kind: str) -> Any:
        read.append(kind)
        return hashlib.new(kind, opened.read())

    monkeypatch.setattr(hashlib, "file_digest", digest)
    find_weights(str(file))
    find_weights(str(file))
    assert len(read) == 2  # written a moment ago
    monkeypatch.setattr(_files, "_SETTLED", -(10**12))
    assert find_weights(str(file)) == find_weights(str(file))
    assert len(read) == 3
    other.replace(file)
    assert find_weights(str(file)).sha256 == hashlib.sha256(b"other").hexdigest()


def test_a_missing_file_names_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no such file.*imagenet, registry, random"):
        find_weights(str(tmp_path / "none.h5"))
    with pytest.raises(WeightsError, match="that is a folder"):
        find_weights(str(tmp_path))


@pytest.mark.parametrize("name", ["imagenet", "registry", "random", "random:7"])
def test_names_come_before_paths(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder or file that happens to be called so changes no name's meaning."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert is_name(name)
    assert not is_name(f"./{name}")
    if name.startswith("random"):
        assert find_weights(name).path is None


# --- imagenet ----------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Callable[[int, bytes], str]]:
    """Serve one answer to every request on this machine; gives its URL."""
    servers = []

    def serve(status: int, body: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/{weights.IMAGENET_FILE}"

    yield serve
    for each in servers:
        each.shutdown()
        each.server_close()


def _expect(monkeypatch: pytest.MonkeyPatch, url: str, body: bytes) -> None:
    monkeypatch.setattr(weights, "IMAGENET_URL", url)
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(weights, "IMAGENET_MD5", md5)


@pytest.fixture
def keras_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras reads KERAS_HOME once, when it is imported: point the imported one here too."""
    keras = pytest.importorskip("keras")
    assert keras.config
    from keras.src.utils import file_utils

    (tmp_path / "keras").mkdir()
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path / "keras"))
    return tmp_path / "keras" / "models" / weights.IMAGENET_FILE


@pytest.mark.tensorflow
def test_imagenet_is_what_keras_downloads() -> None:
    """File, address and hash are those Keras' own InceptionV3 asks for."""
    import inspect

    from keras.src.applications import inception_v3

    source = inspect.getsource(inception_v3)
    assert inception_v3.WEIGHTS_PATH_NO_TOP == weights.IMAGENET_URL
    assert weights.IMAGENET_FILE in source
    assert weights.IMAGENET_MD5 in source


@pytest.mark.tensorflow
def test_imagenet_is_downloaded_once(
    keras_cache: Path,
    server: Callable[[int, bytes], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first use downloads to Keras' cache, in silence; the second needs no Keras."""
    body = b"weights" * 1000
    _expect(monkeypatch, server(200, body), body)
    found = find_weights("imagenet")
    assert found == WeightsFile("imagenet", keras_cache, hashlib.sha256(body).hexdigest())
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(weights, "import_keras", lambda: pytest.fail("Keras was imported"))
    assert find_weights("imagenet") == found


@pytest.mark.tensorflow
def test_a_damaged_download_is_fetched_again(
    keras_cache: Path, server: Callable[[int, bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"weights" * 1000
    _expect(monkeypatch, server(200, body), body)
    keras_cache.parent.mkdir()
    keras_cache.write_bytes(body[:100])
    assert find_weights("imagenet").sha256 == hashlib.sha256(body).hexdigest()


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [(403, b"", "403"), (200, b"another file", "hash does not match"), (None, b"", "refused")],
)
def test_a_failed_download_names_the_alternatives_on_one_line(
    keras_cache: Path,
    server: Callable[[int, bytes], str],
    monkeypatch: pytest.MonkeyPatch,
    status: int | None,
    body: bytes,
    reason: str,
) -> None:
    """A server that refuses, a wrong file and no server at all: one line with the ways out."""
    closed_port = "http://127.0.0.1:9/file.h5"
    _expect(monkeypatch, server(status, body) if status else closed_port, b"expected")
    with pytest.raises(WeightsError, match=reason) as caught:
        find_weights("imagenet")
    message = str(caught.value)
    assert "\n" not in message
    assert all(alternative in message for alternative in ALTERNATIVES)


# --- registry ----------------------------------------------------------------------------------


def _package(codes: bytes) -> bytes:
    """A tarball laid out like the real package, with two layers of four and two weights."""
    manifest = (
        'x={name:"conv2d_1/kernel",shape:[2,2],dtype:"float32",'
        'quantization:{min:-1.5,scale:.5,dtype:"uint8"}},'
        '{name:"batch_normalization_1/beta",shape:[2],dtype:"float32",'
        'quantization:{min:0,scale:1e-1,dtype:"uint8"}},'
        '{name:"dense_1/bias",shape:[1],dtype:"float32",'
        'quantization:{min:0,scale:1,dtype:"uint8"}}'
    )
    text = base64.b64encode(codes.ljust(900, b"\0")).decode()
    files = {"model.min.js": manifest}
    files |= {f"group1-shard{i}of6.min.js": f'e="{text}"' for i in range(1, 7)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(_registry._FOLDER + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script in npm's place, and nothing else on the path but the shell's tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shell = shutil.which("sh")
    for tool in ("cp", "rm"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(folder))

    def install(script: str) -> None:
        (folder / "npm").write_text(f"#!{shell}\n{script}\n")
        (folder / "npm").chmod(0o755)

    return install


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand a small package in for the real one, with its checksums."""
    codes = bytes(range(7))
    tarball = tmp_path / "package.tgz"
    tarball.write_bytes(_package(codes))
    monkeypatch.setattr(
        _registry,
        "PACKAGE",
        replace(
            _registry.PACKAGE,
            tarball_sha256=hashlib.sha256(tarball.read_bytes()).hexdigest(),
            data_sha256=hashlib.sha256(codes.ljust(900, b"\0") * 6).hexdigest(),
        ),
    )
    return tarball


def test_the_package_is_converted_and_kept(npm: Callable[[str], None], package: Path) -> None:
    """Codes become numbers in our layout, without the top; the second use needs no npm."""
    npm(f"cp {package} nsfwjs-4.3.0.tgz")
    found = find_weights("registry")
    assert found.path is not None
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    with h5py.File(found.path) as file:
        assert set(file) == {"conv_01", "bn_01"}
        kernel, beta = file["conv_01/kernel"][()], file["bn_01/beta"][()]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, [[-1.5, -1.0], [-0.5, 0.0]])
    np.testing.assert_allclose(beta, [0.4, 0.5])
    npm("exit 1")
    assert find_weights("registry") == found
    assert [path.name for path in found.path.parent.iterdir()] == [found.path.name]


def test_a_damaged_conversion_is_made_again(npm: Callable[[str], None], package: Path) -> None:
    """A kept file whose bytes changed is not used."""
    npm(f"cp {package} nsfwjs-4.3.0.tgz")
    found = find_weights("registry")
    assert found.path is not None
    found.path.write_bytes(found.path.read_bytes()[:-1])
    assert find_weights("registry") == found


def test_nothing_is_left_behind_when_writing_fails(
    npm: Callable[[str], None], package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm(f"cp {package} nsfwjs-4.3.0.tgz")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.cache._files.sync", full)
    with pytest.raises(WeightsError, match=r"No space left.*HEADSTART_CACHE"):
        find_weights("registry")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("what", ["tarball", "weights"])
def test_a_wrong_checksum_is_refused(
    npm: Callable[[str], None], package: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Neither another tarball nor other decoded weights are taken."""
    field = {"tarball": "tarball_sha256", "weights": "data_sha256"}[what]
    changed = replace(_registry.PACKAGE, **{field: "0" * 64})
    monkeypatch.setattr(_registry, "PACKAGE", changed)
    npm(f"cp {package} nsfwjs-4.3.0.tgz")
    with pytest.raises(WeightsError, match=f"The {what} .*expected SHA-256 {'0' * 64}, found"):
        find_weights("registry")


def test_a_missing_npm_is_said(npm: Callable[[str], None]) -> None:
    with pytest.raises(WeightsError, match=r"npm is not installed.*Node.js.*--weights imagenet"):
        find_weights("registry")


def test_npm_offline_is_said_on_one_line(npm: Callable[[str], None]) -> None:
    """Npm's telling line is quoted, its codes are not."""
    npm(
        'echo "npm error code ENOTFOUND" >&2; echo "npm error errno ENOTFOUND" >&2; '
        'echo "npm error network request to the registry failed" >&2; exit 1'
    )
    with pytest.raises(WeightsError, match=r"\(network request to the registry failed\)") as caught:
        find_weights("registry")
    assert "\n" not in str(caught.value)


def test_an_npm_that_hangs_is_given_up(
    npm: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_registry, "_PATIENCE", 0.2)
    npm("while :; do :; done")
    with pytest.raises(WeightsError, match="no answer within"):
        find_weights("registry")


def test_a_package_laid_out_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tarball without the expected members is an error of ours, not a KeyError."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    sha = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setattr(_registry, "PACKAGE", replace(_registry.PACKAGE, tarball_sha256=sha))
    with pytest.raises(WeightsError, match="not laid out as expected"):
        _registry.parse(buffer.getvalue())


def test_the_default_cache_is_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADSTART_CACHE")
    assert _registry.cache_folder().name == "headstart"


# --- imports -----------------------------------------------------------------------------------


def test_finding_weights_imports_no_keras(tmp_path: Path) -> None:
    """A second extract can tell that its weights are the same without TensorFlow."""
    (tmp_path / "a.h5").touch()
    code = (
        "import sys; from headstart.extract.weights import find_weights; "
        f"find_weights({str(tmp_path / 'a.h5')!r}); find_weights('random'); "
        "print([m for m in ('keras', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert re.sub(r"\s", "", done.stdout) == "[]"
