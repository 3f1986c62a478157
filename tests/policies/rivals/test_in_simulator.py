"""Every policy but L4 through the simulator."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from l4sim.engine.config import EngineConfig
from l4sim.policies.plan import SharedPlans
from l4sim.policies.registry import POLICIES, build_policy
from l4sim.simulator import SimulationResult, simulate
from l4sim.specs.placement import Placement
from l4sim.workload.trace import PrefixBlocks, Trace
from l4sim.workload.transform import take
from tests.policies.settings import setting
from tests.simulator.conftest import COST, KV_BYTES_PER_TOKEN, SLOW, make_trace, migrations, requests

INSTANCES = 4
ENGINE = EngineConfig(kv_blocks=120, max_model_len=1000, max_num_seqs=16, max_num_batched_tokens=256)
NAMES = [name for name in POLICIES if POLICIES[name].kind != "l4"]


def busy_trace(count: int = 150) -> Trace:
    """More than the KV caches hold at once: long and short prompts, every other one of two families' prefixes."""
    rng = np.random.default_rng(11)
    arrival_s = np.sort(rng.uniform(0, 12, count))
    prompt = np.where(rng.random(count) < 0.2, rng.integers(200, 600, count), rng.integers(5, 120, count))
    ids, offsets = [], [0]
    for row, tokens in enumerate(prompt):
        family = 10_000 * (1 + row % 4) if row % 4 < 2 else 1_000_000 + 1000 * row
        ids += [family + block for block in range(-(-int(tokens) // 16))]
        offsets.append(len(ids))
    prefix = PrefixBlocks(np.array(ids), np.array(offsets), 16)
    return make_trace(arrival_s, prompt, rng.integers(1, 300, count), prefix=prefix)


def run(name: str, trace: Trace, seed: int = 0) -> SimulationResult:
    policy = build_policy(
        name,
        setting(
            INSTANCES,
            seed=seed,
            sample=lambda: take(trace, np.arange(50)),
            output_tokens=trace.output_tokens.tolist,
            plans=SharedPlans(),
        ),
    )
    return simulate(
        trace,
        router=policy.router,
        agents=policy.agents,
        coordinator=policy.coordinator,
        cluster=Placement(INSTANCES, gpus_per_node=2, intra=SLOW, inter=SLOW),
        engine=ENGINE,
        cost=COST,
        kv_bytes_per_token=KV_BYTES_PER_TOKEN,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_requests_finish_once_and_every_instance_serves_some(name: str):
    trace = busy_trace()
    ended = requests(run(name, trace))
    np.testing.assert_array_equal(ended["request_id"], np.arange(len(trace)))
    assert (ended["status"] == 0).all()
    assert set(ended["last_instance"]) == set(range(INSTANCES))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_runs(name: str):
    trace = busy_trace(60)
    first, second = run(name, trace, seed=2), run(name, trace, seed=2)
    assert first.requests.numbers == second.requests.numbers
    assert first.migrations.numbers == second.migrations.numbers


@pytest.mark.slow
def test_llumnix_moves_requests_off_full_instances_one_at_a_time():
    moved = migrations(run("llumnix", busy_trace()))
    done = moved["status"] == 0
    assert done.sum() >= 5
    ends = zip(moved["source"], moved["destination"], moved["start_s"], moved["end_s"], strict=True)
    spans = [(*pair, start, end) for *pair, start, end in ends if start == start]
    for instance in range(INSTANCES):
        own = sorted((start, end) for source, destination, start, end in spans if instance in (source, destination))
        assert all(end <= start for (_, end), (start, _) in pairwise(own))


@pytest.mark.slow
def test_nothing_but_llumnix_migrates():
    trace = busy_trace()
    assert [name for name in NAMES if len(run(name, trace).migrations)] == ["llumnix"]


def test_two_pools_keep_long_prompts_apart():
    trace = busy_trace()
    served_by = requests(run("two-pools", trace))["first_instance"]
    order = np.argsort(trace.prompt_tokens, kind="stable")
    assert (np.diff(served_by[order] >= served_by[order[-1]].min()) >= 0).all()


@pytest.mark.slow
def test_cache_aware_finds_cached_what_round_robin_has_no_room_for():
    # 12 families with 20 blocks each in common: a cache of 120 blocks holds the 3 that are an instance's own, not all.
    count = 120
    family = np.random.default_rng(4).integers(1, 13, count)
    ids = np.concatenate([1000 * number + np.arange(20) for number in family])
    prefix = PrefixBlocks(ids, 20 * np.arange(count + 1), 16)
    trace = make_trace(0.5 * np.arange(count), np.full(count, 330), np.full(count, 5), prefix=prefix)
    cached = {name: requests(run(name, trace))["cached_tokens"].sum() for name in ("sglang-0.3", "round-robin")}
    assert cached["sglang-0.3"] == (count - 12) * 320, "all but the first of each family"
    assert cached["round-robin"] < 0.5 * cached["sglang-0.3"]
