"""From options and fleets to groups of instances made concrete."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l4sim.batch import Batch
from l4sim.errors import InputError
from l4sim.experiment import instances_of, joining_of, resolve
from l4sim.results.comparison_text import heading
from l4sim.specs.attention import GroupedQuery
from l4sim.specs.engine_defaults import defaults_of
from l4sim.specs.events import Drain, Fail, Join
from l4sim.specs.fleet import Fleet, FleetGroup
from l4sim.specs.layers import LayerGroup
from l4sim.specs.memory import kv_blocks
from l4sim.specs.mlp import DenseMLP, Experts
from l4sim.specs.model import Model, load_model
from l4sim.specs.options import Options
from l4sim.specs.parallelism import Parallelism
from l4sim.specs.recurrent import GatedDeltaNet
from l4sim.workload.synth.named import synthesize_named
from l4sim.workload.trace import Trace

UNLIKE = Fleet(
    (
        FleetGroup("fast", 2, profile="h200-flashinfer"),
        FleetGroup("slow", 3, profile="h100-sxm", tensor_parallel=2, max_num_seqs=64, role="decode"),
    )
)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return synthesize_named(lengths="chat", requests=20, parameters={"rate_per_s": 4.0})


@pytest.mark.slow
def test_options_make_a_fleet_of_one_group() -> None:
    setup = resolve(Options(instances=3, tensor_parallel=2, failures="2@9s"))
    [group] = setup.groups
    assert (setup.instances, setup.gpus, setup.placement.instances) == (3, 6, 3)
    assert (group.kind.gpu, group.kind.role, group.kind.relative_speed) == ("h200-sxm", "both", 1.0)
    assert (setup.engine, setup.cost, setup.profile) == (group.engine, group.cost, group.profile)
    assert setup.events == setup.failures == (Fail(2, 9.0),)
    assert [setup.placement.node(number) for number in range(3)] == [setup.cluster.node(number) for number in range(3)]


def test_a_fleet_of_one_group_is_what_the_options_make() -> None:
    given = resolve(Options(fleet=Fleet((FleetGroup("mine", 3, profile="h100-sxm", max_num_seqs=64),))))
    plain = resolve(Options(instances=3, profile="h100-sxm", max_num_seqs=64))
    assert given.engine == plain.engine
    assert given.cluster == plain.cluster
    assert given.profile == plain.profile
    batch = Batch(np.full(8, 500), 4000)
    assert given.cost.iteration_s(batch) == plain.cost.iteration_s(batch)


def test_two_unlike_groups_have_each_their_own_engine_costs_and_place() -> None:
    setup = resolve(Options(fleet=UNLIKE, block_size=32))
    fast, slow = setup.groups
    assert (fast.engine.max_num_seqs, slow.engine.max_num_seqs) == (1024, 64)
    assert {group.engine.block_tokens for group in setup.groups} == {32}
    # An 80 GB card holds less beside the weights, two of them more.
    alone = resolve(Options(profile="h100-sxm", max_num_seqs=64, block_size=32))
    assert alone.engine.kv_blocks < fast.engine.kv_blocks < slow.engine.kv_blocks
    assert (fast.kind.gpu, slow.kind.gpu) == ("h200-sxm", "h100-sxm")
    assert (slow.kind.group, slow.kind.role, slow.kind.tensor_parallel) == ("slow", "decode", 2)
    assert [group.spec.name for group in instances_of(setup)] == ["fast", "fast", "slow", "slow", "slow"]
    assert (setup.instances, setup.gpus) == (5, 8)
    assert setup.placement.nodes == (0, 0, 1, 1, 1)


def test_speed_is_iterations_of_the_reference_batch_relative_to_the_fastest_group() -> None:
    fleet = Fleet((FleetGroup("h100", 1, profile="h100-sxm"), FleetGroup("h200", 1, profile="h200-sxm")))
    h100, h200 = resolve(Options(fleet=fleet)).groups
    batch = Batch(np.full(32, 4096), 32 * 4096)
    assert h200.kind.relative_speed == 1.0
    assert h100.kind.relative_speed == h200.cost.iteration_s(batch) / h100.cost.iteration_s(batch)
    assert 0.5 < h100.kind.relative_speed < 0.95


def test_the_reference_batch_is_one_that_every_group_takes() -> None:
    fleet = Fleet((FleetGroup("a", 1, max_num_seqs=4), FleetGroup("b", 1, profile="h100-sxm")))
    first, second = resolve(Options(fleet=fleet, max_model_len=1000)).groups
    batch = Batch(np.full(4, 1000), 4000)
    expected = first.cost.iteration_s(batch) / second.cost.iteration_s(batch)
    assert second.kind.relative_speed == expected


def test_events_of_options_and_fleet_come_together() -> None:
    fleet = Fleet(UNLIKE.groups, events=(Join("slow", 60.0),))
    setup = resolve(Options(fleet=fleet, joins="fast:1@30s", drains="5@40s", failures="0@9s"))
    assert setup.events == (Fail(0, 9.0), Drain(5, 40.0), Join("fast", 30.0), Join("slow", 60.0))
    assert [group.spec.name for group in joining_of(setup)] == ["fast", "slow"]
    # Joining instances take what their group's nodes have left.
    assert setup.placement.nodes[5:] == (0, 1)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"instances": 4}, "--instances"),
        ({"profile": "h100-sxm", "tensor_parallel": 2}, "--tensor-parallel, --profile"),
        ({"max_num_seqs": 64}, "--max-num-seqs"),
    ],
)
def test_options_that_the_fleet_decides_are_refused_by_name(options: dict[str, Any], flags: str) -> None:
    with pytest.raises(InputError, match=f"^{flags} and --fleet exclude one another: the fleet decides that$"):
        resolve(Options(fleet=UNLIKE, **options))


def test_options_that_no_group_names_hold_for_all() -> None:
    setup = resolve(Options(fleet=UNLIKE, max_num_batched_tokens=4096, cost_model="affine"))
    assert {group.engine.max_num_batched_tokens for group in setup.groups} == {4096}


@pytest.mark.parametrize(
    ("fleet", "complaint"),
    [
        (Fleet((FleetGroup("a", 1, max_num_seqs=0),)), "group a: max_num_seqs must be a whole number of at least 1"),
        (Fleet((FleetGroup("a", 1, profile="h300"),)), "no profile 'h300': accepted are"),
        (Fleet((FleetGroup("a", 1),), gpus_per_node=0), "group a: gpus_per_node must be a whole number of at least 1"),
        (Fleet((FleetGroup("a", 1),), inter_link="string"), "no link 'string'"),
        (Fleet((FleetGroup("a", 1, kernel="fa9"),)), "no kernel 'fa9'"),
        (Fleet((FleetGroup("a", 1, tensor_parallel=3),)), "tensor parallel 3 does not divide"),
    ],
)
def test_what_a_group_cannot_be_is_refused(fleet: Fleet, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        resolve(Options(fleet=fleet))


def test_blocks_that_differ_with_parallelism_cannot_be_found_by_one_name() -> None:
    """A state is shared by eight ranks, and of two KV heads each has one."""
    net = LayerGroup(3, GatedDeltaNet(16, 32, 128, 128, 4, "float32"), DenseMLP(4096))
    full = LayerGroup(1, GroupedQuery(16, 2, 256), DenseMLP(4096))
    hybrid = Model("hybrid", 2048, 32_000, 32_768, (net, full))
    fleet = Fleet((FleetGroup("one", 1, tensor_parallel=1), FleetGroup("eight", 1, tensor_parallel=8)))
    options = Options(fleet=fleet, profile="h200-sxm-vllm")
    with pytest.raises(InputError, match=r"KV blocks of groups differ.*one of 1,056 tokens, eight of 272 tokens"):
        resolve(options, model=hybrid)
    alone = resolve(replace(options, prefix_caching=False), model=hybrid)
    assert [group.engine.kv_groups[1].block_tokens for group in alone.groups] == [1056, 272]


def test_a_file_names_a_fleet(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("groups: [{name: a, count: 2}, {name: b, count: 1, profile: h100-sxm}]\n")
    for given in (path, str(path)):
        assert [group.spec.name for group in resolve(Options(fleet=given)).groups] == ["a", "b"]


def test_what_needs_equal_instances_names_the_groups() -> None:
    setup = resolve(Options(fleet=UNLIKE))
    with pytest.raises(InputError, match=r"^one engine configuration .* of groups fast, slow differ$"):
        _ = setup.engine


def test_a_run_describes_a_fleet_of_several_groups_as_a_list() -> None:
    one = resolve(Options(instances=2)).describe()
    assert {"l4sim", "options", "model", "profile", "cluster", "engine"} <= set(one)
    several = resolve(Options(fleet=UNLIKE, failures="1@5s")).describe()
    assert [group["profile"]["name"] for group in several["groups"]] == ["h200-flashinfer", "h100-sxm"]
    assert several["groups"][1]["kind"]["tensor_parallel"] == 2
    assert several["events"] == [{"event": "fail", "instance": 1, "time_s": 5.0}]


CARDS = Options(instances=1, profile="rtx-pro-6000", model="qwen3-32b", tensor_parallel=2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (replace(CARDS, engine_rules="vllm-0.19"), "all-reduce among 2 measured in vLLM 0.19.0"),
        (replace(CARDS, intra_link="28GB/s,10us"), "all-reduce among 2 estimated from link 28GB/s,10us"),
        (replace(CARDS, intra_link="pcie"), "all-reduce among 2 estimated from link pcie (14.4 GB/s, 5.88 us)"),
    ],
)
def test_a_run_says_where_its_all_reduces_come_from(trace: Trace, options: Options, told: str) -> None:
    setup = resolve(options)
    [group] = setup.groups
    assert group.basis.endswith(f"; {told}")
    assert group.all_reduce is not None
    assert setup.describe()["profile"]["all_reduce"] == {
        "measured": "measured" in told,
        "source": group.all_reduce.source,
    }
    link = options.intra_link
    said = f"{told})" if link is None else f"{told}), node link {group.intra}"
    assert heading(trace, setup).endswith(said)


def test_one_gpu_needs_no_all_reduce(trace: Trace) -> None:
    setup = resolve(Options(instances=1))
    assert setup.groups[0].all_reduce is None
    assert setup.describe()["profile"]["all_reduce"] is None
    assert heading(trace, setup).endswith("h200-sxm (profile h200-flashinfer: measured)")


def test_a_given_link_carries_all_reduces_and_kv_alike() -> None:
    batch = Batch(np.full(64, 500), 64 * 500)
    slow, fast = (resolve(replace(CARDS, intra_link=link)) for link in ("5GB/s,10us", "50GB/s,10us"))
    # 64 tokens of 5,120 values, twice a layer of 64 and once for the embedding; 64 rows of half 151,936 logits once.
    sent_bytes = 129 * 64 * 5120 * 2 + 64 * 151_936
    slower_s = slow.cost.iteration_s(batch) - fast.cost.iteration_s(batch)
    assert slower_s == pytest.approx(sent_bytes * (1 / 5e9 - 1 / 50e9))
    assert slow.groups[0].intra.bytes_per_s == 5e9


def test_seconds_of_another_packages_cost_model_are_called_its_own() -> None:
    setup = resolve(Options(instances=1, cost_model="tests.experiment.test_resolving:_Second"))
    assert setup.groups[0].basis == "seconds by cost model tests.experiment.test_resolving:_Second"


class _Second:
    """A cost model to which every iteration is a second."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def iteration_s(self, batch: Batch) -> float:
        return 1.0

    def decode_segment_s(self, batch: Batch, iterations: int) -> tuple[float, float]:
        return 1.0, 1.0


def test_a_model_without_seconds_is_told_so_even_where_it_would_not_fit() -> None:
    model = load_model("llama-3.1-70b")
    (group,) = model.groups
    experts = replace(model, groups=(replace(group, mlp=Experts(64, 2, 28_672)),))
    with pytest.raises(InputError, match=r"llama-3\.1-70b: profile h200-flashinfer has no seconds of experts"):
        resolve(Options(), model=experts)


RANKS = Options(instances=2, profile="h200-sxm-vllm", tensor_parallel=2, attention_dp=2, expert_parallel=4)


def test_ranks_with_requests_of_their_own_are_one_engine_of_as_many_times_the_limits() -> None:
    """Experts are spread over all four GPUs: a rank has more room for KV than half of the model would leave."""
    group = LayerGroup(24, GroupedQuery(64, 4, 128), Experts(128, 8, 1536))
    model = Model("mixture", 4096, 32000, 8192, (group,))
    limits = {"max_num_seqs": 32, "max_num_batched_tokens": 512}
    setup = resolve(replace(RANKS, **limits), model=model)
    engine = setup.engine
    assert (engine.max_num_seqs, engine.max_num_batched_tokens, engine.long_prefill_token_threshold) == (64, 1024, 512)
    assert (setup.gpus, setup.groups[0].kind.tensor_parallel) == (8, 4)
    weights = Parallelism(2, 2, 4).rank_weight_bytes(model)
    defaults = defaults_of(RANKS.engine_rules)
    shares = {"utilization": defaults.gpu_memory_utilization, "graphs_share": defaults.graphs_share}
    assert engine.kv_blocks == 2 * kv_blocks(model, setup.profile.gpu, 2, weight_bytes=weights, **shares, **limits)
    assert "exchange of tokens" not in setup.groups[0].basis
    with pytest.raises(InputError, match="expert parallel 3 does not divide 4 GPUs"):
        resolve(replace(RANKS, expert_parallel=3), model=model)
