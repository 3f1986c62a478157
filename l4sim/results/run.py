"""One policy's run over one trace, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from l4sim.policies.l4.plan import Stage

if TYPE_CHECKING:
    from array import array

    from pandas import DataFrame

REQUESTS: Mapping[str, type] = {
    "policy": str,
    "request_id": str,
    "arrival_s": float,
    "prompt_tokens": int,
    "output_tokens": int,
    "cached_tokens": int,
    "queue_s": float,
    "ttft_s": float,
    "tpot_s": float,
    "max_itl_s": float,
    "e2e_s": float,
    "normalized_latency_s": float,
    "migrations": int,
    "preemptions": int,
    "first_instance": int,
    "last_instance": int,
    "status": str,
    "reason": str,
}
"""One row per request. ``queue_s`` (until first scheduled), ``ttft_s`` and ``e2e_s`` count from the arrival; ``tpot_s``
is NaN for one-token outputs, every latency is NaN unless finished, and instances are -1 where none was reached."""

ITERATIONS: Mapping[str, type] = {
    "policy": str,
    "instance": int,
    "start_s": float,
    "end_s": float,
    "iterations": int,
    "decode_requests": int,
    "prefill_requests": int,
    "prefill_tokens": int,
    "context_tokens": int,
    "context_std_tokens": float,
    "waiting_requests": int,
    "kv_blocks_used": int,
    "kv_blocks_total": int,
}
"""One row per segment of equal iterations. Requests and tokens are those of one iteration; ``context_tokens`` sums over
the decoding requests at the segment's start, ``context_std_tokens`` is their standard deviation."""

MIGRATIONS: Mapping[str, type] = {
    "policy": str,
    "request_id": str,
    "kind": str,
    "source": int,
    "destination": int,
    "asked_s": float,
    "start_s": float,
    "pause_start_s": float,
    "end_s": float,
    "pause_s": float,
    "context_tokens": int,
    "copied_bytes": int,
    "stages": int,
    "status": str,
    "reason": str,
}
"""One row per migration asked for: ``kind`` is handover or rebalance, ``status`` is done, refused or aborted; times
that were not reached are NaN."""

BOUNDARIES: Mapping[str, type] = {"policy": str, "time_s": float, "stage": int, "hi_tokens": int}
"""One row per stage boundary moved at run time: from ``time_s`` on, ``stage`` ends at ``hi_tokens``."""

REQUEST_STATUSES = ("finished", "rejected", "failed")
MIGRATION_STATUSES = ("done", "refused", "aborted")


class Death(NamedTuple):
    """An instance that died during the run."""

    instance: int
    time_s: float
    requests: int
    """How many were there, waiting ones included, and had to go elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What one policy did with a trace. Raises ValueError if a table's columns are not the contract's."""

    policy: str
    requests: DataFrame
    """`REQUESTS`, in the trace's order."""
    iterations: DataFrame
    """`ITERATIONS`; segments of one instance do not overlap."""
    migrations: DataFrame
    """`MIGRATIONS`."""
    plan: tuple[Stage, ...] | None
    """The plan that the run began with; None for policies without stages."""
    boundaries: DataFrame
    """`BOUNDARIES`; empty unless the plan was refined at run time."""
    instances: int | None = None
    """Instances of the cluster. None: as many as the tables name (one that never ran is then unknown)."""
    deaths: tuple[Death, ...] = ()
    """In order of time."""

    def __post_init__(self) -> None:
        for table, columns in (
            ("requests", REQUESTS),
            ("iterations", ITERATIONS),
            ("migrations", MIGRATIONS),
            ("boundaries", BOUNDARIES),
        ):
            found = list(getattr(self, table).columns)
            if found != list(columns):
                raise ValueError(f"{table} has the columns {found}, not {list(columns)}")

    @property
    def instance_count(self) -> int:
        """Instances of the cluster, idle ones included where `instances` or the plan tells of them."""
        if self.instances is not None:
            return self.instances
        planned = [instance for stage in (self.plan or ()) for instance in stage.instances]
        reached = self.requests[["first_instance", "last_instance"]].to_numpy().max(initial=-1)
        ran = self.iterations["instance"].to_numpy().max(initial=-1)
        return 1 + int(max(reached, ran, *planned))


def frame_from_rows(
    policy: str, flat: array[float], columns: Mapping[str, type], words: Mapping[str, Sequence[str]]
) -> DataFrame:
    """The table of rows that were appended, number by number, to one flat array of doubles.

    ``columns`` is one of the contracts above; ``flat`` holds its columns but ``policy``, row after row. A text column's
    number is an index into ``words[column]``. Raises ValueError if ``flat`` holds no whole number of rows.
    """
    from pandas import DataFrame

    names = list(columns)[1:]
    if len(flat) % len(names):
        raise ValueError(f"{len(flat)} numbers are no whole number of rows of {len(names)}")
    rows = np.frombuffer(flat, dtype=np.float64).reshape(-1, len(names)) if flat else np.empty((0, len(names)))
    table: dict[str, object] = {"policy": np.full(len(rows), policy, dtype=object)}
    for index, name in enumerate(names):
        values = rows[:, index]
        if columns[name] is str:
            table[name] = np.array(words[name], dtype=object)[values.astype(np.int64)]
        else:
            table[name] = values.astype(columns[name])
    return DataFrame(table)
