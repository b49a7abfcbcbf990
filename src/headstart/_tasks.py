"""Where a benchmark's tasks run: one after another in processes here, or on a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from headstart._child import in_child, told
from headstart.errors import HeadError, HeadstartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headstart.extract.cluster import Cluster


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A generator to run elsewhere: it and its arguments can be sent to another process."""

    function: Callable[..., Iterator[Any]]
    arguments: tuple[Any, ...]


class Runner(Protocol):
    """A place for tasks.

    Attributes
    ----------
    where : str
        What its figures are of, if not of one task at a time on this machine; else "".
    apart : bool
        Whether what one task could do in turn is better done by several.
    """

    where: str
    apart: bool

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield each task's values, or the HeadError that ended it, as they are there; then None.

        Raises
        ------
        HeadstartError
            If a task ended otherwise.
        """
        ...


class Here:
    """One task after another, each in a process of its own."""

    where = ""
    apart = False

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Run them; see `Runner.run`."""
        for task in tasks:
            try:
                for value in in_child(task.function, *task.arguments):
                    yield task, value
            except HeadError as error:
                yield task, error
            yield task, None


class There:
    """As many tasks at a time as a cluster has room for, each in a process of its own."""

    apart = True

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        share = f"{cluster.cpus} processor core{'s' if cluster.cpus > 1 else ''}"
        share += " and a GPU" if cluster.gpus else ""
        beside = f"up to {cluster.slots} side by side" if cluster.slots > 1 else "one at a time"
        self.where = f"tasks of Ray, {beside}, each with {share}"

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Run them; see `Runner.run`."""
        calls = [(_values, (task.function, task.arguments)) for task in tasks]
        for number, (values, error) in self._cluster.each(calls):
            task = tasks[number]
            yield from ((task, value) for value in values)
            if isinstance(error, HeadError):
                yield task, error
            elif error is not None:
                raise error
            yield task, None


@contextmanager
def runner(on: str) -> Iterator[Runner]:
    """Give the place that `--on` names; ``""`` is this machine.

    Raises
    ------
    ClusterError
        If there is no such cluster.
    MissingExtraError
        If Ray is not installed.
    """
    if not on:
        yield Here()
        return
    from headstart.extract.cluster import Cluster

    # Ray prints on stdout which workers were lost; that is for answers.
    with contextlib.redirect_stdout(sys.stderr), Cluster(on) as cluster:
        yield There(cluster)


def _values(
    function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]
) -> tuple[list[Any], HeadstartError | None]:
    """Return what a generator yields, and the error that ended it."""
    values: list[Any] = []
    try:
        values.extend(function(*arguments))
    except Exception as error:  # noqa: BLE001 - whatever it is, the one who asked raises it
        return values, told(error)
    return values, None
