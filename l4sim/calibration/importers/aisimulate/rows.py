"""Rows of AISimulate's tables as an operator's table of ours; what cannot have been measured is left out or refused."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame, read_parquet, to_numeric

from l4sim.calibration.importers.aisimulate.operators import PREFERRED, Operator
from l4sim.cost.tables.experts import BALANCED, EXPERTS
from l4sim.cost.tables.products import GEMM
from l4sim.cost.tables.table import OperatorTable
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

BoolArray = NDArray[np.bool_]

NOT_SECONDS = "no number above 0"
TOO_FAST = "faster than the GPU's peaks"
FROM_L2 = "served by L2, taken as memory serves them"
TOO_SLOW = "far slower than more work"
TOO_FEW = "too few points of a size"
HOST_TIMED = "timed with the host's part"
NOT_BALANCED = "called balanced, and slower than uneven shares"

_MOST_TOO_FAST = 0.1
"""Where more rows than this share beat the GPU's peaks, it is not they that are wrong but the unit."""
_LEAST_KERNEL_S, _MOST_KERNEL_S = 0.5e-6, 20e-3
"""What the fastest row of an operator may take: no kernel is launched faster, no small one is slower."""
_HOST_TIMED_S = 100e-6
"""The fastest product of a format takes longer only if the host's launch was timed with it."""
_FAR, _START_S = 50.0, 20e-6
"""A product takes at most so many times what it needs at the GPU's peaks, after so long a start."""
_LARGE_S, _LEAST_UTILIZATION = 100e-6, 0.01
"""Of rows that take so long at the GPU's peaks, the best reaches this share at the least."""
_IN_L2, _BEYOND_L2 = 2.0, 4.0
"""Up to so many times its size L2 may have served a row's bytes; beyond the other it did not."""
_LEAST_POINTS = 3
"""Points of a size over its one axis: fewer do not tell how it grows."""
_LOPSIDED = 1.15
"""A balanced share of the largest batch takes no longer than an uneven one, but for noise."""
_SPIKE = 4.0
"""A row that takes so many times as long as one with more work would have been padded to it."""


class Read(NamedTuple):
    """One table, and what of it was left out."""

    table: OperatorTable
    device: str
    rows: int
    left_out: dict[str, int]
    """Rows by reason."""


def read_table(operator: Operator, path: Path, gpu: GPU, engine: str, source: str) -> Read:
    """Read a file of rows; several rows of the same point give their median.

    Raises:
        InputError: it cannot be read, a column is missing, or its times cannot be in the unit that they should be in.
    """
    raw = _raw(operator, path)
    raw = _of_preferred(operator, raw)
    rows = _named(operator, raw, path)
    seconds = to_numeric(raw[operator.latency], errors="coerce").to_numpy(np.float64) * operator.unit_s
    reasons = np.full(len(rows), "", dtype=object)
    reasons[~(np.isfinite(seconds) & (seconds > 0))] = NOT_SECONDS
    numbers = reasons == ""
    least = operator.least(rows, gpu)
    moved_s = least.moved_bytes / gpu.memory_bytes_per_s
    cached = least.moved_bytes <= _IN_L2 * gpu.l2_bytes
    least_s = np.maximum(np.where(cached, 0.0, moved_s), least.arithmetic_s)
    for kind, mask in _by_kind(operator, rows):
        _check_unit(f"{path}: {kind}", seconds[mask & numbers], least_s[mask & numbers], operator, gpu)
    reasons[numbers & (seconds < least_s)] = TOO_FAST
    if operator.name == GEMM:
        needed_s = np.maximum(moved_s, least.arithmetic_s)
        reasons[numbers & (seconds > _FAR * (_START_S + needed_s))] = TOO_SLOW
    streamed = (reasons == "") & (least.moved_bytes > _BEYOND_L2 * gpu.l2_bytes)
    # An engine reads its weights and its KV anew in every step: L2 holds none of them.
    reached_s = moved_s / np.max(moved_s[streamed] / seconds[streamed], initial=0.0) if streamed.any() else moved_s
    from_l2 = (reasons == "") & cached & (seconds < reached_s)
    seconds = np.where(from_l2, reached_s, seconds)
    for _, mask in _by_kind(operator, rows):
        if operator.name == GEMM and np.min(seconds[mask & (reasons == "")], initial=np.inf) > _HOST_TIMED_S:
            reasons[mask & (reasons == "")] = HOST_TIMED
    kept = np.asarray(reasons == "", dtype=np.bool_)
    if not kept.any():
        raise InputError(f"{path}: no row is left of {len(rows)}: {', '.join(sorted(set(reasons.tolist())))}")
    table = _gridded(operator, rows[kept].assign(seconds=seconds[kept]), engine, source)
    lopsided = _lopsided(table)
    spikes = spiking(table) & ~lopsided
    counts = {reason: int(np.sum(reasons == reason)) for reason in (NOT_SECONDS, TOO_FAST, HOST_TIMED)}
    counts[FROM_L2] = int(from_l2.sum())
    counts[NOT_BALANCED] = int(np.isfinite(table.seconds[lopsided]).sum())
    table.seconds[spikes | lopsided] = np.nan
    counts[TOO_SLOW] = int(spikes.sum()) + int(np.sum(reasons == TOO_SLOW))
    few = too_few(table)
    counts[TOO_FEW] = int(np.isfinite(table.seconds[few]).sum())
    table = table.rows(~few)
    device = ", ".join(map(str, raw["device"].unique())) if "device" in raw else gpu.name
    return Read(table, device, len(rows), {reason: count for reason, count in counts.items() if count})


def _raw(operator: Operator, path: Path) -> DataFrame:
    try:
        raw = read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    for column, value in operator.filled.items():
        if column not in raw:
            raw[column] = value
    columns = (*operator.kinds.values(), *operator.sizes.values(), *operator.axes.values(), *operator.only)
    missing = [column for column in (*columns, operator.latency) if column not in raw]
    if missing:
        raise InputError(f"{path}: column {missing[0]} is missing, found are {', '.join(raw.columns)}")
    for column, wanted in operator.only.items():
        raw = raw[raw[column] == wanted]
    if not len(raw):
        raise InputError(f"{path}: no rows")
    return raw.reset_index(drop=True)


def _of_preferred(operator: Operator, raw: DataFrame) -> DataFrame:
    """The rows of the kernel that an engine runs, where the same point was timed with several."""
    if operator.kernel is None:
        return raw
    columns = [*operator.kinds.values(), *operator.sizes.values(), *operator.axes.values()]
    kernels = raw[operator.kernel].astype(str)
    rank = kernels.map({name: _preference(name) for name in kernels.unique()})
    best = rank.groupby([raw[column] for column in columns]).transform("min")
    return raw[rank == best].reset_index(drop=True)


def _preference(kernel: str) -> int:
    return next((rank for rank, part in enumerate(PREFERRED) if part in kernel), len(PREFERRED))


def _named(operator: Operator, raw: DataFrame, path: Path) -> DataFrame:
    """The rows under our names."""
    rows = DataFrame({name: raw[column].astype(str) for name, column in operator.kinds.items()})
    for name, column in {**operator.sizes, **operator.axes}.items():
        values = to_numeric(raw[column], errors="coerce")
        wrong = ~(values >= 0) | (values % 1 != 0)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(
                f"{path}, row {row + 1}: {column} is {raw[column].tolist()[row]!r}, accepted is a whole number >= 0"
            )
        rows[name] = values.astype(np.int64) + operator.first.get(column, 0)
    return rows


def _by_kind(operator: Operator, rows: DataFrame) -> list[tuple[str, BoolArray]]:
    """What kinds of rows there are, and which rows are of each."""
    grouped = rows.groupby(list(operator.kinds), sort=True).indices
    found = []
    for kind, indices in grouped.items():
        mask = np.zeros(len(rows), dtype=np.bool_)
        mask[indices] = True
        found.append((", ".join(map(str, kind)) if isinstance(kind, tuple) else str(kind), mask))
    return found


def _check_unit(
    where: str, seconds: NDArray[np.float64], least_s: NDArray[np.float64], operator: Operator, gpu: GPU
) -> None:
    """Refuse times that cannot be in their unit.

    Raises:
        InputError: too many beat the GPU's peaks, or all are beyond what a kernel takes.
    """
    if not len(seconds):
        return
    unit = f"{operator.latency} should be in {'ms' if operator.unit_s == 1e-3 else 'us'}"
    fastest_s = float(seconds.min())
    if not _LEAST_KERNEL_S <= fastest_s <= _MOST_KERNEL_S:
        raise InputError(
            f"{where}: the fastest of {len(seconds)} rows takes {fastest_s:.3g} s, which no kernel does: {unit}"
        )
    fast = int(np.sum(seconds < least_s))
    if fast > _MOST_TOO_FAST * len(seconds):
        raise InputError(
            f"{where}: {fast} of {len(seconds)} rows are faster than {gpu.name}'s peak bandwidth and arithmetic: {unit}"
        )
    large = least_s > _LARGE_S
    if large.any() and float(np.max(least_s[large] / seconds[large])) < _LEAST_UTILIZATION:
        raise InputError(f"{where}: no row reaches {_LEAST_UTILIZATION:.0%} of what {gpu.name}'s peaks allow: {unit}")


def _gridded(operator: Operator, rows: DataFrame, engine: str, source: str) -> OperatorTable:
    """The rows as an array over their axes."""
    own = [*operator.kinds, *operator.sizes]
    medians = rows.groupby([*own, *operator.axes], sort=True)["seconds"].median().reset_index()
    numbers, kinds = medians.groupby(own, sort=True).ngroup().to_numpy(), medians.drop_duplicates(own)
    axes = {axis: np.unique(medians[axis].to_numpy(np.int64)) for axis in operator.axes}
    seconds = np.full((len(kinds), *(len(points) for points in axes.values())), np.nan)
    at = tuple(np.searchsorted(points, medians[axis]) for axis, points in axes.items())
    seconds[(numbers, *at)] = medians["seconds"]
    return OperatorTable(
        operator.name,
        {name: kinds[name].to_numpy(dtype=np.str_) for name in operator.kinds},
        {name: kinds[name].to_numpy(np.int64) for name in operator.sizes},
        axes,
        seconds,
        source,
        engine,
    )


def too_few(table: OperatorTable) -> BoolArray:
    """Rows that have not enough points, of shape ``[rows]``."""
    known = np.isfinite(table.seconds).reshape(len(table), -1).sum(axis=1)
    return np.asarray(known < (_LEAST_POINTS if len(table.axes) == 1 else 1))


def _lopsided(table: OperatorTable) -> BoolArray:
    """Rows of balanced experts whose slowest group of ranks takes longer than where shares follow a power law.

    They were not balanced: a router that chooses among groups of experts was fed so that one rank got the most. Of the
    shape of the table's seconds.
    """
    found = np.zeros(table.seconds.shape, dtype=np.bool_)
    if table.name != EXPERTS:
        return found
    keys = list(zip(table.kinds["dtype"].tolist(), *(sizes.tolist() for sizes in table.sizes.values()), strict=True))
    last, loads = table.seconds[:, -1], table.kinds["distribution"]
    uneven = {key: last[row] for row, key in enumerate(keys) if loads[row] != BALANCED}
    for row, key in enumerate(keys):
        if loads[row] == BALANCED and table.sizes["moe_ep"][row] > 1:
            found[row] = last[row] > _LOPSIDED * uneven.get(key, np.inf)
    return found


def spiking(table: OperatorTable) -> BoolArray:
    """Points that take several times as long as their neighbours allow, of the shape of the table's seconds.

    As one with more tokens, which an engine could pad to; or as one with fewer, were it of the second order in them.
    """
    found = np.zeros(table.seconds.shape, dtype=np.bool_)
    for number, points in enumerate(table.axes.values(), start=1):
        seconds = np.moveaxis(table.seconds, number, -1).reshape(-1, len(points))
        mask = np.moveaxis(found, number, -1).reshape(-1, len(points))
        for row in range(len(seconds)):
            (known,) = np.nonzero(np.isfinite(seconds[row]))
            if len(known) < 3:
                continue
            taken, size = seconds[row, known], points[known].astype(np.float64)
            allowed = np.full(len(known), np.inf)
            allowed[:-1] = taken[1:]
            grown = taken[:-1] * (size[1:] / np.maximum(size[:-1], 1)) ** 2
            allowed[-1] = grown[-1]
            mask[row, known] |= taken > _SPIKE * allowed
        shaped = mask.reshape(np.moveaxis(found, number, -1).shape)
        found |= np.moveaxis(shaped, -1, number)
    return found
