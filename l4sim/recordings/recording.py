"""What a recorded run holds, whichever tool wrote it: the engine's options and what its requests took."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from l4sim.specs.model import Model
from l4sim.workload.trace import PrefixBlocks

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The options of the engine that ran; what was not recorded is that engine's default."""

    model: str
    """As the engine was given it: a Hugging Face name or a path; empty where it is not recorded."""
    device: str | None
    """The GPU as CUDA or a profile names it; None if it is not recorded beside the run."""
    engine_rules: str
    """Of the engine's version, or of the nearest that has any here."""
    rules_note: str | None
    """Why they are not that version's own; None if they are."""
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    """None, of either: what the engine's version gives itself on the GPU."""
    max_model_len: int | None
    """None: the model's own."""
    tensor_parallel: int
    kv_blocks: int | None
    """Blocks that requests can use; None if they are not recorded."""
    block_tokens: int
    gpu_memory_utilization: float | None
    """None: that version's default."""
    prefix_caching: bool
    reserve_full_prompt: bool
    async_scheduling: bool
    scheduling_policy: str
    long_prefill_token_threshold: int
    version: str | None = None
    """vLLM's, such as 0.19.0; None if it is not recorded."""
    beside: tuple[str, ...] = ()
    """Options by which the engine did work besides, which takes no time here."""


@dataclass(frozen=True, slots=True)
class RecordedRequests:
    """Requests in order of arrival; all arrays are of shape ``[requests]``."""

    request_id: tuple[str, ...]
    arrival_s: FloatArray
    """When the engine queued the request, or its client sent it, counted from the first request's arrival."""
    prompt_tokens: IntArray
    output_tokens: IntArray
    ttft_s: FloatArray
    tpot_s: FloatArray
    """NaN for answers of one token."""
    e2e_s: FloatArray
    prefix: PrefixBlocks | None = None
    """What prompts have in common; None if nothing of it is recorded.

    Latencies of a request that was not served to its end are NaN: it is replayed, and not compared.
    """


@dataclass(frozen=True, slots=True)
class Recording:
    """One run of one engine instance, as a folder holds it."""

    folder: Path
    engine: EngineOptions
    requests: RecordedRequests
    measured_at: Literal["engine", "client"] = "engine"
    """Whose clock latencies are by: a client's include the way through the API server, and there and back."""
    model: Model | None = None
    """The model, where the recording tells its shape."""
