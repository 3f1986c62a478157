"""Synthetic runs: plausible tables from a seed, without a simulator."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from pandas import DataFrame

from l4sim.policies.plan import Stage
from l4sim.policies.registry import POLICIES
from l4sim.results.run import BOUNDARIES, ITERATIONS, MIGRATIONS, REQUESTS, Run, frame_from_rows

STATUSES = ("finished", "rejected", "failed")
REASONS = ("", "longer than max_model_len", "no room")


def synthetic_run(
    policy: str,
    *,
    requests: int = 400,
    instances: int = 8,
    seed: int = 0,
    slowness: float = 1.0,
    stages: int = 0,
    refined: bool = False,
    segments_per_instance: int = 300,
    rejected: int = 0,
) -> Run:
    """Log-normal lengths under Poisson arrivals; ``slowness`` scales the latencies, ``stages`` gives a plan."""
    rng = np.random.default_rng(seed)
    arrival_s = np.sort(rng.uniform(0, 300, requests))
    prompt = np.clip(rng.lognormal(7, 1.3, requests), 8, 120_000).astype(int)
    output = np.clip(rng.lognormal(5, 1.0, requests), 1, 4_000).astype(int)
    finished = np.ones(requests, dtype=bool)
    finished[rng.choice(requests, rejected, replace=False)] = False
    queue_s = rng.exponential(0.3 * slowness, requests)
    ttft_s = queue_s + prompt * 4e-5
    tpot_s = np.where(output > 1, slowness * rng.lognormal(-3.5, 0.25, requests), np.nan)
    e2e_s = ttft_s + np.nan_to_num(tpot_s) * (output - 1)
    latencies = np.stack([queue_s, ttft_s, tpot_s, tpot_s * 3, e2e_s, e2e_s / output])
    latencies[:, ~finished] = np.nan
    first = np.where(finished, rng.integers(0, instances, requests), -1)
    rows = np.column_stack(
        [
            *(np.arange(requests), arrival_s, prompt, output, prompt // 4, *latencies),
            *(rng.poisson(0.3, requests), rng.poisson(0.05, requests), first, first, ~finished, ~finished),
        ]
    )
    words = {"request_id": [f"r{row}" for row in range(requests)], "status": STATUSES, "reason": REASONS}
    plan = _plan(stages, instances) if stages else None
    return Run(
        policy=policy,
        requests=frame_from_rows(policy, _flat(rows), REQUESTS, words),
        iterations=frame_from_rows(policy, _segments(rng, instances, segments_per_instance, slowness), ITERATIONS, {}),
        migrations=_migrations(policy, rng, plan, words["request_id"], instances, refined),
        plan=plan,
        boundaries=_boundaries(policy, plan if refined else None),
        instances=instances,
        kind=_kind(policy),
    )


def _kind(policy: str) -> str:
    return POLICIES[policy].kind if policy in POLICIES else "rival"


def _plan(stages: int, instances: int) -> tuple[Stage, ...]:
    edges = [0, *np.geomspace(2_000, 131_072, stages).astype(int).tolist()]
    groups = np.array_split(np.arange(instances), stages)
    return tuple(
        Stage(lo, hi, tuple(map(int, group))) for lo, hi, group in zip(edges[:-1], edges[1:], groups, strict=True)
    )


def _segments(rng: np.random.Generator, instances: int, count: int, slowness: float) -> array[float]:
    rows = []
    for instance in range(instances):
        iterations = rng.integers(1, 40, count)
        duration_s = iterations * 0.02 * slowness
        start_s = np.cumsum(duration_s + rng.exponential(0.1, count)) - duration_s
        stretch = 320 * slowness / (start_s[-1] + duration_s[-1])
        start_s, duration_s = start_s * stretch, duration_s * stretch
        load = np.abs(np.sin(start_s / 60 + instance)) * (1 + instance)
        decode = rng.poisson(8 * load)
        prefill = rng.poisson(0.3, count)
        context = decode * rng.lognormal(7, 0.3, count).astype(int)
        std = np.where(decode > 1, context / np.maximum(decode, 1) * rng.uniform(0.2, 1.2, count) * slowness, 0)
        used = np.minimum(context // 16, 10_000)
        rows.append(
            np.column_stack(
                [
                    *(np.full(count, instance), start_s, start_s + duration_s, iterations, decode, prefill),
                    *(prefill * 512, context, std, rng.poisson(2 * load * slowness), used, np.full(count, 10_000)),
                ]
            )
        )
    return _flat(np.concatenate(rows))


def _migrations(
    policy: str,
    rng: np.random.Generator,
    plan: tuple[Stage, ...] | None,
    ids: Sequence[str],
    instances: int,
    refined: bool,
) -> DataFrame:
    count = 3 * len(ids) // 10 if plan is not None or policy == "llumnix" else 0
    request = rng.integers(0, len(ids), count)
    start_s = np.sort(rng.uniform(0, 300, count))
    if plan is not None and len(plan) > 1:
        stage = rng.integers(0, len(plan) - 1, count)
        hi_tokens = np.array([float(plan[index].hi_tokens) for index in stage])
        moved = 1 + 0.3 * np.sin(start_s // 20 * 20 / 40 + stage) * (start_s >= 20) * refined
        context = (hi_tokens * moved).astype(int) + rng.integers(0, 20, count)
        source = np.array([plan[index].instances[0] for index in stage])
        destination = np.array([plan[index + 1].instances[-1] for index in stage])
        kind = np.zeros(count)
    else:
        context = rng.lognormal(7, 1, count).astype(int)
        source = rng.integers(0, instances, count)
        destination = (source + 1) % instances
        kind = np.ones(count)
    status = rng.choice([0, 0, 0, 0, 1, 2], count)
    rows = np.column_stack(
        [
            *(request, kind, source, destination, start_s - 0.01, start_s, start_s + 0.1, start_s + 0.12),
            *(np.full(count, 0.02), context, context * 131_072, np.full(count, 2), status, status),
        ]
    )
    words = {
        "request_id": ids,
        "kind": ("handover", "rebalance"),
        "status": ("done", "refused", "aborted"),
        "reason": ("", "no room", "finished"),
    }
    return frame_from_rows(policy, _flat(rows), MIGRATIONS, words)


def _boundaries(policy: str, plan: tuple[Stage, ...] | None) -> DataFrame:
    rows = (
        [
            (time_s, stage, plan[stage].hi_tokens * (1 + 0.3 * np.sin(time_s / 40 + stage)))
            for time_s in np.arange(20.0, 300.0, 20.0)
            for stage in range(len(plan) - 1)
        ]
        if plan
        else []
    )
    return frame_from_rows(policy, _flat(np.array(rows, dtype=float)), BOUNDARIES, {})


def _flat(rows: NDArray[np.float64]) -> array[float]:
    return array("d", np.asarray(rows, dtype=np.float64).tobytes())


REQUEST = {
    "request_id": "a",
    "arrival_s": 0.0,
    "prompt_tokens": 10,
    "output_tokens": 2,
    "cached_tokens": 0,
    "queue_s": 0.0,
    "ttft_s": 1.0,
    "tpot_s": 1.0,
    "max_itl_s": 1.0,
    "e2e_s": 2.0,
    "normalized_latency_s": 1.0,
    "migrations": 0,
    "preemptions": 0,
    "first_instance": 0,
    "last_instance": 0,
    "status": "finished",
    "reason": "",
}
UNFINISHED = dict.fromkeys(("queue_s", "ttft_s", "tpot_s", "max_itl_s", "e2e_s", "normalized_latency_s"), math.nan)
SEGMENT = {
    "instance": 0,
    "start_s": 0.0,
    "end_s": 1.0,
    "iterations": 1,
    "decode_requests": 1,
    "prefill_requests": 0,
    "prefill_tokens": 0,
    "context_tokens": 100,
    "context_std_tokens": 0.0,
    "waiting_requests": 0,
    "kv_blocks_used": 0,
    "kv_blocks_total": 100,
}
MIGRATION = {
    "request_id": "a",
    "kind": "handover",
    "source": 0,
    "destination": 1,
    "asked_s": 0.0,
    "start_s": 0.0,
    "pause_start_s": 0.1,
    "end_s": 0.2,
    "pause_s": 0.1,
    "context_tokens": 100,
    "copied_bytes": 1000,
    "stages": 1,
    "status": "done",
    "reason": "",
}

Row = dict[str, object]


def tiny_run(
    policy: str = "l4",
    *,
    requests: Sequence[Row] = (),
    iterations: Sequence[Row] = (),
    migrations: Sequence[Row] = (),
    boundaries: Sequence[Row] = (),
    plan: tuple[Stage, ...] | None = None,
    instances: int | None = None,
) -> Run:
    """A run of the given rows; each names only what differs from a default row."""
    return Run(
        policy=policy,
        requests=_table(policy, REQUESTS, REQUEST, requests),
        iterations=_table(policy, ITERATIONS, SEGMENT, iterations),
        migrations=_table(policy, MIGRATIONS, MIGRATION, migrations),
        plan=plan,
        boundaries=_table(policy, BOUNDARIES, {}, boundaries),
        instances=instances,
        kind=_kind(policy),
    )


def _table(policy: str, columns: Mapping[str, type], default: Row, rows: Sequence[Row]) -> DataFrame:
    filled = [{"policy": policy} | default | row for row in rows]
    types = {name: object if kind is str else kind for name, kind in columns.items()}
    return DataFrame(filled, columns=list(columns)).astype(types)


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Run]:
    """`tiny_run`: a run of a few rows for hand-worked answers."""
    return tiny_run


@pytest.fixture(scope="session")
def no_latencies() -> Row:
    """The latencies of a request that did not finish."""
    return dict(UNFINISHED)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """`synthetic_run`, for tests that choose its parameters."""
    return synthetic_run


@pytest.fixture(scope="session")
def runs() -> list[Run]:
    """A comparison: two plain policies, and l4 with a refined plan."""
    return [
        synthetic_run("round-robin", slowness=1.5),
        synthetic_run("llumnix", slowness=1.2),
        synthetic_run("l4", slowness=1.0, stages=4, refined=True),
    ]
