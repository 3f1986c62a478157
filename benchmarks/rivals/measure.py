"""One case under policies: simulated, or read from where an earlier call left it."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.rivals.cases import Case
from benchmarks.rivals.traffic import Recorded, at_load
from l4sim.batch import Batch
from l4sim.code_hash import sources_hash
from l4sim.cost.model import CostModel
from l4sim.errors import InputError
from l4sim.experiment import Options, Setup, resolve, run_built
from l4sim.experiment.planning import sample_size, setting_for
from l4sim.policies.plan import SharedPlans
from l4sim.policies.policy import Setting
from l4sim.policies.registry import build_policy, policy_entry
from l4sim.results.run import BOUNDARIES, ITERATIONS, MIGRATIONS, Run, frame_from_rows
from l4sim.workload.trace import Trace
from l4sim.workload.transform import pace, take

# By how much a policy's seconds are off where they are to be wrong.
COST_ERROR = 0.2
# So many stretches behind the one that is served lies the day that a plan is made from.
OTHER_DAY = 15


@dataclass(frozen=True)
class Measured:
    """What policies did with one trace of a case."""

    group: str
    """Attention kernel, and whether prefixes are cached."""
    runs: dict[str, Run]
    """By policy; of each the requests alone."""
    errors: dict[str, str]
    """Why a policy could not run."""


def missing(case: Case) -> str:
    """What a case needs and is not there; empty if nothing."""
    if isinstance(case.traffic, Recorded) and not case.traffic.path.exists():
        return f"no file {case.traffic.path.name}"
    unknown = set(case.options) - {field.name for field in fields(Options)}
    return f"no option {', '.join(sorted(unknown))}" if unknown else ""


def measure(case: Case, seed: int, policies: Sequence[str], store: Path) -> Measured:
    """Simulate one trace of a case under each policy, but for what ``store`` has; that is written as it is found.

    A run is stored under the hash of its trace, its settings, what its policy is told, and the simulator's code.
    """
    setup, trace = world(case, seed)
    caching = "prefixes" if setup.options.prefix_caching and trace.prefix is not None else "no prefixes"
    measured = Measured(f"{setup.groups[0].kernel}, {caching}", {}, {})
    plans = SharedPlans()
    for policy in policies:
        path = store / f"{_key(case, seed, trace, policy)}.parquet"
        if not path.exists():
            try:
                built = build_policy(policy, misinformed(setting_for(trace, setup, plans), case, seed, setup, trace))
                run = run_built(policy, built, trace, setup)
            except InputError as error:
                measured.errors[policy] = str(error)
                continue
            store.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            run.requests.to_parquet(partial, index=False)
            partial.rename(path)
        measured.runs[policy] = _stored_run(policy, pd.read_parquet(path))
    return measured


def measure_wanted(wanted: tuple[Case, int], policies: Sequence[str], store: Path) -> Measured:
    """`measure` of a case and a seed; here because processes that are spawned do not find what is in ``__main__``."""
    return measure(*wanted, policies, store)


def world(case: Case, seed: int) -> tuple[Setup, Trace]:
    """The cluster of a case, and its trace at the case's load.

    Raises:
        InputError: there is no such stretch of a recorded trace.
    """
    options = Options(**case.options)
    trace = case.traffic.trace(seed)
    if len(trace) < 2:
        raise InputError(f"{case.name}: the trace has no stretch {seed}")
    trace = at_load(trace, resolve(options), case.load)
    if case.fail_at is not None:
        options = replace(options, failures=f"1@{case.fail_at * float(np.nanmax(trace.arrival_s)):.3f}s")
    return resolve(options), trace


def misinformed(setting: Setting, case: Case, seed: int, setup: Setup, trace: Trace) -> Setting:
    """What the policies of a case are told: the truth, or what it says is wrong."""
    if case.knowledge == "another day":
        raw, other = case.traffic.trace(seed), case.traffic.trace(seed + OTHER_DAY)
        # As many times as fast as what is served, so that its own rate is another, as it was.
        other = pace(other, rate_scale=float(np.nanmax(raw.arrival_s) / np.nanmax(trace.arrival_s)))
        return replace(setting, sample=lambda: take(other, np.arange(min(len(other), sample_size(trace, setup)))))
    if case.knowledge:
        error = COST_ERROR if case.knowledge == "prompts dear" else -COST_ERROR
        told = tuple(replace(facts, cost=WrongCost(facts.cost, error)) for facts in setting.fleet)
        return replace(setting, fleet=told)
    return setting


class WrongCost:
    """A cost model whose prompts take a share more, or less, and whose decoding takes as much less, or more."""

    def __init__(self, cost: CostModel, error: float) -> None:
        self._cost, self._error = cost, error

    def iteration_s(self, batch: Batch) -> float:
        """Seconds as a policy takes them to be."""
        whole_s = self._cost.iteration_s(batch)
        if not len(batch.decode_context_tokens):
            return (1 + self._error) * whole_s
        decode_s = self._cost.iteration_s(batch._replace(prefills=())) if batch.prefills else whole_s
        return (1 - self._error) * decode_s + (1 + self._error) * (whole_s - decode_s)

    def decode_segment_s(self, batch: Batch, iterations: int) -> tuple[float, float]:
        """Those of decode-only iterations."""
        first_s, last_s = self._cost.decode_segment_s(batch, iterations)
        return (1 - self._error) * first_s, (1 - self._error) * last_s


def _key(case: Case, seed: int, trace: Trace, policy: str) -> str:
    described = {
        "case": {name: value for name, value in asdict(case).items() if name not in ("name", "seeds")},
        "seed": seed,
        "trace": trace.content_hash,
        "policy": policy,
        "code": _code(),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:32]


@cache
def _code() -> str:
    return sources_hash("l4sim")


def _stored_run(policy: str, requests: pd.DataFrame) -> Run:
    iterations, migrations, boundaries = (
        frame_from_rows(policy, array("d"), columns, dict.fromkeys(columns, ()))
        for columns in (ITERATIONS, MIGRATIONS, BOUNDARIES)
    )
    kind = policy_entry(policy).kind
    return Run(policy, requests, iterations, migrations, plan=None, boundaries=boundaries, kind=kind)
