"""One policy's run over one trace, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from l4sim.policies.plan import Stage
from l4sim.records import BoundaryRow, MigrationRow, RequestRow, SegmentRow, column_types

if TYPE_CHECKING:
    from array import array

    from pandas import DataFrame

REQUESTS: Mapping[str, type] = column_types(RequestRow)
ITERATIONS: Mapping[str, type] = column_types(SegmentRow)
MIGRATIONS: Mapping[str, type] = column_types(MigrationRow)
BOUNDARIES: Mapping[str, type] = column_types(BoundaryRow)
"""Every table's columns with their types; `l4sim.records` says what they hold."""


class InstanceChange(NamedTuple):
    """What became of an instance during the run."""

    instance: int
    time_s: float
    change: str
    """``joined``, ``draining``, ``left`` or ``died``."""
    requests: int
    """How many were there, waiting ones included; those of one that died had to go elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What one policy did with a trace. Raises ValueError if a table does not have its columns."""

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
    changes: tuple[InstanceChange, ...] = ()
    """In order of time."""
    kind: str = "rival"
    """The policy's (`l4sim.policies.policy.Kind`)."""

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
