"""The documents keep up with the code: reference, README, changelog."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shlex
from pathlib import Path

import pytest

from headstart import _options, cli

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "cli.md"


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Return the live verbs."""
    parser = _options.parser(cli._RUN)
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def reference() -> str:
    """Render the reference of the command line from the live parser."""
    lines = [
        "# Command line",
        "",
        "Made from the code; `HEADSTART_UPDATE=1 uv run pytest tests/face/test_docs.py` renews it.",
        "",
        "Exit codes: 0 done, 1 failed, 2 usage.",
    ]
    for name, verb in verbs().items():
        lines += ["", f"## headstart {name}", "", verb.description or "", ""]
        lines += ["| argument | meaning |", "|---|---|"]
        for action in verb._actions:
            if action.dest == "help":
                continue
            names = ", ".join(f"`{option}`" for option in action.option_strings)
            shown = names or f"`{action.metavar or action.dest}`"
            values = action.metavar if isinstance(action.metavar, str) else ""
            if action.choices:
                values = " \\| ".join(map(str, action.choices))
            if names and values:
                shown += f" {values}"
            lines.append(f"| {shown} | {' '.join((action.help or '').split())} |")
    return "\n".join(lines) + "\n"


def test_reference_is_that_of_the_live_commands() -> None:
    """``docs/cli.md`` names every verb and option, as they are now."""
    if os.environ.get("HEADSTART_UPDATE"):
        REFERENCE.write_text(reference(), encoding="utf-8")
    assert REFERENCE.read_text("utf-8") == reference()


def test_every_option_has_a_help() -> None:
    """No option is left without a word."""
    for name, verb in verbs().items():
        for action in verb._actions:
            if action.option_strings:
                assert action.help, f"{name} {action.option_strings}"


def test_commands_in_the_readme_parse() -> None:
    """Every ``headstart`` command shown to a newcomer is one the parser takes."""
    text = (ROOT / "README.md").read_text("utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if language in ("sh", "console")]
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    commands = [
        line.split("headstart ", 1)[1]
        for line in lines
        if re.match(r"(.*uv run )?headstart [a-z]", line)
    ]
    assert len(commands) >= 4
    for command in commands:
        _options.parser(cli._RUN).parse_args(shlex.split(command))


def test_relative_links_lead_somewhere() -> None:
    """No document points at a file that is not there."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    found = 0
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
            found += 1
    assert found > 5


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"])
def test_documents_are_there(name: str) -> None:
    """What a visitor looks for is there and says something."""
    assert len((ROOT / name).read_text("utf-8")) > 300


def test_changelog_has_this_version() -> None:
    """The version that is installed has its entry."""
    version = importlib.metadata.version("headstart")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_dependencies_are_defended() -> None:
    """Each runtime dependency has its line in CONTRIBUTING."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for requirement in importlib.metadata.requires("headstart") or []:
        name = re.split(r"[<>=;\[ ]", requirement)[0]
        assert re.search(rf"^\| {name}\b", text, flags=re.MULTILINE), name
