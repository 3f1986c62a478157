"""How SGLang divides memory where layers do not all keep every token: pools of fixed sizes, not tables of one pool.

After `python/sglang/srt/model_executor/model_runner.py` and `server_args.py` of sgl-project/sglang 0.5: states of fixed
size have ``mamba_full_memory_ratio`` times the memory of tokens, and bound how many requests run; windows have room for
``swa_full_tokens_ratio`` times the tokens that layers of full attention have.
"""

from __future__ import annotations

from dataclasses import replace

from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError

_MAMBA_FULL_MEMORY_RATIO = 0.9
_SWA_FULL_TOKENS_RATIO = 0.8
_PAGE_TOKENS = 16
"""Tokens of a block where vLLM's would be larger: SGLang's pages are of 1 to 64."""


def one_pool(config: EngineConfig) -> EngineConfig:
    """The options of an instance whose memory is one pool of tokens, not groups of layers; perhaps with fewer places.

    Raises:
        InputError: no state fits.
    """
    if not config.kv_groups:
        return config
    blocks, places = float(config.kv_blocks), config.max_num_seqs
    states = sum(group.count for group in config.kv_groups if group.kind == "state")
    if states:
        places = min(places, int(blocks * _MAMBA_FULL_MEMORY_RATIO / (1 + _MAMBA_FULL_MEMORY_RATIO)) // states)
        if places < 1:
            raise InputError(f"{config.kv_blocks} KV blocks have no room for a request's states")
        blocks /= 1 + _MAMBA_FULL_MEMORY_RATIO
    shares = {"full": 1.0, "window": _SWA_FULL_TOKENS_RATIO, "chunk": _SWA_FULL_TOKENS_RATIO, "state": 0.0}
    per_token = sum(shares[group.kind] * group.count / group.block_tokens for group in config.kv_groups)
    tokens = blocks / per_token if per_token else float(config.max_model_len * places)
    return replace(
        config,
        kv_blocks=max(int(tokens) // _PAGE_TOKENS, 1),
        block_tokens=_PAGE_TOKENS,
        max_num_seqs=places,
        kv_groups=(),
    )
