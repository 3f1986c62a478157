"""Views that are as old as in a real system: published from time to time, and not followed in between."""

from __future__ import annotations

from l4sim.policies.views import InstanceView


class PublishedView:
    """An instance's counts as they were last published; an `InstanceView`."""

    __slots__ = (
        "_live",
        "as_of_s",
        "context_tokens",
        "instance",
        "kind",
        "kv_block_tokens",
        "kv_blocks_free",
        "kv_blocks_total",
        "pending_prompt_tokens",
        "running",
        "waiting",
        "waiting_tokens",
    )

    def __init__(self, live: InstanceView) -> None:
        """``live`` is the instance as it is."""
        self._live = live
        self.instance = live.instance
        self.kind = live.kind
        self.kv_blocks_total = live.kv_blocks_total
        self.kv_block_tokens = live.kv_block_tokens
        self.refresh()

    def refresh(self) -> None:
        """Publish the counts as they are now."""
        live = self._live
        self.as_of_s = live.as_of_s
        self.running = live.running
        self.waiting = live.waiting
        self.waiting_tokens = live.waiting_tokens
        self.pending_prompt_tokens = live.pending_prompt_tokens
        self.context_tokens = live.context_tokens
        self.kv_blocks_free = live.kv_blocks_free

    def sent(self, tokens: int) -> None:
        """Count a request of so many tokens that the next publication will count."""
        self.waiting += 1
        self.waiting_tokens += tokens
        self.pending_prompt_tokens += tokens
