"""The command line: what it prints, returns and never imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fakes
import headstart
from headstart import cli
from headstart.cache import Store, _files
from stores import make_store

needs_fake_base = pytest.mark.usefixtures("fake_base")


def extract(data: Path, store: Path, *options: str) -> int:
    return cli.main(["extract", str(data), "-o", str(store), "--size", "75", *options])


def isolated(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def modules_after(*arguments: str) -> set[str]:
    """Return which heavy modules a command leaves imported; it must succeed."""
    code = (
        "import sys\nfrom headstart.cli import main\n"
        "try: status = main(sys.argv[1:])\n"
        "except SystemExit as exit: status = exit.code\n"
        "assert not status, status\n"
        "print('\\nMODULES', *(m for m in ('tensorflow', 'keras', 'sklearn', 'h5py', 'cache',"
        " 'pandas') if m in sys.modules))"
    )
    done = isolated(code, *arguments)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_importing_headstart_costs_nothing() -> None:
    """``import headstart`` imports no numpy, and never the bare name of a room."""
    names = "('numpy', 'h5py', 'keras', 'tensorflow', 'cache', 'extract', 'heads')"
    done = isolated(f"import sys, headstart; print([n for n in {names} if n in sys.modules])")
    assert done.stdout.strip() == "[]"


def test_help_status_verify_and_compare_import_no_tensorflow(tmp_path: Path) -> None:
    """Everything that works on a store alone starts without TensorFlow and Keras."""
    path = tmp_path / "store"
    make_store(path, [f"{n}" for n in range(24)], labels=[n % 2 for n in range(24)])
    assert modules_after("--help") == set()
    assert modules_after("status", str(path)) == {"h5py"}
    assert modules_after("verify", str(path)) == {"h5py"}
    assert modules_after("pack", str(path), "-o", str(tmp_path / "one.h5")) == {"h5py"}
    compared = modules_after("compare", str(path), "--heads", "logreg,svm", "--cv", "2")
    assert compared == {"h5py", "sklearn"}


@needs_fake_base
def test_second_extract_imports_no_tensorflow(pets: Path, tmp_path: Path) -> None:
    """Where nothing is new, Keras stays asleep, also when the same weights are named."""
    assert extract(pets, tmp_path / "store", "--weights", "random") == 0
    again = ["extract", str(pets), "-o", str(tmp_path / "store")]
    assert modules_after(*again) == {"h5py"}
    assert modules_after(*again, "--weights", "random", "--size", "75") == {"h5py"}
    assert modules_after("status", str(tmp_path / "store"), "--data", str(pets)) == {"h5py"}


@needs_fake_base
def test_the_whole_way(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Extract, status, verify, pack, compare: each answers, in words and in JSON."""
    store, answer = tmp_path / "store", tmp_path / "answer.json"

    def read() -> Any:
        return json.loads(answer.read_text())

    (pets / "cat" / "bad.png").write_bytes(b"")
    assert extract(pets, store, "--json", str(answer)) == 0
    assert read()["computed"] == 20
    assert read()["left_out"] == [{"path": "cat/bad.png", "reason": "empty file"}]
    said = capsys.readouterr().out
    assert "20 rows" in said
    assert "left out: 'cat/bad.png': empty file" in said
    assert cli.main(["status", str(store), "--data", str(pets), "--json", str(answer)]) == 0
    assert read()["rows"] == 20
    assert read()["classes"] == {"cat": 10, "dog": 10}
    assert read()["data"]["to_compute"] == 0
    assert "extract would compute nothing" in capsys.readouterr().out
    assert cli.main(["verify", str(store), "--json", str(answer)]) == 0
    assert read()["sound"] is True
    assert cli.main(["pack", str(store), "-o", str(tmp_path / "one.h5")]) == 0
    for path in (store, tmp_path / "one.h5"):
        command = ["compare", str(path), "--heads", "logreg,svm", "--json", str(answer)]
        assert cli.main(command) == 0
        assert {head["head"] for head in read()["heads"]} == {"logreg", "svm"}
        assert read()["rows"] == 20
    assert "logreg" in capsys.readouterr().out
    for bar, status in (("1", 1), ("0.01", 0)):
        best = read()["heads"][0]["accuracy"]
        assert best < 1
        assert cli.main([*command, "--fail-under", bar]) == status
        assert ("the best accuracy is" in capsys.readouterr().err) == bool(status)
    assert cli.main([*command, "--curve"]) == 0
    assert [p["rows"] for p in read()["curve"]["points"]] == [4, 8, 16] * 2
    assert "last step" in capsys.readouterr().out


@needs_fake_base
def test_quiet_says_nothing_and_json_goes_to_stdout(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``--json -`` a program can read the answer from the pipe, and nothing else."""
    assert extract(pets, tmp_path / "store", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["status", str(tmp_path / "store"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 20


@needs_fake_base
def test_status_tells_what_is_stale_and_why(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """New, changed, moved, relabelled and removed pictures are told apart."""
    extract(pets, tmp_path / "store")
    fakes.draw(pets / "cat" / "new.png", seed=1)
    fakes.draw(pets / "cat" / "0000.png", seed=2)
    (pets / "cat" / "0001.png").rename(pets / "cat" / "moved.png")
    (pets / "cat" / "0002.png").unlink()
    capsys.readouterr()
    assert cli.main(["status", str(tmp_path / "store"), "--data", str(pets)]) == 0
    said = capsys.readouterr().out
    for line in (
        "extract would compute 2 pictures",
        "1 new: 'cat/new.png'",
        "1 changed: 'cat/0000.png'",
        "1 moved or copied (reused): 'cat/moved.png'",
        "2 removed: 'cat/0001.png', 'cat/0002.png'",
    ):
        assert line in said


@needs_fake_base
def test_repair_mends_what_verify_found(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged shard fails verification; ``--repair`` computes it again from the pictures."""
    store = tmp_path / "store"
    extract(pets, store)
    before = Store.open(store).features()
    shard = next((store / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert cli.main(["verify", str(store)]) == 1
    assert f"damaged: shards/{shard.name}" in capsys.readouterr().out
    other = fakes.draw_classes(tmp_path / "other", ("a", "b"), per_class=3)
    fakes.draw(other / "a" / "more.png", seed=9)
    (other / "a" / "0000.png").unlink()
    assert cli.main(["verify", str(store), "--repair", "--data", str(other)]) == 1
    assert "are not there, the first 'cat/0" in capsys.readouterr().err
    assert cli.main(["verify", str(store), "--repair"]) == 0
    assert (Store.open(store).features() == before).all()


@needs_fake_base
def test_what_was_not_read_is_not_called_sound(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Extract and status say what they checked of reused rows; verify names damage once."""
    store, said = tmp_path / "store", "that seals are there; headstart verify reads it all"
    extract(pets, store)
    assert said not in capsys.readouterr().out
    shard = next((store / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    for command in (["extract", str(pets), "-o", str(store)], ["status", str(store), "--data"]):
        assert cli.main([*command, *([str(pets)] if command[0] == "status" else [])]) == 0
        assert said in capsys.readouterr().out
    assert cli.main(["verify", str(store)]) == 1
    assert f"damaged: shards/{shard.name}: its checksum is " in capsys.readouterr().out


def _missing(tmp_path: Path) -> Path:
    return tmp_path / "nowhere"


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def _one_class(tmp_path: Path) -> Path:
    return fakes.draw_classes(tmp_path / "one", ("cat",))


def _file(tmp_path: Path) -> Path:
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path / "notes.txt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, "nowhere"),
        (_empty, "empty"),
        (_one_class, "one class"),
        (_file, "notes.txt"),
    ],
)
def test_bad_datasets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, message: str
) -> None:
    """Each has its own one-line error, exit code 1, and makes no store."""
    assert extract(make(tmp_path), tmp_path / "store") == 1
    error = capsys.readouterr().err
    assert error.startswith("headstart: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "store" / "features.h5").exists()


@needs_fake_base
def test_a_number_of_folds_is_advised_where_it_can_be_asked_for(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too few pictures for five folds: ``compare`` and ``sweep`` have ``--cv``, and take it."""
    for folder in pets.iterdir():
        for picture in sorted(folder.iterdir())[3:]:
            picture.unlink()
    store = tmp_path / "store"
    assert extract(pets, store, "--weights", "random", "--quiet") == 0
    assert cli.main(["compare", str(store), "--heads", "ncm"]) == 1
    assert "too few for 5 folds: add pictures, or use --cv " in capsys.readouterr().err
    options = ["-o", str(tmp_path / "swept"), "--size", "75", "--weights", "random"]
    options += ["--layer", "mixed7", "--quiet"]
    assert cli.main(["sweep", str(pets), *options]) == 1
    assert capsys.readouterr().err.endswith("too few for 5 folds: add pictures, or use --cv 3\n")
    assert cli.main(["sweep", str(pets), *options, "--cv", "3"]) == 0


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser reads everything")
def test_unreadable_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without permission is named."""
    folder = fakes.draw_classes(tmp_path / "locked")
    folder.chmod(0)
    try:
        assert extract(folder, tmp_path / "store") == 1
        assert "locked" in capsys.readouterr().err
    finally:
        folder.chmod(0o700)


@needs_fake_base
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "nothing"], "there is no store at nothing"),
        (["verify", "pets"], "pets is not a store"),
        (["compare", "pets", "--heads", "logreg"], "pets is not a store"),
        (["compare", "store", "--heads", "logrg"], "did you mean logreg"),
        (["compare", "store", "--heads", "svm", "--layer", "mixed3"], "which has mixed7"),
        (["extract", "pets", "-o", "pets/cat/0000.png"], "is a file; -o expects a folder"),
        (["extract", "pets", "-o", "pets"], "is not a store and not empty"),
        (["extract", "pets", "-o", "store", "--size", "80"], "size: the store has 75"),
    ],
)
def test_bad_requests(
    pets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """One line on stderr that says what to do, exit code 1, no traceback."""
    monkeypatch.chdir(tmp_path)
    extract(pets, tmp_path / "store", "--quiet")
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unheard-of"],
        ["extract", "pets"],
        ["extract", "pets", "-o", "s", "--size", "big"],
        ["extract", "pets", "-o", "s", "--validation", "1"],
        ["compare", "s", "--max-memory", "lots"],
        ["compare", "s", "--heads", ","],
        ["compare", "s", "--cv", "1"],
        ["status", "s", "--json", "no/such/folder/answer.json"],
    ],
)
def test_usage_errors(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """What cannot be parsed exits with 2, shows the usage, and nothing of how we parse."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert "usage: headstart" in said
    assert "invalid _" not in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("features.h5", b"\x89HDF\r\n"),
        ("notes.json", b"[1]"),
        ("broken.json", b"{"),
        ("book.ipynb", b"{}"),
    ],
)
def test_an_answer_replaces_nothing_but_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    """``--json`` over a file that is no .json file of an object is refused before all else."""
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["inspect", "--json", str(file)])
    assert exit_.value.code == 2
    assert "is there already and is no JSON answer" in capsys.readouterr().err
    assert file.read_bytes() == content


def test_an_answer_replaces_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So does an empty file make room, as ``mktemp`` makes one."""
    earlier, empty = tmp_path / "answer.json", tmp_path / "tmp.XqZ"
    empty.touch()
    for file in (earlier, earlier, empty):
        assert cli.main(["inspect", "--json", str(file)]) == 0
        assert "layers" in json.loads(file.read_text("utf-8"))


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb with what it does, on stderr: nothing was asked for that could be answered."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([])
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert "heads on the same rows, in one table" in said.err
    assert said.out == ""


def test_a_mistyped_option_is_told_what_it_was_meant_to_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``--layers`` is answered with ``--layer``, a stray word with no guess."""
    for arguments, end in ((["--layers", "a"], "did you mean --layer?\n"), (["b"], ": b\n")):
        with pytest.raises(SystemExit):
            cli.main(["extract", "pets", "-o", "s", *arguments])
        assert capsys.readouterr().err.endswith(end)


def test_a_mistyped_verb_is_told_what_it_was_meant_to_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``extrat`` is answered with ``extract``, another word with the verbs there are."""
    for word, start in (
        ("extrat", "; did you mean extract?; there are demo"),
        ("x", "; there are"),
    ):
        with pytest.raises(SystemExit, match="2"):
            cli.main([word])
        assert f"no verb is called {word!r}{start}" in capsys.readouterr().err


def test_no_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where memory runs out, the error names the options that need less of it."""

    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("headstart.status.status", fails)
    assert cli.main(["status", str(tmp_path)]) == 1
    assert "--batch-size" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_extract_is_a_function_and_a_package() -> None:
    """``headstart.extract`` can be called and holds its modules, whatever came first."""
    for first in ("import headstart.extract.run", "headstart.extract"):
        code = (
            f"import headstart; {first}; import inspect, headstart.extract as room\n"
            "assert headstart.extract is room and room.Settings and room.run\n"
            "assert 'validation' in inspect.signature(headstart.extract).parameters"
        )
        done = isolated(code)
        assert done.returncode == 0, done.stderr


@needs_fake_base
def test_newer_store_says_upgrade(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store of a newer format is not guessed at."""
    with pytest.MonkeyPatch.context() as future:
        future.setattr(_files, "FORMAT_VERSION", 9)
        extract(pets, tmp_path / "store")
    capsys.readouterr()
    assert cli.main(["status", str(tmp_path / "store")]) == 1
    assert "format 9" in (error := capsys.readouterr().err)
    assert "upgrade Headstart" in error


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    """``--debug`` lets the error through."""
    with pytest.raises(headstart.HeadstartError):
        cli.main(["status", str(tmp_path / "nothing"), "--debug"])


def test_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    """``headstart status STORE | head -0`` ends quietly."""
    make_store(tmp_path / "store", ["a", "b"])
    headstart_command = shutil.which("headstart", path=str(Path(sys.executable).parent))
    command = f"{headstart_command} status {tmp_path / 'store'} | head -c 0"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints the installed one."""
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("headstart 0.")
