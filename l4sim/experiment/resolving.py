"""From options to everything that a run needs but a trace and a policy."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from l4sim.batch import Batch
from l4sim.cost.basis import basis_of
from l4sim.cost.build import COST_MODELS, build_cost
from l4sim.cost.communication import AllReduce, all_reduce_among
from l4sim.cost.profile import Profile, load_profile
from l4sim.engine.config import EngineConfig
from l4sim.engine.rules import engine_named
from l4sim.engine.sglang.memory import one_pool
from l4sim.errors import InputError
from l4sim.experiment.setup import GroupSetup, Setup
from l4sim.policies.views import InstanceKind
from l4sim.specs.engine_defaults import ALL_DEFAULTS, SGLANG, defaults_of
from l4sim.specs.events import Event, joins, parse_events, settle_events
from l4sim.specs.fleet import Fleet, FleetGroup, read_fleet
from l4sim.specs.front_end import load_front_end
from l4sim.specs.gpu import GPU
from l4sim.specs.link import Link, load_link
from l4sim.specs.memory import kv_blocks, layout_of
from l4sim.specs.model import Model, load_model, with_kv_cache_dtype
from l4sim.specs.option import check, described
from l4sim.specs.options import DEFAULTS, Options
from l4sim.specs.parallelism import Parallelism
from l4sim.specs.placement import Slot, place

SOLE_GROUP = "all"
"""The name of the only group where options make the fleet."""

REFERENCE_REQUESTS, REFERENCE_CONTEXT_TOKENS = 32, 4096
"""The batch by which groups' speeds are told: so many decoding requests of such a context, or as many and as long as
every group takes."""


def resolve(options: Options, *, model: Model | None = None, profile: Profile | None = None) -> Setup:
    """Load models and profiles, unless they are given, and settle what the options left open.

    Raises:
        InputError: an unknown name, a value out of range, a model that does not fit the GPU, options that the fleet
            has decided otherwise, or groups whose KV blocks cannot be told by one name.
    """
    check(options)
    # A name that stands for nothing is told before anything is simulated.
    engine_named(options.engine_rules)
    load_front_end(options.front_end)
    fleet = fleet_of(options)
    model = load_model(options.model) if model is None else model
    model = with_kv_cache_dtype(model, options.kv_cache_dtype)
    common = replace(options, **fleet.overrides())
    events = settle_events((*_events(options), *fleet.events), fleet.counts)
    groups = _with_speeds(tuple(_group(spec, common, model, profile) for spec in fleet.groups))
    if options.prefix_caching:
        _check_block_sizes(groups)
    slots = {group.spec.name: Slot(group.kind.gpu, group.kind.tensor_parallel, group.intra) for group in groups}
    names = [*(spec.name for spec in fleet.groups for _ in range(spec.count)), *(join.group for join in joins(events))]
    placement = place([slots[name] for name in names], common.gpus_per_node, load_link(common.inter_link))
    return Setup(options, model, groups, common.gpus_per_node, placement, events)


def _check_block_sizes(groups: tuple[GroupSetup, ...]) -> None:
    """Blocks are found by names that a trace's tokens have in one size; those beside states depend on parallelism."""
    sizes = {group.spec.name: group.engine.block_tokens for group in groups}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} of {tokens:,} tokens" for name, tokens in sizes.items())
        raise InputError(
            f"KV blocks of groups differ, as states fit into them ({told}): accepted is one size, or "
            "--no-prefix-caching"
        )


def fleet_of(options: Options) -> Fleet:
    """The fleet that the options name, or the one group that they make.

    Raises:
        InputError: the fleet's file is not accepted, or an option is given that the fleet has decided.
    """
    if options.fleet is None:
        return Fleet((FleetGroup(SOLE_GROUP, options.instances),))
    fleet = options.fleet if isinstance(options.fleet, Fleet) else read_fleet(Path(options.fleet))
    refuse_beside(
        fleet, [each.name for each in described(Options) if getattr(options, each.name) != getattr(DEFAULTS, each.name)]
    )
    return fleet


def profiles_of(options: Options) -> tuple[str, ...]:
    """The names of the profiles that the fleet's groups have, each once.

    Raises:
        InputError: as `fleet_of`.
    """
    return tuple(dict.fromkeys(spec.profile or options.profile for spec in fleet_of(options).groups))


def refuse_beside(fleet: Fleet, given: Collection[str]) -> None:
    """Refuse options, by their Python names, that were given beside a fleet that decides them.

    Raises:
        InputError: there is one.
    """
    settled = set(fleet.settled())
    flags = [each.flag for each in described(Options) if each.name in settled and each.name in given]
    if flags:
        raise InputError(f"{', '.join(flags)} and --fleet exclude one another: the fleet decides that")


def _events(options: Options) -> Iterator[Event]:
    given = {"fail": options.failures, "drain": options.drains, "join": options.joins}
    for kind, text in given.items():
        if text is not None:
            yield from parse_events(kind, text)


def _group(spec: FleetGroup, common: Options, model: Model, profile: Profile | None) -> GroupSetup:
    """One group's part of the setup; the fleet's fastest group makes its speed known later."""
    options = replace(common, fleet=None, instances=spec.count, **spec.overrides())
    try:
        check(options)
    except InputError as error:
        raise InputError(f"group {spec.name}: {error}") from None
    _refuse_others_options(options)
    profile = load_profile(options.profile) if profile is None else profile
    defaults = defaults_of(options.engine_rules)
    max_num_seqs, max_num_batched_tokens = defaults.batch(
        profile.gpu, options.max_num_seqs, options.max_num_batched_tokens
    )
    # Before memory: a kind of layer that has no seconds is told by its name.
    parallelism = Parallelism(options.tensor_parallel, options.attention_dp, options.expert_parallel)
    all_reduce = all_reduce_for(options, profile)
    max_model_len = _max_model_len(options, model)
    cost = build_cost(
        profile,
        model,
        tensor_parallel=options.tensor_parallel,
        attention_dp=options.attention_dp,
        expert_parallel=options.expert_parallel,
        expert_load=options.expert_load,
        expert_exchange=options.expert_exchange,
        kernel=options.kernel,
        cost_model=options.cost_model,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        all_reduce=all_reduce,
        exchange=None if options.attention_dp == 1 else all_reduce_for(options, profile, parallelism.gpus),
    )
    kernel = options.kernel or profile.default_kernel
    layout = layout_of(
        model,
        options.tensor_parallel,
        block_tokens=options.block_size,
        max_model_len=max_model_len,
        prefix_caching=options.prefix_caching,
    )
    engine = EngineConfig(
        kv_blocks=options.kv_blocks
        or kv_blocks(
            model,
            profile.gpu,
            options.tensor_parallel,
            weight_bytes=None if parallelism.attention_dp == 1 else parallelism.rank_weight_bytes(model),
            utilization=options.gpu_memory_utilization or defaults.gpu_memory_utilization,
            graphs_share=defaults.graphs_share,
            block_tokens=options.block_size,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            prefix_caching=options.prefix_caching,
        )
        * parallelism.attention_dp,
        max_model_len=max_model_len,
        # Ranks with requests of their own schedule in step: one engine with as many times the limits stands for them.
        max_num_seqs=max_num_seqs * parallelism.attention_dp,
        max_num_batched_tokens=max_num_batched_tokens * parallelism.attention_dp,
        block_tokens=layout.block_tokens,
        prefix_caching=options.prefix_caching,
        reserve_full_prompt=options.reserve_full_prompt,
        async_scheduling=options.async_scheduling,
        scheduling_policy=options.scheduling_policy,
        long_prefill_token_threshold=_longest_chunk(options, max_num_batched_tokens),
        kv_groups=layout.groups,
        scheduler_recv_interval=options.scheduler_recv_interval,
    )
    if options.engine_rules == SGLANG:
        engine = one_pool(engine)
    return GroupSetup(
        spec,
        InstanceKind(spec.name, profile.gpu.name, spec.role, parallelism.gpus, relative_speed=1.0),
        profile,
        kernel,
        engine,
        cost,
        _intra_link(options, profile.gpu),
        model.kv_bytes(REFERENCE_CONTEXT_TOKENS) // REFERENCE_CONTEXT_TOKENS,
        basis_of(
            profile,
            model,
            kernel,
            parallelism,
            all_reduce,
            expert_load=options.expert_load,
            expert_exchange=options.expert_exchange,
        )
        if options.cost_model in COST_MODELS
        else f"seconds by cost model {options.cost_model}",
        all_reduce,
    )


def _longest_chunk(options: Options, rank_tokens: int) -> int:
    """The most tokens of one prompt in a step, 0 for as many as fit: a rank's budget where there are several."""
    given = options.long_prefill_token_threshold
    return min(given or rank_tokens, rank_tokens) if options.attention_dp > 1 else given


def _refuse_others_options(options: Options) -> None:
    """Refuse options that bundled rules do not know."""
    told = {"--scheduler-recv-interval": options.scheduler_recv_interval != DEFAULTS.scheduler_recv_interval}
    if options.engine_rules == SGLANG:
        told = {
            "--long-prefill-token-threshold": options.long_prefill_token_threshold > 0,
            "--no-reserve-full-prompt": not options.reserve_full_prompt,
            "--scheduling-policy": options.scheduling_policy != DEFAULTS.scheduling_policy,
        }
    flags = [flag for flag, given in told.items() if given]
    if flags and options.engine_rules in ALL_DEFAULTS:
        raise InputError(f"{', '.join(flags)}: not known to the rules of {options.engine_rules}")


def all_reduce_for(options: Options, profile: Profile, gpus: int | None = None) -> AllReduce | None:
    """The all-reduce of an instance with such options on a profile's GPU; None for one GPU.

    Among the ranks that share a request's attention, or among so many of the instance's GPUs.

    Raises:
        InputError: no such link.
    """
    gpus = options.tensor_parallel if gpus is None else gpus
    if gpus == 1:
        return None
    link = None if options.intra_link is None else load_link(options.intra_link)
    return all_reduce_among(gpus, profile.gpu, profile.all_reduce, engine=options.engine_rules, link=link)


def _with_speeds(groups: tuple[GroupSetup, ...]) -> tuple[GroupSetup, ...]:
    """The groups with their speeds by the reference batch, relative to the fastest."""
    if len(groups) == 1:
        return groups
    requests = min(REFERENCE_REQUESTS, *(group.engine.max_num_seqs for group in groups))
    context_tokens = min(REFERENCE_CONTEXT_TOKENS, groups[0].engine.max_model_len)
    batch = Batch(np.full(requests, context_tokens), requests * context_tokens)
    seconds = [group.cost.iteration_s(batch) for group in groups]
    return tuple(
        replace(group, kind=group.kind._replace(relative_speed=min(seconds) / own_s))
        for group, own_s in zip(groups, seconds, strict=True)
    )


def _max_model_len(options: Options, model: Model) -> int:
    if options.max_model_len is not None and options.max_model_len > model.max_model_len:
        raise InputError(
            f"--max-model-len {options.max_model_len} exceeds what {model.name} was made for: {model.max_model_len}"
        )
    return options.max_model_len or model.max_model_len


def _intra_link(options: Options, gpu: GPU) -> Link:
    if options.intra_link is not None:
        return load_link(options.intra_link)
    return Link(f"{gpu.name} node link", gpu.link_bytes_per_s, load_link("nvlink").latency_s, gpu.source)
