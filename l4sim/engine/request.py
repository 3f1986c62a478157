"""A request on its way through the cluster."""

from __future__ import annotations

import math

NO_SLOT = -1


class Request:
    """The runtime state of one request; one object lives from arrival to end, whichever instances serve it.

    ``output_tokens`` is the answer's true length, which the trace forces. It is the engine's alone: policies never see
    this class.
    """

    __slots__ = (
        "arrival_s",
        "base_tokens",
        "cached_tokens",
        "epoch",
        "finish_at",
        "first_batch_tokens",
        "first_instance",
        "first_token_s",
        "generated_tokens",
        "held_ids",
        "index",
        "last_instance",
        "last_token_s",
        "max_itl_s",
        "migrations",
        "output_tokens",
        "own_blocks_key",
        "preemptions",
        "prefix_ids",
        "prompt_tokens",
        "ready_s",
        "scheduled_s",
        "session",
        "slot",
        "span_start",
    )

    def __init__(
        self,
        index: int,
        arrival_s: float,
        prompt_tokens: int,
        output_tokens: int,
        session: int = -1,
        prefix_ids: tuple[int, ...] = (),
    ) -> None:
        self.index = index
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.session = session
        self.prefix_ids = prefix_ids
        """Prefix hashes of the prompt's *full* hash blocks, in order."""

        self.ready_s = arrival_s
        """When it joined the waiting queue that it stands in."""
        self.generated_tokens = 0
        self.cached_tokens = 0
        """Prompt tokens found in a prefix cache at the first admission."""
        self.held_ids: list[int] = []
        """Shared prefix-cache entries that it keeps alive."""
        self.own_blocks_key = 0
        """Key under which its own blocks outlive a preemption in the prefix cache; 0 for none."""

        self.slot = NO_SLOT
        """Place in the decoding batch."""
        self.epoch = 0
        """Counts the times it joined a batch, so that stale heap entries can be told."""
        self.base_tokens = 0
        """KV tokens less the instance's iteration count, constant while it decodes."""
        self.finish_at = 0
        """Iteration count of the instance at which its last token is generated."""
        self.span_start = 0
        """Number of the instance's commit since which its inter-token latencies are still to be read."""

        self.scheduled_s = math.nan
        self.first_token_s = math.nan
        self.last_token_s = math.nan
        self.first_batch_tokens = 0
        """Tokens that the iteration sampled in which its first one was."""
        self.max_itl_s = 0.0
        self.migrations = 0
        self.preemptions = 0
        self.first_instance = -1
        self.last_instance = -1

    @property
    def has_begun(self) -> bool:
        """Whether an instance has computed some of it."""
        return not math.isnan(self.scheduled_s)

    @property
    def total_tokens(self) -> int:
        """Tokens whose KV must be there before the next token can be sampled: prompt and generated so far."""
        return self.prompt_tokens + self.generated_tokens
