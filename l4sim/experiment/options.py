"""From options to everything that a run needs but a trace and a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from l4sim import __version__
from l4sim.cost.build import build_cost
from l4sim.cost.model import CostModel
from l4sim.cost.profile import Profile, load_profile
from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError
from l4sim.specs.failure import Failure, parse_failures
from l4sim.specs.gpu import GPU
from l4sim.specs.link import Link, load_link
from l4sim.specs.memory import kv_blocks
from l4sim.specs.model import Model, load_model
from l4sim.specs.option import check
from l4sim.specs.options import Options
from l4sim.specs.placement import Placement


@dataclass(frozen=True, slots=True)
class Setup:
    """Options made concrete: everything that `run_policy` needs."""

    options: Options
    model: Model
    profile: Profile
    cluster: Placement
    engine: EngineConfig
    cost: CostModel
    failures: tuple[Failure, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What was resolved, enough to repeat the run."""
        return {
            "l4sim": __version__,
            "options": self.options,
            "model": self.model,
            "profile": {
                "name": self.profile.name,
                "basis": self.profile.basis,
                "sha256": self.profile.content_hash,
                "kernel": self.options.kernel or self.profile.default_kernel,
                "host_overhead": self.profile.host,
            },
            "cluster": self.cluster,
            "engine": self.engine,
        }


def resolve(options: Options, *, model: Model | None = None, profile: Profile | None = None) -> Setup:
    """Load model and profile, unless they are given, and settle what the options left open.

    Raises:
        InputError: an unknown name, a value out of range, a model that does not fit the GPU.
    """
    check(options)
    model = load_model(options.model) if model is None else model
    profile = load_profile(options.profile) if profile is None else profile
    max_num_seqs, max_num_batched_tokens = _default_batching(profile.gpu)
    max_num_seqs = options.max_num_seqs or max_num_seqs
    max_num_batched_tokens = options.max_num_batched_tokens or max(max_num_batched_tokens, max_num_seqs)
    if options.max_model_len is not None and options.max_model_len > model.max_model_len:
        raise InputError(
            f"--max-model-len {options.max_model_len} exceeds what {model.name} was made for: {model.max_model_len}"
        )
    engine = EngineConfig(
        kv_blocks=options.kv_blocks
        or kv_blocks(
            model,
            profile.gpu,
            options.tensor_parallel,
            utilization=options.gpu_memory_utilization,
            block_tokens=options.block_size,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
        ),
        max_model_len=options.max_model_len or model.max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        block_tokens=options.block_size,
        prefix_caching=options.prefix_caching,
        reserve_full_prompt=options.reserve_full_prompt,
        async_scheduling=options.async_scheduling,
    )
    cost = build_cost(
        profile,
        model,
        tensor_parallel=options.tensor_parallel,
        kernel=options.kernel,
        cost_model=options.cost_model,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
    )
    cluster = Placement(
        options.instances,
        options.tensor_parallel,
        options.gpus_per_node,
        _intra_link(options, profile.gpu),
        load_link(options.inter_link),
    )
    failures = () if options.failures is None else parse_failures(options.failures, options.instances)
    return Setup(options, model, profile, cluster, engine, cost, failures)


def _default_batching(gpu: GPU) -> tuple[int, int]:
    """vLLM's max_num_seqs and max_num_batched_tokens for serving: `EngineArgs._set_default_args` (0.19)."""
    large = gpu.memory_bytes >= 70 * 2**30 and "a100" not in gpu.name.lower()
    return (1024, 8192) if large else (256, 2048)


def _intra_link(options: Options, gpu: GPU) -> Link:
    if options.intra_link is not None:
        return load_link(options.intra_link)
    return Link(f"{gpu.name} node link", gpu.link_bytes_per_s, load_link("nvlink").latency_s)
