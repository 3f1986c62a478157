"""Small clusters and traces, and the tables that a simulation of them leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.policies.l4 import replan
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition, StageForecast
from l4sim.policies.plan import GivenPlan, Plan, Stage
from l4sim.policies.policy import InstanceFacts, Policy, Setting
from l4sim.policies.registry import POLICIES, build_policy
from l4sim.policies.views import SOLE_KIND
from l4sim.records import Table
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.simulator import Rules, SimulationResult, simulate
from l4sim.simulator.transport import Network
from l4sim.specs.link import Link
from l4sim.specs.placement import Placement
from l4sim.workload.trace import PrefixBlocks, Trace


@pytest.fixture(autouse=True, scope="module")
def _new_plans_within_small_traces():
    """Plans change as often as they can: every little while, from a few requests, for no gain.

    Of a module: hypothesis runs many examples within one test, and other rooms' tests are to find `replan` as it is.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PERIOD_S": 0.4, "PERIODS": 1, "LEAST_REQUESTS": 2, "LEAST_GAIN": -1.0}.items():
            patch.setattr(replan, name, value)
        yield


MAX_MODEL_LEN = 400
BOUNDARIES = (60, 150)
COST = AffineCost(
    base_s=0.00831,
    per_sequence_s=1.7e-4,
    per_prefill_token_s=1.3e-4,
    per_context_token_s=2.9e-6,
    per_prefill_pair_s=1e-7,
)
# So slow that copying takes several iterations, and stages follow one another.
SLOW = Link("slow", bytes_per_s=6e4, latency_s=1.3e-3)
KV_BYTES_PER_TOKEN = 100


def make_trace(
    arrival_s: Any,
    prompt_tokens: Any,
    output_tokens: Any,
    *,
    after: Any = None,
    delay_s: Any = None,
    prefix: PrefixBlocks | None = None,
) -> Trace:
    count = len(prompt_tokens)
    after = np.full(count, -1) if after is None else np.asarray(after)
    return Trace(
        "made",
        tuple(str(row) for row in range(count)),
        np.asarray(arrival_s, dtype=np.float64),
        np.asarray(prompt_tokens, dtype=np.int64),
        np.asarray(output_tokens, dtype=np.int64),
        np.where(after >= 0, 0, -1),
        after,
        np.full(count, np.nan) if delay_s is None else np.asarray(delay_s, dtype=np.float64),
        prefix,
    )


@dataclass(frozen=True)
class Case:
    """One small simulation."""

    trace: Trace
    engine: EngineConfig
    instances: int
    policy: str
    seed: int
    migration: MigrationRules
    network: Network = field(default_factory=Network)
    failures: tuple[tuple[int, float], ...] = ()

    def run(self, **rules: Any) -> SimulationResult:
        policy = build(self)
        return simulate(
            self.trace,
            router=policy.router,
            agents=policy.agents,
            coordinator=policy.coordinator,
            cluster=Placement(self.instances, gpus_per_node=2, intra=SLOW, inter=SLOW),
            engine=self.engine,
            cost=COST,
            kv_bytes_per_token=KV_BYTES_PER_TOKEN,
            failures=self.failures,
            rules=Rules(migration=self.migration, network=self.network, **rules),
        )


def build(case: Case) -> Policy:
    trace = case.trace
    engine = case.engine
    facts = InstanceFacts(
        SOLE_KIND,
        COST,
        engine.kv_blocks * engine.block_tokens,
        engine.max_num_seqs,
        engine.max_num_batched_tokens,
        MAX_MODEL_LEN,
    )
    return build_policy(
        case.policy,
        Setting(
            fleet=(facts,) * case.instances,
            seed=case.seed,
            sample=lambda: trace,
            histogram=None,
            prefix_id_tokens=16,
            follow_prefixes=trace.prefix is not None and engine.prefix_caching,
            output_tokens=trace.output_tokens.tolist,
            plans=GivenPlan(lambda: stages_of(case.instances)),
        ),
    )


def stages_of(instances: int) -> Partition:
    """Up to three stages, each with a batch of two expected per instance."""
    count = min(instances, len(BOUNDARIES) + 1)
    bounds = (0, *BOUNDARIES[: count - 1], MAX_MODEL_LEN)
    groups = [tuple(map(int, group)) for group in np.array_split(np.arange(instances), count)]
    stages = tuple(Stage(lo, hi, group) for lo, hi, group in zip(bounds, bounds[1:], groups, strict=False))
    forecast = StageForecast(0.5, 2.0, 0.01, 0.1, 1.0, 100.0, 1.0)
    return Partition(Plan(stages), (forecast,) * count, Objective(), 1.0, 0.5)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Up to 40 requests, some of them later turns of sessions, some too long to be served, some sharing prefixes."""
    count = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Moments no two of which coincide: what happens first at one moment is nobody's promise.
    arrival_s = np.sort(rng.uniform(0, draw(st.sampled_from([0.01, 0.3, 2.0, 20.0])), count))
    prompt = rng.integers(1, draw(st.sampled_from([8, 70, 250, 450])), count)
    output = rng.integers(1, draw(st.sampled_from([2, 60, 200])), count)
    after = np.full(count, -1)
    delay_s = np.full(count, np.nan)
    for row in range(1, count):
        if rng.random() < 0.25 and row - 1 not in after:
            after[row], delay_s[row] = row - 1, rng.uniform(0.001, 1.0)
            arrival_s[row] = np.nan
    prefix = None
    if draw(st.booleans()):
        shared = draw(st.integers(1, 6))
        ids, offsets = [], [0]
        for row in range(count):
            blocks = -(-int(prompt[row]) // 16)
            same = min(shared, blocks)
            family = int(rng.integers(2)) * 1_000
            ids += [family + block for block in range(same)] + [
                10_000 + 100 * row + block for block in range(same, blocks)
            ]
            offsets.append(len(ids))
        prefix = PrefixBlocks(np.array(ids), np.array(offsets), 16)
    return make_trace(arrival_s, prompt, output, after=after, delay_s=delay_s, prefix=prefix)


@st.composite
def cases(draw: st.DrawFn, *, faults: bool = False) -> Case:
    """Any policy on up to four instances; with faults, instances die and messages get lost, doubled and overtaken."""
    trace, instances = draw(traces()), draw(st.integers(1, 4))
    max_num_seqs = draw(st.sampled_from([1, 4, 16]))
    engine = EngineConfig(
        kv_blocks=draw(st.sampled_from([12, 30, 50, 90, 1000])),
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=draw(st.sampled_from([max_num_seqs, 20, 64, 512]).filter(lambda n: n >= max_num_seqs)),
        block_tokens=draw(st.sampled_from([8, 16])),
        prefix_caching=draw(st.booleans()),
        reserve_full_prompt=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
    )
    # Two stages cannot always be planned for so little: the router of two pools is drawn with the naive ones.
    drawn = [name for name in POLICIES if name != "two-pools"]
    policy = draw(st.sampled_from([*drawn, "l4", "l4", "l4:across", "l4:paper", "llumnix"]))
    if policy == "two-pools-naive":
        assume(instances > 1 and len(set(trace.prompt_tokens)) > 1)
    rules = MigrationRules(
        max_concurrent=draw(st.sampled_from([1, 3])),
        last_stage_blocks=draw(st.sampled_from([0, 1, 16])),
        max_stages=draw(st.sampled_from([1, 3])),
        slowdown=draw(st.sampled_from([0.0, 0.01, 0.5])),
    )
    case = Case(trace, engine, instances, policy, draw(st.integers(0, 3)), rules)
    if not faults:
        return case
    return replace(case, network=draw(networks()), failures=draw(deaths(instances)))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Networks that may lose messages, deliver them twice, and late."""
    return Network(
        jitter_s=draw(st.sampled_from([0.0, 0.03, 1.0])),
        loss=draw(st.sampled_from([0.0, 0.3, 1.0])),
        duplication=draw(st.sampled_from([0.0, 0.5])),
        seed=draw(st.integers(0, 3)),
    )


@st.composite
def deaths(draw: st.DrawFn, instances: int) -> tuple[tuple[int, float], ...]:
    """Some instances, none or all of them, each with the moment that it dies at."""
    dying = draw(st.lists(st.integers(0, instances - 1), unique=True, max_size=instances))
    # Odd moments: what happens first at one moment is nobody's promise.
    return tuple((instance, draw(st.floats(0.0, 3.0)) + 1e-7 * math.pi) for instance in dying)


def table(rows: Table[Any]) -> dict[str, Any]:
    """A result's columns by name; texts are their numbers."""
    shape = (-1, len(rows.columns))
    numbers = np.frombuffer(rows.numbers, dtype=np.float64).reshape(shape) if len(rows) else np.empty((0, shape[1]))
    return dict(zip(rows.columns, numbers.T, strict=True))


def texts(rows: Table[Any], column: str) -> list[str]:
    """A text column of a result."""
    return [getattr(row, column) for row in rows]


def requests(result: SimulationResult) -> dict[str, Any]:
    """The request table in the trace's order."""
    columns = table(result.requests)
    order = np.argsort(columns["request_id"])
    return {name: values[order] for name, values in columns.items()}


def iterations(result: SimulationResult) -> dict[str, Any]:
    return table(result.iterations)


def migrations(result: SimulationResult) -> dict[str, Any]:
    return table(result.migrations)
