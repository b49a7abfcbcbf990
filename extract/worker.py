"""What a worker of a cluster does: the base loaded once a process, and chunks made into shards."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.cache import write_rows
from headstart.errors import SpecMismatchError
from headstart.extract.pipeline import Decoder, Decoding, Job, Outcome, Writer, distance, run_jobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from headstart.cache import RowId, Spec
    from headstart.cache.shard import ShardHead
    from headstart.extract.base import Base


@dataclass(frozen=True)
class Order:
    """What is the same for every chunk of a run.

    Attributes
    ----------
    shards
        The folder for shards, the same on every machine.
    spec
        Of what is computed; its weights' digest is empty until a worker has loaded them.
    cuts
        Name of each dataset in the store to the base's layer, all of one pooling.
    pool
        That pooling.
    remembered
        Settings of the run, written into each shard. It holds no times, so that a chunk computed
        twice gives the same files.
    batch_size, threads
        As in `headstart.extract.Speed`.
    on_error
        ``"ledger"`` or ``"fail"``.
    """

    shards: Path
    spec: Spec
    cuts: dict[str, str]
    pool: str
    remembered: dict[str, Any]
    batch_size: int
    threads: int
    on_error: str


@dataclass(frozen=True)
class Chunk:
    """Some pictures, and the rows that each layer misses of them."""

    jobs: tuple[Job, ...]
    missing: dict[str, list[RowId]]


@dataclass(frozen=True)
class Done:
    """What came of a chunk: shards that are on disk, what was computed, who did it."""

    heads: list[ShardHead]
    outcome: Outcome
    host: str
    process: int


class _Shards:
    """Where a worker's shards go: the store's folder, published by another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.heads: list[ShardHead] = []

    def add(
        self,
        spec: Spec,
        rows: Sequence[RowId],
        features: NDArray[Any],
        run: Mapping[str, Any],
        packed: Sequence[bytes] = (),
    ) -> None:
        """Write one shard."""
        head = write_rows(self._folder, spec, rows, features, run, packed=packed)
        self.heads.append(head)


def settle(order: Order) -> Order:
    """Load the base and return the order with what only the base can tell.

    That is the digest of the weights, and what ``auto`` stands for on such a machine.
    """
    base, weights = _base_of(order)
    spec = dataclasses.replace(
        order.spec, weights=base.digest, engine=base.engine, precision=base.precision
    )
    return dataclasses.replace(
        order, spec=spec, remembered={**order.remembered, "weights_sha256": weights}
    )


def compute(order: Order, chunk: Chunk) -> Done:
    """Compute a chunk and write its shards; once more, and the same files are written.

    Raises
    ------
    SpecMismatchError
        If this machine has other weights under the same name.
    DataError
        If a picture cannot be used and the order says ``"fail"``.
    """
    base, _ = _base_of(order)
    if base.digest != order.spec.weights:
        raise SpecMismatchError(
            f"{socket.gethostname()} has other weights than the first worker under the name of "
            f"{order.remembered['weights']}; give every machine the same file"
        )
    spec, outcome, sink = order.spec, Outcome(), _Shards(order.shards)
    decoder = Decoder(
        chunk.jobs,
        Decoding.of(spec, order.remembered["max_pixels"]),
        workers=order.threads,
        ahead=distance(
            spec.size,
            views=max(len(job.views) for job in chunk.jobs),
            batch_size=order.batch_size,
            workers=order.threads,
        ),
    )
    missing = {name: set(rows) for name, rows in chunk.missing.items()}
    specs = {
        name: dataclasses.replace(spec, layer=layer, pool=order.pool)
        for name, layer in order.cuts.items()
    }
    with decoder, Writer(sink, specs, missing, order.remembered) as writer:
        run_jobs(
            decoder,
            [base],
            writer,
            order.cuts,
            outcome=outcome,
            on_error=order.on_error,
            progress=lambda _, __: None,
        )
    return Done(sink.heads, outcome, socket.gethostname(), os.getpid())


def _base_of(order: Order) -> tuple[Base, str]:
    spec, remembered = order.spec, order.remembered
    return _load(
        str(remembered["weights"]),
        size=spec.size,
        layers=tuple(dict.fromkeys(order.cuts.values())),
        pool=order.pool,
        engine=spec.engine,
        precision=spec.precision,
        batch_size=order.batch_size,
    )


@functools.lru_cache(maxsize=1)
def _load(name: str, **options: Any) -> tuple[Base, str]:
    """Return the base, loaded once a process, and the SHA-256 of its weights' file."""
    from headstart.extract.base import load_base
    from headstart.extract.weights import find_weights

    weights = find_weights(name)
    return load_base(weights, **options), weights.sha256
