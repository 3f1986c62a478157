"""What `vllm serve` and SGLang give an engine that is told nothing, by version and GPU.

Imports nothing heavy: options are made from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from l4sim.specs.gpu import GPU

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class BatchTier:
    """Limits of a batch on GPUs of so much memory."""

    memory_gib: int
    """The least memory."""
    max_num_seqs: int
    max_num_batched_tokens: int
    never_on: str = "none"
    """A GPU that is not counted among them, by a part of its name."""


@dataclass(frozen=True, slots=True)
class EngineDefaults:
    """One version's defaults that are not the same in all versions."""

    gpu_memory_utilization: float
    """`CacheConfig.gpu_memory_utilization`."""
    graphs_share: float
    """What of that is no KV cache because CUDA graphs will need it, a share of the GPU's memory."""
    tiers: tuple[BatchTier, ...]
    """`EngineArgs.get_batch_defaults` for the API server, most memory first. (`LLM` in Python has twice to four times
    as many tokens; an `AsyncLLM` that nothing is said to has 2,048, and 128 requests.)"""

    def batch(self, gpu: GPU, max_num_seqs: int | None, max_num_batched_tokens: int | None) -> tuple[int, int]:
        """``max_num_seqs`` and ``max_num_batched_tokens``, where they are not given the defaults on such a GPU."""
        tier = next(
            tier
            for tier in self.tiers
            if gpu.memory_bytes >= tier.memory_gib * _GIB and tier.never_on not in gpu.name.lower()
        )
        tokens = max_num_batched_tokens or max(tier.max_num_batched_tokens, max_num_seqs or 0)
        return max_num_seqs or min(tier.max_num_seqs, tokens), tokens


_SMALL = BatchTier(0, 256, 2048)
_LARGE = BatchTier(70, 1024, 8192, never_on="a100")

ENGINE_DEFAULTS: dict[str, EngineDefaults] = {
    "vllm-0.19": EngineDefaults(0.9, 0.0, (_LARGE, _SMALL)),
    # The default utilisation rose by 0.02 when graphs began to count: by vLLM's own estimate of what they take. We have
    # no measurement.
    "vllm-0.32": EngineDefaults(0.92, 0.02, (BatchTier(160, 1024, 16384), _LARGE, _SMALL)),
}
"""By the engine rules of that version, from the oldest to the newest."""

NEWEST = next(reversed(ENGINE_DEFAULTS))

SGLANG = "sglang-0.5"

ALL_DEFAULTS = {
    **ENGINE_DEFAULTS,
    # `ServerArgs._handle_gpu_memory_settings`: chunks of prompts by the GPU's memory; weights and KV together have what
    # 512 MB, 1.5 MB for each token of a chunk, 2 MB for each request in CUDA graphs and 128 MB for each rank leave:
    # 0.835 of an H100. What is counted beside KV here anyway is added back. Requests are bounded by KV alone.
    SGLANG: EngineDefaults(
        0.86, 0.0, (BatchTier(160, 2048, 16384), BatchTier(60, 2048, 8192), BatchTier(0, 2048, 2048))
    ),
}
"""Those of all engines whose rules are bundled."""

_VERSION = re.compile(r"v?(\d+)\.(\d+)")


def defaults_of(engine_rules: str) -> EngineDefaults:
    """The defaults of an engine with these rules; of rules that are not vLLM's those of the newest vLLM."""
    return ALL_DEFAULTS.get(engine_rules, ENGINE_DEFAULTS[NEWEST])


def nearest_rules(version: str | None) -> tuple[str, str | None]:
    """The bundled rules nearest to a version of vLLM, and why they are not its own; None where they are.

    Of two that are as near it is the older; of no version, or one without numbers, the newest.
    """
    found = _VERSION.match(version or "")
    if found is None:
        said = f"vLLM's version is {version!r}" if version else "vLLM's version is not recorded"
        return NEWEST, f"{said}: the rules and defaults are {NEWEST}'s"
    own = f"vllm-{found[1]}.{found[2]}"
    if own in ENGINE_DEFAULTS:
        return own, None
    nearest = min(ENGINE_DEFAULTS, key=lambda rules: abs(_number(own) - _number(rules)))
    return nearest, f"vLLM {version} has no rules of its own here: those of {nearest} are the nearest"


def _number(rules: str) -> int:
    major, minor = rules.removeprefix("vllm-").split(".")
    return 1000 * int(major) + int(minor)
