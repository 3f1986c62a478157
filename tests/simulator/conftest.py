"""Small clusters and traces, and the tables that a simulation of them leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.policies.l4.agent import L4Agent
from l4sim.policies.l4.plan import Plan, Stage
from l4sim.policies.l4.router import L4Router
from l4sim.policies.routers import VLLM, LeastOutstanding, PowerOfTwo, Random, RoundRobin
from l4sim.results.run import ITERATIONS, MIGRATIONS, REQUESTS
from l4sim.simulator import Rules, SimulationResult, simulate
from l4sim.simulator.migration import MigrationRules
from l4sim.specs.placement import Placement
from l4sim.specs.link import Link
from l4sim.workload.trace import PrefixBlocks, Trace

MAX_MODEL_LEN = 400
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

    def run(self, **rules: Any) -> SimulationResult:
        router, agents = build(self.policy, self.instances, self.seed)
        return simulate(
            self.trace,
            router=router,
            agents=agents,
            cluster=Placement(self.instances, gpus_per_node=2, intra=SLOW, inter=SLOW),
            engine=self.engine,
            cost=COST,
            kv_bytes_per_token=KV_BYTES_PER_TOKEN,
            rules=Rules(migration=self.migration, **rules),
        )


def build(policy: str, instances: int, seed: int) -> tuple[Any, Any]:
    if policy == "l4":
        first = max(instances // 2, 1)
        stages = (Stage(0, 60, tuple(range(first))), Stage(60, MAX_MODEL_LEN, tuple(range(first, instances))))
        plan = Plan(stages if instances > 1 else (Stage(0, MAX_MODEL_LEN, (0,)),))
        return L4Router(plan), tuple(L4Agent(instance, plan) for instance in range(instances))
    routers = {
        "round-robin": RoundRobin,
        "least-outstanding": LeastOutstanding,
        "vllm": VLLM,
        "random": lambda: Random(seed),
        "power-of-two": lambda: PowerOfTwo(seed),
    }
    return routers[policy](), ()


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Up to 40 requests, some of them later turns of sessions, some too long to be served, some sharing prefixes."""
    count = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Moments no two of which coincide: what happens first at one moment is nobody's promise.
    arrival_s = np.sort(rng.uniform(0, draw(st.sampled_from([0.01, 0.3, 2.0])), count))
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
def cases(draw: st.DrawFn) -> Case:
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
    policy = draw(st.sampled_from(["round-robin", "least-outstanding", "vllm", "random", "power-of-two", "l4", "l4"]))
    rules = MigrationRules(
        max_concurrent=draw(st.sampled_from([1, 3])),
        last_stage_blocks=draw(st.sampled_from([0, 1, 16])),
        max_stages=draw(st.sampled_from([1, 3])),
    )
    return Case(draw(traces()), engine, draw(st.integers(1, 4)), policy, draw(st.integers(0, 3)), rules)


def table(flat: Any, columns: Any) -> dict[str, Any]:
    """Columns of a flat result by name."""
    names = list(columns)[1:]
    rows = np.frombuffer(flat, dtype=np.float64).reshape(-1, len(names)) if flat else np.empty((0, len(names)))
    return dict(zip(names, rows.T, strict=True))


def requests(result: SimulationResult) -> dict[str, Any]:
    """The request table in the trace's order."""
    columns = table(result.requests, REQUESTS)
    order = np.argsort(columns["request_id"])
    return {name: values[order] for name, values in columns.items()}


def iterations(result: SimulationResult) -> dict[str, Any]:
    return table(result.iterations, ITERATIONS)


def migrations(result: SimulationResult) -> dict[str, Any]:
    return table(result.migrations, MIGRATIONS)
