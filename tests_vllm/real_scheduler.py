"""vLLM's own scheduler and KV cache manager in the loop of `vllm.v1.engine.core.EngineCore`, without a model."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import (
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    KVCacheSpec,
    MambaSpec,
    SlidingWindowSpec,
)
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from l4sim.engine.config import EngineConfig
from l4sim.specs.attention import GroupedQuery, VariedQuery
from l4sim.specs.kv_groups import KVGroup, KVLayout
from l4sim.specs.layers import LayerGroup
from tests.engine.vllm.reference import Iteration, Work
from tests_vllm.cases import Ask, answer

init_none_hash(sha256)

_TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "vocab_size": 4096,
    "max_position_embeddings": 1 << 20,
    "torch_dtype": "bfloat16",
}
"""A model's description, which the scheduler asks for and does not use."""


@cache
def _model_config(max_model_len: int = 1 << 20) -> ModelConfig:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(_TINY))
        return ModelConfig(model=folder, skip_tokenizer_init=True, dtype="bfloat16", max_model_len=max_model_len)


@cache
def _structured_output() -> StructuredOutputManager:
    return StructuredOutputManager(VllmConfig(model_config=_model_config(), device_config=DeviceConfig("cpu")))


def scheduler_for(config: EngineConfig) -> Scheduler:
    """vLLM's scheduler with an engine's options."""
    scheduling = SchedulerConfig(
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_model_len=1 << 20,
        enable_chunked_prefill=True,
        is_encoder_decoder=False,
        async_scheduling=config.async_scheduling,
        scheduler_reserve_full_isl=config.reserve_full_prompt,
        policy=config.scheduling_policy,
        long_prefill_token_threshold=config.long_prefill_token_threshold,
    )
    cache_config = CacheConfig(block_size=config.block_tokens, enable_prefix_caching=config.prefix_caching)
    everything = VllmConfig(
        scheduler_config=scheduling,
        model_config=_model_config(),
        cache_config=cache_config,
        device_config=DeviceConfig("cpu"),
    )
    # A build for CPUs has another block size and is never asynchronous; the scheduler is the same.
    cache_config.block_size = config.block_tokens
    scheduling.async_scheduling = config.async_scheduling
    # One block more: vLLM keeps its null block.
    cache_config.num_gpu_blocks = config.kv_blocks + 1
    if config.prefix_caching and any(group.kind == "state" for group in config.kv_groups):
        cache_config.mamba_cache_mode = "align"
    kv_groups = [KVCacheGroupSpec([f"layer {at}"], spec) for at, spec in enumerate(_specs(config))]
    sizes = [group.kv_cache_spec.block_size for group in kv_groups]
    named = math.gcd(*sizes) if config.prefix_caching else math.lcm(*sizes)
    made = AsyncScheduler if config.async_scheduling else Scheduler
    return made(
        vllm_config=everything,
        kv_cache_config=KVCacheConfig(
            num_blocks=config.kv_blocks + 1,
            kv_cache_tensors=[],
            kv_cache_groups=kv_groups,
            **({"prefix_cache_retention_interval": 0} if config.kv_groups else {}),
        ),
        structured_output_manager=_structured_output(),
        block_size=math.lcm(*sizes),
        **({"hash_block_size": named} if config.kv_groups else {}),
        log_stats=False,
    )


def _specs(config: EngineConfig) -> list[KVCacheSpec]:
    """What vLLM's layers say of themselves, one of each group."""
    shape: dict[str, Any] = {"num_kv_heads": 1, "head_size": 1, "dtype": torch.float32}
    specs: list[KVCacheSpec] = []
    for group in config.kv_groups or (KVGroup("full", config.block_tokens),):
        size = group.block_tokens
        match group.kind:
            case "full":
                spec: KVCacheSpec = FullAttentionSpec(block_size=size, **shape)
            case "window":
                spec = SlidingWindowSpec(block_size=size, sliding_window=group.window_tokens, **shape)
            case "chunk":
                spec = ChunkedLocalAttentionSpec(block_size=size, attention_chunk_size=group.window_tokens, **shape)
            case "state":
                mode = "align" if config.prefix_caching else "none"
                spec = MambaSpec(
                    block_size=size,
                    shapes=((1,),),
                    dtypes=(torch.float32,),
                    mamba_cache_mode=mode,
                    num_prefill_checkpoint_blocks=int(group.exports),
                    prefill_checkpoint_alignment=1 if group.exports else None,
                )
        specs += [spec] * group.count
    return specs


def kv_cache_config(layers: Sequence[LayerGroup], layout: KVLayout) -> tuple[VllmConfig, dict[str, KVCacheSpec]]:
    """A configuration, and what vLLM's layers say of themselves, in an order in which kinds alternate.

    Blocks beside states are as ours: how long they are depends on a model's classes.
    """
    with_states = any(group.kind == "state" for group in layout.groups)
    tokens = layout.block_tokens if with_states else 16
    cache_config = CacheConfig(block_size=16, enable_prefix_caching=True)
    config = VllmConfig(
        scheduler_config=SchedulerConfig(
            max_num_seqs=256, max_num_batched_tokens=2048, max_model_len=32768, is_encoder_decoder=False
        ),
        model_config=_model_config(32768),
        cache_config=cache_config,
        device_config=DeviceConfig("cpu"),
    )
    cache_config.block_size = tokens
    cache_config.kv_cache_layout = "LBNHC"
    cache_config.mamba_cache_mode = "align" if with_states else "none"
    config.scheduler_config.disable_hybrid_kv_cache_manager = False
    specs: dict[str, KVCacheSpec] = {}
    token_bytes = max(group.kept[0].entry_bytes for group in layers)
    for position in range(max(group.count for group in layers)):
        for number, group in enumerate(layers):
            if position < group.count:
                specs[f"layer {position}.{number}"] = _layer(group, tokens, tokens * token_bytes)
    return config, specs


def _layer(group: LayerGroup, tokens: int, page_bytes: int) -> KVCacheSpec:
    attention = group.attention
    (kept,) = group.kept
    if kept.state_bytes:
        return MambaSpec(
            block_size=tokens,
            shapes=((kept.state_bytes,),),
            dtypes=(torch.uint8,),
            page_size_padded=page_bytes,
            mamba_cache_mode="align",
        )
    assert isinstance(attention, GroupedQuery | VariedQuery)
    shape: dict[str, Any] = {
        "block_size": tokens,
        "num_kv_heads": attention.kv_heads,
        "head_size": attention.head_dim,
        "dtype": torch.bfloat16,
    }
    if kept.window_tokens is None:
        return FullAttentionSpec(**shape)
    if isinstance(attention, VariedQuery) and attention.chunked:
        return ChunkedLocalAttentionSpec(attention_chunk_size=kept.window_tokens, **shape)
    return SlidingWindowSpec(sliding_window=kept.window_tokens, **shape)


@dataclass
class Served:
    """What became of a request."""

    request: Request
    cached_tokens: int = -1
    scheduled_s: float = -1.0
    token_times_s: list[float] = field(default_factory=list)

    @property
    def preemptions(self) -> int:
        """How often it was preempted."""
        count: int = self.request.num_preemptions
        return count


@dataclass
class _InFlight:
    """An iteration that was scheduled."""

    output: SchedulerOutput
    work: tuple[Work, ...]
    samples: dict[str, bool]
    """By the requests in it: whether a token is sampled for it."""
    blocks_used: int


@dataclass
class RealEngine:
    """`EngineCore.step`, or asynchronously `step_with_batch_queue`, in time that ``iteration_s`` makes."""

    config: EngineConfig
    iteration_s: Callable[[Sequence[Work]], float]

    def run(self, asks: Sequence[Ask]) -> tuple[list[Served], list[Iteration], list[int]]:
        """Serve all requests; returns them, the iterations, and the KV blocks in use in each."""
        self.scheduler = scheduler_for(self.config)
        self.served = [Served(self._request(index, ask)) for index, ask in enumerate(asks)]
        arriving = deque(zip(asks, self.served, strict=True))
        in_flight: deque[_InFlight] = deque()
        ran: list[Iteration] = []
        used: list[int] = []
        now_s = 0.0
        while True:
            while arriving and arriving[0][0].arrival_s <= now_s:
                self.scheduler.add_request(arriving.popleft()[1].request)
            step = self._schedule(now_s)
            if step is not None:
                in_flight.append(step)
                if len(in_flight) <= self.config.async_scheduling:
                    continue
            if in_flight:
                step = in_flight.popleft()
                ran.append(Iteration(now_s, step.work))
                used.append(step.blocks_used)
                now_s += self.iteration_s(step.work)
                self._update(step, now_s)
                if in_flight:
                    in_flight[-1].blocks_used = self._blocks_used()
            elif self.scheduler.get_num_unfinished_requests():
                assert self.preempted, "requests wait, and nothing is to come that could let them in"
            elif arriving:
                now_s = arriving[0][0].arrival_s
            else:
                return self.served, ran, used

    def _request(self, index: int, ask: Ask) -> Request:
        hasher = get_request_block_hasher(self.config.block_tokens, sha256) if self.config.prefix_caching else None
        sampling = SamplingParams(max_tokens=ask.output_tokens, ignore_eos=True)
        arguments: dict[str, Any] = {"arrival_time": ask.arrival_s, "priority": ask.priority, "block_hasher": hasher}
        return Request(str(index), ask.tokens, sampling, None, **arguments)

    def _blocks_used(self) -> int:
        free: int = self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        return self.config.kv_blocks - free

    def _schedule(self, now_s: float) -> _InFlight | None:
        self.preempted = False
        if not self.scheduler.has_requests():
            return None
        before = sum(served.preemptions for served in self.served)
        output = self.scheduler.schedule()
        self.preempted = sum(served.preemptions for served in self.served) > before
        if not output.total_num_scheduled_tokens:
            return None
        work, samples = [], {}
        for name, tokens in output.num_scheduled_tokens.items():
            served = self.served[int(name)]
            computed = served.request.num_computed_tokens - tokens
            work.append(Work(int(name), tokens, computed))
            samples[name] = not served.request.is_prefill_chunk
            if served.cached_tokens < 0:
                served.cached_tokens, served.scheduled_s = computed, now_s
        return _InFlight(output, tuple(sorted(work)), samples, self._blocks_used())

    def _update(self, step: _InFlight, now_s: float) -> None:
        names = list(step.samples)
        tokens, had = [], []
        for name, samples in step.samples.items():
            generated = self.served[int(name)].request.num_output_tokens
            had.append(generated)
            tokens.append(answer(int(name), generated + 1)[-1:] if samples else [])
        self.scheduler.update_from_output(
            step.output,
            ModelRunnerOutput(
                req_ids=names,
                req_id_to_index={name: position for position, name in enumerate(names)},
                sampled_token_ids=tokens,
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[],
            ),
        )
        for name, before in zip(names, had, strict=True):
            served = self.served[int(name)]
            if served.request.num_output_tokens > before:
                served.token_times_s.append(now_s)
