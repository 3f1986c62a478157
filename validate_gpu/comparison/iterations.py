"""Every live iteration beside the seconds that the cost model gives for the same batch, and the errors by shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.model import CostModel
from validate_gpu.live_run import Iteration, LiveResult, LiveRun

if TYPE_CHECKING:
    from pandas import DataFrame

# Enough for a mean to mean something; rarer shapes are in the file.
_LEAST_ITERATIONS = 10


class ShapeError(NamedTuple):
    """Iterations of one kind of batch."""

    kind: str
    shape: str
    iterations: int
    share_pct: float
    """Of all iterations' measured seconds."""
    measured_s: float
    """Mean."""
    predicted_s: float
    """Mean."""
    bias_pct: float
    """(predicted - measured) / measured of the sums of seconds: the error that adds up over a request's life."""
    median_pct: float
    """Median of the single iterations' errors, which a few that were held up do not move."""
    mape_pct: float
    """Mean absolute error of single iterations."""


class Slowness(NamedTuple):
    """How many times longer than at the reference speed a device took during the live runs."""

    p5: float
    """5th percentile over iterations."""
    mean: float
    """All measured seconds over the same at the reference speed."""
    p95: float


def iteration_table(live: LiveResult, cost: CostModel) -> DataFrame:
    """One row per iteration that ended within its run.

    Columns: ``policy``, ``repeat``, ``instance``, ``start_s`` and ``seconds`` (on the instance's clock), ``slowness``
    (by which measured seconds were divided), ``predicted_s``, ``decode_requests``, ``context_tokens`` and
    ``prefill_tokens`` (sums), and per request ``decode_context_tokens``, ``prefill_chunk_tokens``,
    ``prefill_cached_tokens``.
    """
    from pandas import DataFrame

    rows = [
        _row(run.run.policy, repeat, start_s, seconds, iteration, cost)
        for runs in live.runs.values()
        for repeat, run in enumerate(runs)
        for start_s, seconds, iteration in _ended(run)
    ]
    return DataFrame(rows, columns=list(_COLUMNS))


_COLUMNS = {
    "policy": "string",
    "repeat": "int64",
    "instance": "int64",
    "start_s": "float64",
    "seconds": "float64",
    "slowness": "float64",
    "predicted_s": "float64",
    "decode_requests": "int64",
    "context_tokens": "int64",
    "prefill_tokens": "int64",
    "decode_context_tokens": "list",
    "prefill_chunk_tokens": "list",
    "prefill_cached_tokens": "list",
}


def _ended(live: LiveRun) -> Iterator[tuple[float, float, Iteration]]:
    """Each iteration with its start and seconds, from the run's table; an instance's are in the same order in both."""
    times: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for instance, start_s, end_s in live.run.iterations[["instance", "start_s", "end_s"]].itertuples(index=False):
        times[instance].append((start_s, end_s - start_s))
    left = {instance: iter(own) for instance, own in times.items()}
    for iteration in live.iterations:
        for start_s, seconds in islice(left.get(iteration.instance, iter(())), 1):
            yield start_s, seconds, iteration


def _row(
    policy: str, repeat: int, start_s: float, seconds: float, iteration: Iteration, cost: CostModel
) -> tuple[Any, ...]:
    batch = iteration.batch
    contexts = batch.decode_context_tokens
    chunks = [chunk.chunk_tokens for chunk in batch.prefills]
    cached = [chunk.cached_tokens for chunk in batch.prefills]
    return (
        policy,
        repeat,
        iteration.instance,
        start_s,
        seconds,
        iteration.slowness,
        cost.iteration_s(batch),
        len(contexts),
        batch.decode_context_sum,
        sum(chunks),
        contexts,
        chunks,
        cached,
    )


def write_iterations(table: DataFrame, path: Path) -> Path:
    """Write the table as Parquet, its lists as lists."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "list": pa.list_(pa.int32())}
    columns = [pa.array(table[name], type=types[kind]) for name, kind in _COLUMNS.items()]
    pq.write_table(pa.Table.from_arrays(columns, names=list(_COLUMNS)), path, compression="zstd")
    return path


def slowness_of_runs(table: DataFrame) -> Slowness | None:
    """The slowness over all live runs; None if seconds are as they were measured."""
    slowness, seconds = table["slowness"].to_numpy(), table["seconds"].to_numpy()
    if (slowness == 1.0).all():
        return None
    low, high = np.quantile(slowness, (0.05, 0.95))
    return Slowness(float(low), float((slowness * seconds).sum() / seconds.sum()), float(high))


def errors_by_shape(table: DataFrame) -> list[ShapeError]:
    """Errors over all iterations; over those that only decode, by requests and by context tokens; over those with
    prompts, by prompt tokens.
    """
    prompts = table["prefill_tokens"].to_numpy() > 0
    everything = np.ones(len(table), dtype=np.bool_)
    groups = [
        ("all", "", everything),
        ("decodes alone", "", ~prompts),
        ("with prompts", "", prompts),
        *_buckets("decodes alone", "requests", table["decode_requests"].to_numpy(), ~prompts, base=2),
        *_buckets("decodes alone", "context tokens", table["context_tokens"].to_numpy(), ~prompts, base=4),
        *_buckets("with prompts", "prompt tokens", table["prefill_tokens"].to_numpy(), prompts, base=4),
    ]
    seconds, predicted_s = table["seconds"].to_numpy(), table["predicted_s"].to_numpy()
    return [
        _shape_error(kind, shape, seconds[mask], predicted_s[mask], seconds.sum())
        for kind, shape, mask in groups
        if mask.sum() >= (_LEAST_ITERATIONS if shape else 1)
    ]


def _shape_error(
    kind: str, shape: str, seconds: NDArray[np.float64], predicted_s: NDArray[np.float64], all_s: float
) -> ShapeError:
    return ShapeError(
        kind,
        shape,
        len(seconds),
        100 * float(seconds.sum() / all_s),
        float(seconds.mean()),
        float(predicted_s.mean()),
        100 * float(predicted_s.sum() / seconds.sum() - 1),
        100 * float(np.median(predicted_s / seconds) - 1),
        100 * float(np.abs(predicted_s / seconds - 1).mean()),
    )


def _buckets(
    kind: str, what: str, sizes: NDArray[np.int64], among: NDArray[np.bool_], *, base: int
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """A kind, a label and a mask for the sizes from each power of ``base`` up to the next."""
    largest = int(sizes[among].max(initial=0))
    low = 1
    while low <= largest:
        high = low * base
        span = f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"
        yield kind, f"{span} {what}", among & (sizes >= low) & (sizes < high)
        low = high
