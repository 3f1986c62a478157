"""Seconds of sending tokens to the ranks that have their experts, and of what these make back: DeepEP, from a table."""

from __future__ import annotations

import numpy as np

from l4sim.cost.tables.products import Seconds
from l4sim.cost.tables.table import FloatArray, IntArray, OperatorTable
from l4sim.errors import InputError

ALL_TO_ALL = "all_to_all"
"""The table's name: kinds ``backend, phase``, sizes ``ep, hidden, per_token, experts``, over a rank's ``tokens``."""

# Up to the most tokens that were measured of it, engines take the first: a buffer has room for no more.
_BACKENDS = ("deepep_ll", "deepep_ht")
_PHASES = ("dispatch", "combine")


def deepep_s(table: OperatorTable, *, ranks: int, hidden: int, per_token: int, tokens: IntArray) -> Seconds:
    """Seconds of both ways of one layer by a rank's tokens, of their shape.

    Small steps by the low-latency kernels, larger ones by those of high throughput. What was not measured is the
    nearest row, by the octaves between its sizes, with as many tokens as have the same bytes.

    Raises:
        InputError: the table has neither kernel.
    """
    seconds, measured = np.zeros(len(tokens)), True
    for phase in _PHASES:
        known = [name for name in _BACKENDS if len(table.where(backend=name, phase=phase))]
        if not known:
            raise InputError(f"{table.name} of {table.engine} has no seconds of DeepEP's {phase}")
        found = [
            _phase(table.where(backend=backend, phase=phase), ranks, hidden, per_token, tokens) for backend in known
        ]
        taken, _, exact = found[-1]
        for small, most, same in found[:-1]:
            taken, exact = np.where(tokens <= most, small, taken), exact and same
        seconds, measured = seconds + taken, measured and exact
    return Seconds(seconds, measured)


def _phase(
    rows: OperatorTable, ranks: int, hidden: int, per_token: int, tokens: IntArray
) -> tuple[FloatArray, float, bool]:
    """Seconds of one kernel, the most tokens that were measured of it, and whether its sizes are the wanted ones."""
    wanted = {"ep": ranks, "hidden": hidden, "per_token": per_token}
    octaves = np.sum([np.abs(np.log2(rows.sizes[name]) - np.log2(size)) for name, size in wanted.items()], axis=0)
    row = int(np.argmin(octaves))
    own = {name: int(rows.sizes[name][row]) for name in wanted}
    alike = hidden * _copies(per_token, ranks) / (own["hidden"] * _copies(own["per_token"], own["ep"]))
    last = float(rows.axes["tokens"][np.isfinite(rows.seconds[row])][-1])
    return rows.along(row, tokens * alike), last / alike, bool(octaves[row] == 0)


def _copies(per_token: int, ranks: int) -> float:
    """To how many other ranks a token goes, were every rank as likely."""
    return float((ranks - 1) * (1 - (1 - 1 / ranks) ** per_token))
