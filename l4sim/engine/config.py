"""The options of one engine instance, named as vLLM names them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from l4sim.errors import InputError
from l4sim.specs.kv_groups import KVGroup
from l4sim.specs.options import DEFAULTS, SCHEDULING_POLICIES

_AT_LEAST = {"long_prefill_token_threshold": 0}


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Options of one instance.

    Raises:
        InputError: a value is out of range; the message names the option.
    """

    kv_blocks: int
    """Usable KV-cache blocks (vLLM's null block not counted)."""
    max_model_len: int
    """Longest context, prompt and output together, in tokens."""
    max_num_seqs: int = 256
    """Most requests running at once."""
    max_num_batched_tokens: int = 8192
    """Token budget of one iteration."""
    block_tokens: int = DEFAULTS.block_size
    """Tokens per KV block: what users and vLLM call the block size, with its unit."""
    prefix_caching: bool = DEFAULTS.prefix_caching
    reserve_full_prompt: bool = DEFAULTS.reserve_full_prompt
    """Admit a request only when blocks for its whole prompt are free, not just for its first chunk
    (vLLM 0.19: `scheduler_reserve_full_isl`)."""
    async_scheduling: bool = DEFAULTS.async_scheduling
    """Plan an iteration while the one before it still runs (vLLM's default since 0.14): what arrives or ends during an
    iteration is felt by the iteration after the next."""
    scheduling_policy: str = DEFAULTS.scheduling_policy
    """Whom to admit first and to preempt last: ``fcfs``, in order of arrival, or ``priority``."""
    long_prefill_token_threshold: int = DEFAULTS.long_prefill_token_threshold
    """The most prompt tokens that one of several requests computes in an iteration; 0: no such bound."""
    scheduler_recv_interval: int = DEFAULTS.scheduler_recv_interval
    """Iterations of decoding from one look at new requests to the next (SGLang)."""
    kv_groups: tuple[KVGroup, ...] = ()
    """Groups of layers that do not all keep every token, in vLLM's order; none: one, that keeps every token. Their
    blocks are multiples of ``block_tokens``."""

    @property
    def in_flight_tokens(self) -> int:
        """Tokens of all iterations that may be under way at once, at most."""
        return self.max_num_batched_tokens * (2 if self.async_scheduling else 1)

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV that fit, in contexts as long as they may be (vLLM's "GPU KV cache size")."""
        if not self.kv_groups:
            return self.kv_blocks * self.block_tokens
        longest = self.max_model_len
        blocks = sum(group.most_blocks(longest, self.in_flight_tokens, longest) for group in self.kv_groups)
        return self.kv_blocks * longest // blocks

    @property
    def tokens_per_block(self) -> int:
        """Tokens of context for each block that they take: fewer than in a block where several groups have theirs."""
        return self.block_tokens if not self.kv_groups else max(self.kv_tokens // self.kv_blocks, 1)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = _AT_LEAST.get(field.name, 1)
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise InputError(f"{field.name} must be True or False, not {value!r}")
            elif field.type == "int" and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise InputError(f"{field.name} must be a whole number of at least {least}, not {value!r}")
        if self.scheduling_policy not in SCHEDULING_POLICIES:
            accepted = " or ".join(SCHEDULING_POLICIES)
            raise InputError(f"scheduling_policy must be {accepted}, not {self.scheduling_policy!r}")
        for group in self.kv_groups:
            if group.block_tokens % self.block_tokens:
                raise InputError(f"{group}: its blocks must be multiples of block_tokens ({self.block_tokens})")
        if self.max_num_batched_tokens < self.max_num_seqs:
            # As vLLM: otherwise some running requests would get no token in an iteration.
            raise InputError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least "
                f"max_num_seqs ({self.max_num_seqs})"
            )
