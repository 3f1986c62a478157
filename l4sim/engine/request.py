"""A request on its way through the cluster."""

from __future__ import annotations

import math
from typing import Any

NO_SLOT = -1


class Request:
    """The runtime state of one request; one object lives from arrival to end, whichever instances serve it.

    ``output_tokens`` is the answer's true length, which the trace forces. It is the engine's alone: policies never see
    this class.
    """

    __slots__ = (
        "arrival_s",
        "base_tokens",
        "block_keys",
        "cached_tokens",
        "epoch",
        "finish_at",
        "first_batch_tokens",
        "first_instance",
        "first_token_s",
        "generated_tokens",
        "held",
        "index",
        "lag_from",
        "last_instance",
        "last_token_s",
        "max_itl_s",
        "migrations",
        "order",
        "output_tokens",
        "preemptions",
        "priority",
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
        block_keys: tuple[range, ...] = (),
        priority: int = 0,
    ) -> None:
        self.index = index
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.session = session
        self.block_keys = block_keys
        """Names of all full KV blocks of its prompt and answer, in order: blocks of two requests have one name where
        their tokens, and all before them, are the same. Ranges that begin alike are the same run, cut at different
        lengths; others have no name in common. Empty without prefix caching."""
        self.priority = priority
        """Whom priority scheduling prefers: the lower, the earlier (vLLM's `priority`)."""

        self.ready_s = arrival_s
        """When it joined the waiting queue that it stands in."""
        self.generated_tokens = 0
        self.cached_tokens = 0
        """Prompt tokens found in a prefix cache at the first admission."""
        self.held: Any = None
        """What the prefix cache of its instance keeps of it; None for nothing."""

        self.order = 0
        """Place among its instance's running requests: they are served in the order of admission."""
        self.slot = NO_SLOT
        """Place in the decoding batch."""
        self.epoch = 0
        """Counts the times it joined a batch, so that stale heap entries can be told."""
        self.base_tokens = 0
        """KV tokens less the instance's iteration count, constant while it decodes."""
        self.finish_at = 0
        """Iteration count of the instance at which its last token is generated."""
        self.lag_from = 0
        """Iteration count behind which, scheduled asynchronously, its last token's KV has no hash yet."""
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
