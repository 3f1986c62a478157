"""The options of a run, each with its meaning, unit, group and default: the one place where they stand.

The command line's options and help, the docstrings of `l4sim.Cluster`, a sweep's keys and the engine's defaults come
from here. Imports nothing heavy: ``--help`` needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from l4sim.specs.engine_defaults import ALL_DEFAULTS, NEWEST
from l4sim.specs.fleet import Fleet
from l4sim.specs.option import documented, option

SCHEDULING_POLICIES = ("fcfs", "priority")
"""vLLM's names of them."""

KV_CACHE_DTYPES = ("auto", "bf16", "fp8")
"""Formats of the KV cache that may be asked for."""

TRACE = "Trace"
CLUSTER = "Cluster"
FLEET = "Fleet"
MODEL = "Model and profile"
ENGINE = "Engine"
POLICIES = "Policies"
PLAN = "Plan"
MIGRATION = "Messages and migration"
EVENTS = "Events during the run"
SIMULATION = "Simulation"
OUTPUT = "Output"

GROUPS = (POLICIES, TRACE, CLUSTER, FLEET, MODEL, ENGINE, PLAN, MIGRATION, EVENTS, SIMULATION, OUTPUT)
"""In the order in which help shows them."""


@documented
@dataclass(frozen=True, slots=True)
class TraceOptions:
    """How a trace is read, and how its requests arrive."""

    format: str = option("auto", "The trace's format; auto: recognised by its fields.", TRACE)
    time_unit: str = option(
        "auto", "Unit of times without one; auto: the format's own.", TRACE, choices=("auto", "ns", "us", "ms", "s")
    )
    tokens: str = option("estimate", "Tokenizer for traces of text alone.", TRACE)
    trace_block_size: int | None = option(
        None,
        "Tokens that an id of a prefix block in the trace stands for, where it does not say.",
        TRACE,
        unit="tokens",
        unset="told by lengths",
        at_least=1,
    )
    dejitter_s: float | None = option(
        None, "Spread arrivals within ticks of so many seconds.", TRACE, unit="s", flag="--dejitter", above=0
    )
    limit: int | None = option(None, "Only so many requests, from the first.", TRACE, unit="requests", at_least=1)
    rate_per_s: float | None = option(
        None, "Arrivals at so many requests a second.", TRACE, unit="requests/s", flag="--rate", above=0
    )
    rate_scale: float | None = option(None, "Arrivals so many times as frequent.", TRACE, unit="times", above=0)
    concurrency: int | None = option(
        None,
        "Closed loop: so many requests at a time, a next one sent when one ends (of sessions: so many sessions).",
        TRACE,
        unit="requests",
        at_least=1,
    )
    duration_s: float | None = option(
        None, "Only requests that arrive in the first so many seconds.", TRACE, unit="s", flag="--duration", above=0
    )


EXPERT_LOADS = ("uniform", "balanced", "power_law_1.01", "power_law_1.2")
"""Which experts tokens go to: any with the same chance, to all alike, or by a power law of such an exponent."""


EXPERT_EXCHANGES = ("all-gather", "deepep")
"""Hidden states of all ranks are gathered and sums scattered, or each token goes to the ranks of its experts alone."""


@documented
@dataclass(frozen=True, slots=True)
class Options:
    """Everything that a run depends on but the trace and the policy.

    None leaves a choice to the profile, the model or vLLM's defaults for such a GPU; `l4sim.experiment.resolve` makes
    it.
    """

    instances: int = option(16, "Instances of the model.", CLUSTER, unit="N", at_least=1)
    tensor_parallel: int = option(
        1, "GPUs per instance, or of each of its attention's data-parallel ranks.", CLUSTER, unit="GPUs", at_least=1
    )
    attention_dp: int = option(
        1,
        "Ranks of an instance with requests of their own (vLLM's data parallelism); experts are on all their GPUs.",
        CLUSTER,
        unit="ranks",
        at_least=1,
    )
    expert_parallel: int = option(
        1,
        "Groups of an instance's GPUs that hold different experts; within one every GPU holds a slice of each.",
        CLUSTER,
        unit="groups",
        at_least=1,
    )
    gpus_per_node: int = option(8, "GPUs that share a node.", CLUSTER, unit="GPUs", at_least=1)
    intra_link: str | None = option(
        None,
        "Link between GPUs of one node, for KV and all-reduces: a name, or as 28GB/s,10us.",
        CLUSTER,
        unit="link",
        unset="the GPU's own",
    )
    inter_link: str = option("network-400g", "Link between GPUs of different nodes.", CLUSTER, unit="link")

    fleet: Fleet | Path | str | None = option(
        None,
        "Groups of unlike instances, which then decide --instances and whatever else they name.",
        FLEET,
        unit="FILE.yaml",
    )

    model: str = option("llama-3.1-8b", "A bundled name, or the path of a config.json.", MODEL)
    profile: str = option("h200-flashinfer", "The GPU's measured costs: a bundled name or a folder.", MODEL)
    kernel: str | None = option(None, "Attention kernel, one of the profile's.", MODEL, unset="the profile's")
    cost_model: str = option(
        "tile",
        "How attention sees a batch: tile, mean, sum, skew, or affine; or a cost model of another package, or "
        "MODULE:ATTRIBUTE.",
        MODEL,
    )

    expert_load: str = option(
        "uniform",
        "Which experts tokens go to: any with the same chance, to all alike, or by a power law of shares.",
        MODEL,
        choices=EXPERT_LOADS,
    )
    expert_exchange: str = option(
        "all-gather",
        "How ranks with requests of their own send tokens to experts: vLLM's default, or DeepEP's kernels.",
        MODEL,
        choices=EXPERT_EXCHANGES,
    )

    engine_rules: str = option(
        NEWEST,
        f"Whose scheduling rules and defaults instances have: {', '.join(ALL_DEFAULTS)}, or another package's, or "
        "MODULE:ATTRIBUTE.",
        ENGINE,
    )
    gpu_memory_utilization: float | None = option(
        None,
        "Share of the GPU's memory that the engine may fill.",
        ENGINE,
        unit="share",
        unset=" or ".join(f"{each.gpu_memory_utilization} ({rules})" for rules, each in ALL_DEFAULTS.items()),
        above=0,
        at_most=1,
    )
    max_model_len: int | None = option(
        None, "Longest context, prompt and output together.", ENGINE, unit="tokens", unset="the model's", at_least=1
    )
    max_num_seqs: int | None = option(
        None, "Most requests running at once.", ENGINE, unit="requests", unset="vLLM's for the GPU", at_least=1
    )
    max_num_batched_tokens: int | None = option(
        None, "Token budget of one iteration.", ENGINE, unit="tokens", unset="vLLM's for the GPU", at_least=1
    )
    block_size: int = option(16, "Tokens per KV block.", ENGINE, unit="tokens", at_least=1)
    kv_blocks: int | None = option(
        None, "KV blocks of one instance.", ENGINE, unit="blocks", unset="what fits the GPU", at_least=1
    )
    kv_cache_dtype: str = option(
        "auto",
        "Number format of the KV cache; auto: what the checkpoint says, else the model's.",
        ENGINE,
        choices=KV_CACHE_DTYPES,
    )
    prefix_caching: bool = option(True, "Keep the KV blocks of prompts for later requests that begin alike.", ENGINE)
    reserve_full_prompt: bool = option(
        True, "Admit a request only when blocks for its whole prompt are free, not just for its first chunk.", ENGINE
    )
    async_scheduling: bool = option(True, "Plan an iteration while the one before it still runs.", ENGINE)
    scheduling_policy: str = option(
        "fcfs",
        "Whom to admit first and to preempt last: by arrival, or by the trace's priority, the lowest first.",
        ENGINE,
        choices=SCHEDULING_POLICIES,
    )
    long_prefill_token_threshold: int = option(
        0,
        "The most prompt tokens that one of several requests computes in an iteration; 0: as many as fit.",
        ENGINE,
        unit="tokens",
        at_least=0,
    )
    scheduler_recv_interval: int = option(
        1,
        "Iterations of decoding from one look at new requests to the next (SGLang's rules alone).",
        ENGINE,
        unit="iterations",
        at_least=1,
    )

    plan_sample: float = option(
        0.2, "Share of the trace, from its beginning, that a plan may know.", PLAN, unit="share", above=0, at_most=1
    )
    prefix_affinity: bool = option(True, "Let l4 weigh where a prefix lives against where a length belongs.", PLAN)
    plan_histogram: Path | None = option(
        None,
        "What a plan may know instead: rows of prompt_tokens, output_tokens, requests_per_s.",
        PLAN,
        unit="FILE.csv",
    )

    view_age_s: float | None = option(
        None,
        "Seconds from one publication of the instances' counts to the next, for every policy; 0: live counts.",
        POLICIES,
        unit="s",
        flag="--view-age",
        unset="each policy's own",
        at_least=0,
    )

    message_latency_s: float = option(
        0.5e-3, "One way, between agents.", MIGRATION, unit="s", flag="--message-latency", at_least=0
    )
    message_jitter_s: float = option(
        0.0,
        "Added to the latency, uniformly from 0 to this: messages may overtake one another.",
        MIGRATION,
        unit="s",
        flag="--message-jitter",
        at_least=0,
    )
    message_loss: float = option(
        0.0, "Probability that a message is lost.", MIGRATION, unit="share", at_least=0, at_most=1
    )
    message_duplication: float = option(
        0.0, "Probability that a message arrives twice.", MIGRATION, unit="share", at_least=0, at_most=1
    )
    migration: str = option(
        "staged-copy",
        "How a request moves: staged-copy (decoding while its KV is copied), stop-and-copy, or recompute.",
        MIGRATION,
    )
    max_concurrent_migrations: int = option(
        3, "Transfers that one instance takes part in at a time (L4's paper).", MIGRATION, unit="N", at_least=0
    )
    migration_last_stage_blocks: int = option(
        16, "KV blocks left to copy at which the request is paused (Llumnix).", MIGRATION, unit="blocks", at_least=0
    )
    migration_max_stages: int = option(
        3, "Copying stages before the pause; more abort the migration (Llumnix).", MIGRATION, unit="N", at_least=0
    )
    migration_slowdown: float = option(
        0.01,
        "Share by which iterations of an instance that takes part in a migration take longer (Llumnix).",
        MIGRATION,
        unit="share",
        at_least=0,
    )

    failures: str | None = option(
        None, "Instance I dies after S seconds, as in 3@120s.", EVENTS, unit="I@S", flag="--fail", repeated=True
    )
    drains: str | None = option(
        None,
        "Instance I takes nothing new after S seconds, and leaves when it is empty.",
        EVENTS,
        unit="I@S",
        flag="--drain",
        repeated=True,
    )
    joins: str | None = option(
        None,
        "N instances more, of a group of the fleet's, are ready after S seconds, as in 2@300s.",
        EVENTS,
        unit="[GROUP:]N@S",
        flag="--join",
        repeated=True,
    )
    failure_detection_s: float = option(
        1.0,
        "From a death to the moment when agents know, and the requests lost start over elsewhere.",
        EVENTS,
        unit="s",
        flag="--failure-detection",
        at_least=0,
    )

    front_end: str = option(
        "off",
        "API servers before the engines: off, vllm (as fitted to clients' measurements), or seconds per request, per "
        "prompt token and per streamed token, as in 5ms,1us,60us.",
        SIMULATION,
        unit="NAME",
    )
    fast_forward: bool = option(True, "Skip iterations in which nothing can change.", SIMULATION)
    seed: int = option(0, "Of everything that is drawn at random.", SIMULATION, unit="N", at_least=0)


DEFAULTS = Options()
"""Every option at its default."""
TRACE_DEFAULTS = TraceOptions()
"""Every option of a trace at its default."""
