"""The house: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "cache": {"headstart.cache", "headstart.errors"},
    "extract": {
        "headstart._hardware",
        "headstart._keras",
        "headstart.cache",
        "headstart.errors",
        "headstart.extract",
    },
    "heads": {
        "headstart._hardware",
        "headstart._keras",
        "headstart.cache",
        "headstart.errors",
        "headstart.extract",  # for the base, to train above a cut
        "headstart.heads",
    },
}
HEAVY = {"tensorflow", "keras", "jax", "torch", "openvino"}
#: Modules that are about one heavy package, and imported inside functions alone.
LAZY = {"_openvino_engine", "adam", "joined", "networks", "products", "stack", "step"}


def imports(path: Path) -> list[tuple[str, bool]]:
    """Return every imported module, and whether it is imported as the file is."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = {
        id(node)
        for scope in ast.walk(tree)
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(scope, ast.If) and ast.unparse(scope.test) == "TYPE_CHECKING")
        for node in ast.walk(scope)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, id(node) not in inner))
            found += [
                (f"{node.module}.{alias.name}", id(node) not in inner)
                for alias in node.names
                if node.module == "headstart"
            ]
    return found


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_what_they_may(room: str) -> None:
    """The cache knows nothing of ours, extract the cache, heads the cache and extract."""
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for name, _ in imports(path):
            if name.split(".")[0] == "headstart" and name != "headstart":
                room_of = ".".join(name.split(".")[:2])
                assert room_of in ALLOWED[room], f"{path.name} imports {name}"


def test_nothing_heavy_is_imported_at_import_time() -> None:
    """Keras and its backends are imported inside the functions that need them."""
    files = [p for room in (*ALLOWED, "src") for p in (ROOT / room).rglob("*.py")]
    for path in files:
        at_once = {name for name, now in imports(path) if now and path.stem not in LAZY}
        heavy = [n for n in at_once if n.split(".")[0] in HEAVY or n.split(".")[-1] in LAZY]
        assert not heavy, f"{path.name} imports {heavy} at import time"


def test_public_names_are_there() -> None:
    """Everything in ``__all__`` can be had, and `extract` is callable whatever was imported."""
    import headstart.extract.plan

    for name in headstart.__all__:
        assert getattr(headstart, name) is not None
    assert callable(headstart.extract)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = headstart.nonsense
    assert set(headstart.__all__) <= set(dir(headstart))


def test_every_module_says_what_it_is_for() -> None:
    """A module opens with one line, and that line ends."""
    for room in (*ALLOWED, "src"):
        for path in (ROOT / room).rglob("*.py"):
            text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
            assert text, path
            assert text.splitlines()[0].endswith("."), path
