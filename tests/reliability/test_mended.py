"""What the campaign found and chance would seldom find again, made to happen."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.cache import Filling, Rows, Spec, Store, _files, pack, verify
from headstart.errors import CorruptStoreError, ImageMemoryError, SpecMismatchError, StoreError
from headstart.extract.decode import decode
from headstart.extract.pipeline import Writer
from reliability import lab, tasks

SPEC = Spec(weights="0" * 64)
IDS = [(b"%064x" % number, 0) for number in range(4)]


def rows(ids: list[tuple[bytes, int]]) -> Rows:
    """Return a table of rows."""
    paths = [f"cat/{digest[-4:].decode()}.png" for digest, _ in ids]
    digests, count = [digest for digest, _ in ids], len(ids)
    return Rows(("cat",), paths, [""] * count, [0] * count, digests, [0] * count)


def fill(filling: Filling, spec: Spec, ids: list[tuple[bytes, int]]) -> None:
    """Add rows of a layer."""
    draw = np.random.default_rng(len(spec.to_json()))
    filling.add(spec, ids, draw.normal(size=(len(ids), 2, 2, 3)).astype(np.float16), {})


def publish(filling: Filling, spec: Spec, ids: list[tuple[bytes, int]] = IDS) -> None:
    """Publish rows of a layer."""
    filling.publish(rows(ids), [spec.name], left_out=[], unreadable={}, settings={}, seconds=1.0)


MIXED5 = Spec(weights="0" * 64, layer="mixed5")
OTHER = Spec(weights="1" * 64)


def test_a_layer_published_meanwhile_is_kept(tmp_path: Path) -> None:
    """Two runs that began at once and add a layer each: the store has both."""
    one, two = Filling(tmp_path / "store"), Filling(tmp_path / "store")
    fill(one, SPEC, IDS)
    fill(two, MIXED5, IDS)
    publish(one, SPEC)
    publish(two, MIXED5)
    assert Store.open(tmp_path / "store").layers == ("mixed7", "mixed5")
    assert verify(tmp_path / "store").sound


def test_a_layer_published_meanwhile_that_lacks_rows_ends_the_run(tmp_path: Path) -> None:
    """What cannot be kept whole is not dropped: the later run says to run it again."""
    one, two = Filling(tmp_path / "store"), Filling(tmp_path / "store")
    fill(one, SPEC, IDS[:2])
    fill(two, MIXED5, IDS)
    publish(one, SPEC, IDS[:2])
    with pytest.raises(StoreError, match=r"lacks 2 rows, as another run.*run the same command"):
        publish(two, MIXED5)
    assert Store.open(tmp_path / "store").layers == ("mixed7",)


def test_another_spec_published_meanwhile_is_refused(tmp_path: Path) -> None:
    """Two runs that began at once under two specs: the first one has the store."""
    one, two = Filling(tmp_path / "store"), Filling(tmp_path / "store")
    fill(one, SPEC, IDS)
    fill(two, OTHER, IDS)
    publish(one, SPEC)
    with pytest.raises(SpecMismatchError, match="weights"):
        publish(two, OTHER)
    assert Store.open(tmp_path / "store").spec == SPEC


def test_two_publications_in_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a run's last look and its renaming no other run can publish: it waits, or gives up.

    Sixty rounds of processes once met there: both runs ended well, and one's store was gone.
    """
    monkeypatch.setattr("headstart.cache.fill._PATIENCE", 0.1)
    one, two = Filling(tmp_path / "store"), Filling(tmp_path / "store")
    fill(one, SPEC, IDS)
    fill(two, OTHER, IDS)
    look, refusals = _files._expect, []

    def look_and_let_the_other_try(path: Path, over: bytes) -> None:
        look(path, over)
        with pytest.raises(StoreError, match="is kept: run the same command again") as caught:
            publish(two, OTHER)
        refusals.append(caught.value)

    monkeypatch.setattr(_files, "_expect", look_and_let_the_other_try)
    publish(one, SPEC)
    assert len(refusals) == 1
    assert Store.open(tmp_path / "store").spec == SPEC
    lab.check_clean(tmp_path / "store")


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, too, a run publishes, and sees what another has published before its last look."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    test_a_layer_published_meanwhile_is_kept(tmp_path)
    test_another_spec_published_meanwhile_is_refused(tmp_path / "other")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give a store of four rows."""
    filling = Filling(tmp_path / "store")
    fill(filling, SPEC, IDS)
    publish(filling, SPEC)
    return tmp_path / "store"


def test_file_replaced_between_check_and_reading(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that is read must be the one that was checked."""
    one, other = pack(Store.open(store), tmp_path / "one.h5"), tmp_path / "other"
    filling = Filling(other)
    fill(filling, OTHER, IDS)
    publish(filling, OTHER)
    two = pack(Store.open(other), tmp_path / "two.h5")
    opened, real = Store.open(one), _files.check_seal
    Store._checked.clear()

    def checked(path: Path) -> str:
        digest = real(path)
        if path == one:
            shutil.copy(two, tmp_path / "new")
            (tmp_path / "new").rename(one)
        return digest

    monkeypatch.setattr(_files, "check_seal", checked)
    with pytest.raises(CorruptStoreError, match="was replaced while it was read; open it again"):
        opened.features()


def test_temporaries_nobody_will_finish_are_removed(tmp_path: Path) -> None:
    """Those of an earlier process with our number, and of a host silent for a day."""
    mine = _files.temporary_name(tmp_path / "a")
    earlier = mine.with_name(mine.name.replace(_files._PROCESS, "0" * 8))
    elsewhere = mine.with_name(mine.name.replace(_files._host(), "0" * 8))
    long_ago = elsewhere.with_name(elsewhere.name + "0")
    for path in (mine, earlier, elsewhere, long_ago):
        path.write_bytes(b"")
    os.utime(long_ago, (time.time() - 90_000,) * 2)
    _files.remove_stale_temporaries(tmp_path)
    assert set(tmp_path.iterdir()) == {mine, elsewhere}


def test_sector_that_cannot_be_read_is_damage(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO from the disk is reported by name, by `verify` too; other errors stay what they are."""
    real = _files._digest
    (shard,) = (store / "shards").glob("*.h5")

    def failing(number: int) -> Any:
        def digest(file: Any, size: int) -> str:
            if str(file.name) == str(shard):
                raise OSError(number, os.strerror(number))
            return real(file, size)

        return digest

    monkeypatch.setattr(_files, "_digest", failing(errno.EIO))
    Store._checked.clear()
    with pytest.raises(CorruptStoreError, match=rf"{shard.name}.*Input/output.*--repair"):
        Store.open(store).features()
    assert [problem.file for problem in verify(store).problems] == [f"shards/{shard.name}"]
    monkeypatch.setattr(_files, "_digest", failing(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"):
        Store.open(store).features()


def test_too_many_open_files_is_no_damage(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor when it is HDF5 that cannot open a file: repair would throw sound shards away."""
    expected = Store.open(store).features()

    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Unable to open file (Too many open files)")

    with monkeypatch.context() as patch:
        patch.setattr("h5py.File", busy)
        with pytest.raises(OSError, match="Too many open files") as caught:
            Store.open(store)
        assert not isinstance(caught.value, CorruptStoreError)
    assert np.array_equal(Store.open(store).features(), expected)


def test_verify_reads_again(store: Path) -> None:
    """Rot that changes neither size nor time is found, though this process read the file before."""
    (shard,) = (store / "shards").glob("*.h5")
    Store.open(store).features()
    assert verify(store).sound
    status = shard.stat()
    tasks._flip(shard, 12345)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not verify(store).sound


class Slow(Filling):
    """Writes a shard when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go, self.written = threading.Event(), 0

    def add(self, *_: object) -> None:
        """Wait, then count."""
        self.go.wait(10)
        self.written += 1


def slow_writer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Slow, Writer]:
    """Return a writer of shards of four rows, and what it writes to."""
    monkeypatch.setattr("headstart.extract.pipeline._SHARD_ROWS", (4, 4))
    filling = Slow(folder)
    return filling, Writer(filling, {"mixed7": SPEC}, {"mixed7": IDS}, {})


FEATURES = {"mixed7": np.zeros((4, 2, 2, 3), np.float32)}


def test_interrupt_at_the_end_of_the_work_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the writer is waited for: it writes all that is computed, then the run stops."""
    filling, writer = slow_writer(tmp_path / "store", monkeypatch)
    with pytest.raises(KeyboardInterrupt), writer:  # noqa: PT012
        for _ in range(3):  # one in hand, two waiting: there is no room for more
            writer.put(IDS, FEATURES)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        threading.Timer(0.6, filling.go.set).start()
    assert filling.written == 3
    assert not writer._thread.is_alive()


def test_second_interrupt_leaves_no_thread_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted twice while the writer is told to end, as in a notebook: its thread ends."""
    filling, writer = slow_writer(tmp_path / "store", monkeypatch)
    with pytest.raises(KeyboardInterrupt), writer:  # noqa: PT012
        for _ in range(3):
            writer.put(IDS, FEATURES)
        for seconds in (0.2, 0.4):
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
        threading.Timer(0.6, filling.go.set).start()
    assert writer._done.wait(5)
    writer._thread.join(5)
    assert not writer._thread.is_alive()


def test_writer_ends_with_the_main_thread(tmp_path: Path) -> None:
    """Whatever became of the one that should have told it to end, the process does not hang."""
    program = (
        "import sys, pathlib; from headstart.cache import Filling, Spec\n"
        "from headstart.extract.pipeline import Writer\n"
        "spec = Spec(weights='0' * 64)\n"
        "Writer(Filling(pathlib.Path(sys.argv[1])), {'a': spec}, {'a': []}, {}).__enter__()"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "store")]
    assert subprocess.run(words, timeout=30, check=False).returncode == 0


def test_interrupt_at_any_time_says_what_is_kept(
    fake_base: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before the first row and after the last one."""
    from headstart.errors import InterruptedRunError
    from headstart.extract import Settings, fill_store

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for where, text in {
        "headstart.extract.run.list_dataset": "all that was computed before is kept",
        "headstart.extract.reading.read_file": "0 of 40 pictures are kept",
        "headstart.cache.Filling.publish": "40 of 40 pictures are kept",
        "headstart.cache.Store.open": "40 of 40 pictures are kept",
    }.items():
        store = tmp_path / where
        with monkeypatch.context() as patch:
            patch.setattr(where, stop)
            with pytest.raises(InterruptedRunError, match=rf"{text} in .*run the same command"):
                fill_store(data, store, Settings(size=lab.SIZE))


def test_picture_that_found_no_memory_is_tried_again(
    fake_base: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out of one run, not for ever: the next one computes it, and nothing else."""
    from headstart.extract import Settings, fill_store

    unlucky = (data / "cat" / "0003.png").read_bytes()

    def short(content: bytes, *rest: Any, **options: Any) -> Any:
        if content == unlucky:
            raise ImageMemoryError("no memory for it now")
        return decode(content, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr("headstart.extract.pipeline.decode", short)
        _, summary = fill_store(data, tmp_path / "store", Settings(size=lab.SIZE))
    assert [(one.path, one.reason) for one in summary.left_out] == [
        ("cat/0003.png", "no memory for it now")
    ]
    _, summary = fill_store(data, tmp_path / "store", Settings(size=lab.SIZE))
    assert (summary.computed, summary.left_out) == (1, ())
    lab.check(tmp_path / "store", data)
