# The verbs of development; `just` alone lists them.

default:
    @just --list

# All that must pass before a change is done.
ci:
    .ci/run

# The default tests (under 8 minutes).
test *ARGS:
    uv run pytest {{ARGS}}

# The long reliability runs, recorded in docs/reliability.md.
campaign:
    uv run pytest -m campaign

# Style and types.
check:
    uv run ruff check . && uv run ruff format --check . && uv run mypy && uv run mypy --explicit-package-bases tests

# Mend what can be mended mechanically.
format:
    uv run ruff check --fix . && uv run ruff format .
