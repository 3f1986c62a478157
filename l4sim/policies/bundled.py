"""The policies that come with l4sim."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from l4sim.policies.l4.agent import LEVELS
from l4sim.policies.l4.build import build_l4
from l4sim.policies.policy import Policy, PolicyEntry, Setting
from l4sim.policies.rivals.least_harm import LeastHarm
from l4sim.policies.rivals.llumnix import LlumnixAgent, LlumnixCoordinator, LlumnixRouter
from l4sim.policies.rivals.oracle import OracleLength
from l4sim.policies.rivals.pools import TwoPools, split_pools
from l4sim.policies.rivals.sglang.bucket import Bucket
from l4sim.policies.rivals.sglang.cache_aware import CacheAware
from l4sim.policies.routers import VLLM, LeastOutstanding, PowerOfTwo, Random, RoundRobin


def _llumnix(setting: Setting) -> Policy:
    agents = tuple(LlumnixAgent(instance) for instance in range(setting.instances))
    return Policy(LlumnixRouter(setting.instances), agents, LlumnixCoordinator(), agent_for=LlumnixAgent)


def _two_pools(setting: Setting) -> Policy:
    sample = setting.sample()
    pools = split_pools(sample.prompt_tokens, sample.output_tokens, setting.instances)
    return Policy(TwoPools(pools, setting.instances))


_LEVELS = {
    "plan": "stages alone: requests go by prompt length and stay",
    "handover": "l4:plan, and requests that outgrow their stage move on",
    "refinement": "l4:handover, and boundaries between stages move at run time",
    "within": "l4:refinement, and load is balanced within a stage",
    "across": "l4:within, and load is balanced across stages: the same as l4",
    "replan": "l4, and a new plan where traffic has changed",
}
_L4_PAPER = "arXiv 2512.19179, and ours (docs/l4.md)"

_ENTRIES = (
    PolicyEntry(
        "random",
        lambda setting: Policy(Random(setting.seed)),
        kind="baseline",
        summary="any instance, uniformly",
        source="common practice",
    ),
    PolicyEntry(
        "round-robin",
        lambda setting: Policy(RoundRobin()),
        kind="baseline",
        summary="each instance in turn",
        source="common practice; SGLang gateway, round_robin",
    ),
    PolicyEntry(
        "least-outstanding",
        lambda setting: Policy(LeastOutstanding()),
        kind="baseline",
        summary="the fewest requests running and waiting",
        source="common practice",
    ),
    PolicyEntry(
        "power-of-two",
        lambda setting: Policy(PowerOfTwo(setting.seed)),
        kind="baseline",
        summary="the less loaded of two random instances",
        source="Mitzenmacher 2001; SGLang gateway, power_of_two.rs",
    ),
    PolicyEntry(
        "vllm",
        lambda setting: Policy(VLLM()),
        summary="the least 4 x waiting + running",
        source="vLLM 0.19, v1/engine/core_client.py, DPLBAsyncMPClient",
    ),
    PolicyEntry(
        "llumnix",
        _llumnix,
        summary="the most remaining steps; requests migrate for load",
        source="Llumnix v0 (Sun et al., OSDI '24)",
    ),
    PolicyEntry(
        "sglang-cache-aware",
        lambda setting: Policy(CacheAware(setting.instances, setting.prefix_id_tokens)),
        summary="where the prefix was sent before, unless load is uneven",
        source="SGLang, sgl-router, cache_aware.rs",
    ),
    PolicyEntry(
        "sglang-bucket",
        lambda setting: Policy(Bucket(setting.instances)),
        summary="one range of prompt lengths per instance, redrawn every few seconds",
        source="SGLang gateway, bucket.rs",
    ),
    PolicyEntry(
        "two-pools",
        _two_pools,
        summary="a pool for short prompts and one for long ones",
        source="ours, after common practice",
    ),
    PolicyEntry(
        "least-harm",
        lambda setting: Policy(LeastHarm()),
        summary="where it slows others down, and is slowed down by them, the least",
        source="ours",
    ),
    PolicyEntry(
        "oracle-length",
        lambda setting: Policy(OracleLength(setting.instances, setting.output_tokens())),
        kind="oracle",
        summary="where it adds least to the sum of normalized latencies, knowing every output length",
        source="ours",
    ),
    PolicyEntry(
        "l4",
        build_l4,
        kind="l4",
        summary="the stage of its length; requests move on as they grow, and for load",
        source=_L4_PAPER,
    ),
    *(
        PolicyEntry(
            f"l4:{level}",
            partial(build_l4, parts=LEVELS[level]),
            kind="l4",
            summary=summary,
            source=_L4_PAPER,
        )
        for level, summary in _LEVELS.items()
    ),
)

BUNDLED: Mapping[str, PolicyEntry] = {entry.name: entry for entry in _ENTRIES}
"""By name; `l4:plan` to `l4:across` are L4's ablations, each with one part more than the one before; `l4:replan`
has one more than `l4`."""
