"""The metrics of a run: latencies, throughput, goodput, utilisation."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError
from l4sim.records import MIGRATION_STATUSES, REQUEST_STATUSES
from l4sim.results.run import Run

LATENCIES = ("ttft_s", "tpot_s", "max_itl_s", "e2e_s", "normalized_latency_s", "queue_s")
PERCENTILES = (50, 90, 95, 99)


def summarise(run: Run) -> dict[str, Any]:
    """One policy's summary, as ``summary.json`` holds it.

    Counts of requests and migrations by status, with the reasons of those that failed; throughput of finished requests
    and of the tokens they generated; mean, percentiles (linear interpolation) and maximum of each latency in seconds
    over finished requests, NaN where there is none; ``finished_sha256``, equal for policies that finished the same
    requests. ``mean_utilisation`` is the busy share of all instances' time; ``prefix_hit_share`` is the share of
    finished requests' prompt tokens that the prefix cache held.
    """
    requests = run.requests
    finished = (requests["status"] == "finished").to_numpy()
    prompt_tokens = requests["prompt_tokens"].to_numpy()[finished].sum()
    cached_tokens = requests["cached_tokens"].to_numpy()[finished].sum()
    output_tokens = requests["output_tokens"].to_numpy()[finished].sum()
    makespan_s = _makespan_s(run)
    return {
        "policy": run.policy,
        "kind": run.kind,
        "requests": {"total": len(requests)} | _counts(run.requests["status"].to_numpy(), REQUEST_STATUSES),
        "rejected_reasons": _reasons(run.requests, "rejected"),
        "failed_reasons": _reasons(run.requests, "failed"),
        "finished_sha256": _digest(requests["request_id"].to_numpy()[finished]),
        "makespan_s": makespan_s,
        "throughput_requests_per_s": _per_second(float(finished.sum()), makespan_s),
        "throughput_tokens_per_s": _per_second(float(output_tokens), makespan_s),
        **{name: _statistics(requests[name].to_numpy()[finished]) for name in LATENCIES},
        "migrations": _counts(run.migrations["status"].to_numpy(), MIGRATION_STATUSES),
        "refused_reasons": _reasons(run.migrations, "refused"),
        "aborted_reasons": _reasons(run.migrations, "aborted"),
        "preemptions": int(requests["preemptions"].sum()),
        "mean_utilisation": _utilisation(run),
        "prefix_hit_share": float(cached_tokens / prompt_tokens) if prompt_tokens else float("nan"),
        "deaths": [
            {"instance": change.instance, "time_s": change.time_s, "requests": change.requests}
            for change in run.changes
            if change.change == "died"
        ],
        "fleet_changes": [change._asdict() for change in run.changes if change.change != "died"],
        "plan": None if run.plan is None else [stage._asdict() for stage in run.plan],
    }


def slo_attainment(run: Run, *, ttft_s: float | None = None, tpot_s: float | None = None) -> float:
    """Share of all requests that finished within the given limits; unfinished ones missed them.

    A one-token output has no TPOT and meets any limit on it. NaN for a run without requests. Raises InputError if no
    limit is given or one is not positive.
    """
    met = _met_slo(run, ttft_s, tpot_s)
    return float(met.mean()) if len(met) else float("nan")


def goodput_requests_per_s(run: Run, *, ttft_s: float | None = None, tpot_s: float | None = None) -> float:
    """Requests per second that finished within the given limits, over the makespan; raises like `slo_attainment`."""
    return _per_second(float(_met_slo(run, ttft_s, tpot_s).sum()), _makespan_s(run))


def _met_slo(run: Run, ttft_s: float | None, tpot_s: float | None) -> NDArray[np.bool_]:
    if ttft_s is None and tpot_s is None:
        raise InputError("an SLO needs a limit: ttft_s, tpot_s or both")
    met = (run.requests["status"] == "finished").to_numpy(dtype=bool)
    for name, limit_s in (("ttft_s", ttft_s), ("tpot_s", tpot_s)):
        if limit_s is None:
            continue
        if not limit_s > 0:
            raise InputError(f"SLO {name}: {limit_s} is not a positive number of seconds")
        met = met & ~(run.requests[name].to_numpy() > limit_s)
    return met


def _makespan_s(run: Run) -> float:
    finish_s = (run.requests["arrival_s"] + run.requests["e2e_s"]).to_numpy()
    finish_s = finish_s[~np.isnan(finish_s)]
    return float(finish_s.max() - _first_arrival_s(run)) if len(finish_s) else float("nan")


def _first_arrival_s(run: Run) -> float:
    return float(run.requests["arrival_s"].min())


def _per_second(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0


def _statistics(values: NDArray[np.float64]) -> dict[str, float]:
    values = values[~np.isnan(values)]
    names = ("mean", *(f"p{percent}" for percent in PERCENTILES), "max")
    if not len(values):
        return dict.fromkeys(names, float("nan"))
    figures = (values.mean(), *np.percentile(values, PERCENTILES), values.max())
    return {name: float(figure) for name, figure in zip(names, figures, strict=True)}


def _counts(statuses: NDArray[np.object_], known: tuple[str, ...]) -> dict[str, int]:
    return {status: int((statuses == status).sum()) for status in known}


def _reasons(table: Any, status: str) -> dict[str, int]:
    reasons = table["reason"].to_numpy(dtype=object)[(table["status"] == status).to_numpy()]
    names, counts = np.unique(reasons.astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _digest(request_ids: NDArray[np.object_]) -> str:
    return hashlib.sha256("\n".join(sorted(request_ids)).encode()).hexdigest()


def _utilisation(run: Run) -> float:
    segments = run.iterations
    if not len(segments):
        return 0.0
    busy_s = (segments["end_s"] - segments["start_s"]).sum()
    span_s = segments["end_s"].max() - _first_arrival_s(run)
    return float(busy_s / (run.instance_count * span_s))
