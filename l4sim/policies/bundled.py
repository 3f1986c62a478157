"""The policies that come with l4sim."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from l4sim.cost.affine import fit_affine
from l4sim.policies.l4.agent import LEVELS
from l4sim.policies.l4.build import capacity_of, demand_for, plan_for, planned_as
from l4sim.policies.l4.partition import partition
from l4sim.policies.l4.variants import Part, build_all_parts, build_fenced, build_l4, build_paper
from l4sim.policies.policy import Policy, PolicyEntry, Setting
from l4sim.policies.rivals import smg
from l4sim.policies.rivals.aibrix import AIBrix
from l4sim.policies.rivals.cache_aware import VLLM_EVICTION_S, VLLM_TREE_TOKENS, CacheAware
from l4sim.policies.rivals.dynamo import Dynamo
from l4sim.policies.rivals.least_harm import LeastHarm, LeastHarmPrefix
from l4sim.policies.rivals.llm_d import LLMD
from l4sim.policies.rivals.llumnix import LlumnixAgent, LlumnixCoordinator, LlumnixRouter
from l4sim.policies.rivals.oracle import OracleLength
from l4sim.policies.rivals.pools import Pools, TwoPools, check_instances, split_pools
from l4sim.policies.rivals.preble import Preble
from l4sim.policies.rivals.production_stack import PrefixAware
from l4sim.policies.rivals.ray_serve import RayServe
from l4sim.policies.rivals.sglang import PowerOfTwoTokens
from l4sim.policies.rivals.sglang_bucket import Bucket
from l4sim.policies.rivals.vllm_dp import VLLM019, VLLM032
from l4sim.policies.routers import LeastOutstanding, PowerOfTwo, Random, RoundRobin


def _llumnix(setting: Setting) -> Policy:
    agents = tuple(LlumnixAgent(instance) for instance in range(setting.instances))
    return Policy(LlumnixRouter(setting.instances), agents, LlumnixCoordinator(), agent_for=LlumnixAgent)


def _two_pools(setting: Setting) -> Policy:
    check_instances(setting.instances)
    facts = planned_as(setting.fleet)
    made = partition(demand_for(setting), facts.cost, capacity_of(facts), setting.instances, stages=2)
    short, _ = made.plan.stages
    return Policy(TwoPools(Pools(short.hi_tokens, len(short.instances)), setting.instances))


def _two_pools_naive(setting: Setting) -> Policy:
    sample = setting.sample()
    pools = split_pools(sample.prompt_tokens, sample.output_tokens, setting.instances)
    return Policy(TwoPools(pools, setting.instances))


def _llm_d(setting: Setting) -> Policy:
    return Policy(LLMD(setting.prefix_id_tokens, planned_as(setting.fleet).kv_tokens, setting.seed))


def _llm_d_by_length(setting: Setting) -> Policy:
    made = setting.plans.plan("l4", lambda: plan_for(setting))
    ranges = {
        instance: (stage.lo_tokens, stage.hi_tokens - 1) for stage in made.plan.stages for instance in stage.instances
    }
    kv_tokens = planned_as(setting.fleet).kv_tokens
    return Policy(LLMD(setting.prefix_id_tokens, kv_tokens, setting.seed, ranges=ranges))


def _dynamo(setting: Setting) -> Policy:
    budget = planned_as(setting.fleet).max_num_batched_tokens
    return Policy(Dynamo(setting.instances, setting.prefix_id_tokens, budget, setting.seed))


def _preble(setting: Setting) -> Policy:
    facts = planned_as(setting.fleet)
    affine = fit_affine(
        facts.cost,
        max_sequences=facts.max_num_seqs,
        max_tokens=facts.max_num_batched_tokens,
        max_context_tokens=facts.max_model_len,
    )
    answer_s = float(setting.sample().output_tokens.mean()) * affine.base_s
    router = Preble(
        setting.instances,
        setting.prefix_id_tokens,
        prompt_token_s=affine.per_prefill_token_s,
        answer_s=answer_s,
    )
    return Policy(router)


_WITHOUT: Mapping[Part, str] = {
    "stages": "l4 without stages: by harm, prefixes and one's own wait alone",
    "prefixes": "l4 that does not mind what is cached",
    "tails": "l4 that minds the mean alone: a request's own wait counts as any other's",
    "moves": "l4 where who was placed for its prefix decodes there",
    "bids": "l4 without bids",
}
_LEVELS = {
    "plan": "stages as fences: requests go by prompt length and stay",
    "handover": "l4:plan, and requests that outgrow their stage move on",
    "refinement": "l4:handover, and boundaries between stages move at run time",
    "within": "l4:refinement, and load is balanced within a stage",
    "across": "l4:within, and across stages: fences that a burst spills over",
    "replan": "l4:across, and a new plan where traffic has changed",
}
_L4_PAPER = "arXiv 2512.19179, and ours (docs/l4.md)"
_L4_OURS = "ours, with the stages of arXiv 2512.19179 (docs/l4.md)"

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
        summary="the fewer requests of two random instances",
        source="Mitzenmacher 2001",
    ),
    PolicyEntry(
        "vllm-dp-0.19",
        lambda setting: Policy(VLLM019(setting.instances, setting.seed)),
        summary="the least 4 x waiting + running, of counts that are published every 100 ms",
        source="vLLM 0.19, v1/engine/core_client.py, DPLBAsyncMPClient",
    ),
    PolicyEntry(
        "vllm-dp-0.32",
        lambda setting: Policy(VLLM032(setting.instances, setting.seed)),
        summary="the fewest requests, of counts that are published every 100 ms; queues weigh more where KV is short",
        source="vLLM 0.32, v1/engine/core_client.py:1653-1691, DPLBAsyncMPClient",
    ),
    PolicyEntry(
        "llumnix",
        _llumnix,
        summary="the most remaining steps; requests migrate for load",
        source="Llumnix at its last release (Sun et al., OSDI '24), llumnix/global_scheduler/",
    ),
    PolicyEntry(
        "sglang-0.3",
        lambda setting: Policy(CacheAware(setting.instances, setting.prefix_id_tokens)),
        summary="where the prefix was sent before, else the least loaded; always that if load is uneven",
        source="SGLang's gateway 0.3.2, cache_aware.rs",
    ),
    PolicyEntry(
        "sglang-0.3:power-of-two",
        lambda setting: Policy(PowerOfTwoTokens(setting.instances, setting.seed)),
        kind="baseline",
        summary="the fewer tokens of two random instances, as polled every 30 s",
        source="SGLang's gateway 0.3.2, power_of_two.rs",
    ),
    PolicyEntry(
        "sglang-0.3:bucket",
        lambda setting: Policy(Bucket(setting.instances)),
        summary="one range of prompt lengths per instance, redrawn every few seconds",
        source="SGLang's gateway 0.3.2, bucket.rs",
    ),
    PolicyEntry(
        "vllm-router-0.1",
        lambda setting: Policy(
            CacheAware(
                setting.instances,
                setting.prefix_id_tokens,
                eviction_interval_s=VLLM_EVICTION_S,
                max_tree_tokens=VLLM_TREE_TOKENS,
            )
        ),
        summary="as sglang-0.3, with a larger memory that is cut down less often",
        source="vllm-project/router 0.1.17, src/policies/cache_aware.rs",
    ),
    PolicyEntry(
        "vllm-router-0.1:power-of-two",
        lambda setting: Policy(PowerOfTwoTokens(setting.instances, setting.seed, reports=False)),
        kind="baseline",
        summary="the fewer requests in flight of two random instances",
        source="vllm-project/router 0.1.17, src/policies/power_of_two.rs",
    ),
    PolicyEntry(
        "smg-1.13",
        lambda setting: Policy(smg.CacheAware(setting.instances, setting.prefix_id_tokens, setting.seed)),
        summary="where the prefix was sent before, unless that one is overloaded; the least expected wait of equals",
        source="lightseekorg/smg 1.13.0, model_gateway/src/policies/cache_aware.rs, and its log",
    ),
    PolicyEntry(
        "smg-1.13:power-of-two",
        lambda setting: Policy(smg.PowerOfTwo(setting.instances, setting.seed)),
        kind="baseline",
        summary="the shorter expected wait of two random instances",
        source="lightseekorg/smg 1.13.0, model_gateway/src/policies/power_of_two.rs, and its log",
    ),
    PolicyEntry(
        "smg-1.13:least-load",
        lambda setting: Policy(smg.LeastLoad(setting.instances, setting.seed)),
        kind="baseline",
        summary="the least expected wait, by requests outstanding and KV use as polled every 10 s",
        source="lightseekorg/smg 1.13.0, model_gateway/src/policies/least_load.rs, and its log",
    ),
    PolicyEntry(
        "dynamo",
        _dynamo,
        summary="the least prompt left to compute there plus blocks in use, caches known from KV events",
        source="ai-dynamo/dynamo (2026), lib/kv-router/src/scheduling/selector/default.rs",
    ),
    PolicyEntry(
        "llm-d",
        _llm_d,
        summary="the highest of 2 x queue + 2 x (1 - KV use) + 3 x prefix",
        source="llm-d/llm-d-router (2026), pkg/epp/config/loader/defaults.go",
    ),
    PolicyEntry(
        "llm-d:context-length-aware",
        _llm_d_by_length,
        summary="as llm-d, and by the ranges of lengths that instances are labelled with",
        source="llm-d/llm-d-router (2026), scorer/contextlengthaware/context_length_aware.go",
    ),
    PolicyEntry(
        "production-stack:prefixaware",
        lambda setting: Policy(PrefixAware(setting.instances, setting.prefix_id_tokens, setting.seed)),
        summary="at random among those that were sent the longest prefix, whatever their load",
        source="vllm-project/production-stack @ 008a23bd, src/vllm_router/routers/routing_logic.py",
    ),
    PolicyEntry(
        "aibrix",
        lambda setting: Policy(AIBrix(setting.instances, setting.seed)),
        summary="the longest prefix among those with not too many requests, else the fewest requests",
        source="vllm-project/aibrix (2026), pkg/plugins/gateway/algorithms/prefix_cache.go",
    ),
    PolicyEntry(
        "ray-serve",
        lambda setting: Policy(RayServe(setting.instances, setting.prefix_id_tokens, setting.seed)),
        summary="where a tenth of the prompt was sent before, else who was sent the least text",
        source="ray-project/ray (2026), ray/llm/_internal/serve/routing_policies/prefix_aware/prefix_aware_router.py",
    ),
    PolicyEntry(
        "preble",
        _preble,
        summary="where more than half of the prompt was sent before, else the least load in seconds",
        source="Preble (Srivatsa et al., ICLR '25), multi_node/global_scheduler_with_time.py",
    ),
    PolicyEntry(
        "two-pools",
        _two_pools,
        summary="a pool for short prompts and one for long ones, drawn by L4's planner",
        source="ours, after common practice",
    ),
    PolicyEntry(
        "two-pools-naive",
        _two_pools_naive,
        summary="a pool for short prompts and one for long ones, with half of the tokens each",
        source="ours, after common practice",
    ),
    PolicyEntry(
        "least-harm",
        lambda setting: Policy(LeastHarm()),
        summary="where it slows others down, and is slowed down by them, the least",
        source="ours",
    ),
    PolicyEntry(
        "least-harm-prefix",
        lambda setting: Policy(LeastHarmPrefix(setting.prefix_id_tokens, planned_as(setting.fleet).kv_tokens)),
        summary="least-harm, where a prompt is as long as what of it is not cached",
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
        summary="the least harm, with prefixes, tails and a price on leaving the stage of its length",
        source=_L4_OURS,
    ),
    *(
        PolicyEntry(f"l4:no-{part}", partial(build_l4, without=part), kind="l4", summary=summary, source=_L4_OURS)
        for part, summary in _WITHOUT.items()
    ),
    PolicyEntry(
        "l4:paper",
        build_paper,
        kind="l4",
        summary="the stage of its length; plan, boundaries and load are minded at three paces",
        source=_L4_PAPER,
    ),
    PolicyEntry(
        "l4:all-parts",
        build_all_parts,
        kind="l4",
        summary="l4's dispatch, and handover, refinement and bids as in l4:across",
        source=_L4_OURS,
    ),
    *(
        PolicyEntry(
            f"l4:{level}",
            partial(build_fenced, parts=LEVELS[level]),
            kind="l4",
            summary=summary,
            source=_L4_PAPER,
        )
        for level, summary in _LEVELS.items()
    ),
)

BUNDLED: Mapping[str, PolicyEntry] = {entry.name: entry for entry in _ENTRIES}
"""By name. `l4:no-…` are `l4` without a part; `l4:plan` to `l4:replan` have stages as fences, each with one part more
than the one before."""

RENAMED: Mapping[str, str] = {
    "vllm": "vllm-dp-0.19 (that rule, with counts as old as vLLM's) or vllm-dp-0.32 (vLLM's rule today)",
    "sglang-cache-aware": "sglang-0.3 (its successor's rule)",
    "sglang-bucket": "sglang-0.3:bucket",
}
"""Names that meant something else than what is bundled today, and what they are called now."""
