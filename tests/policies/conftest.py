"""Instances as policies see them, written down by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l4sim.policies.views import SOLE_KIND, DecodingRequest, InstanceKind, QueuedRequest, RequestView


@dataclass(frozen=True)
class View:
    """An `OwnView` (and so an `InstanceView`) that says what it was told to."""

    instance: int = 0
    as_of_s: float = 0.0
    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    pending_prompt_tokens: int = 0
    context_tokens: int = 0
    kv_blocks_free: int = 1000
    kv_blocks_total: int = 1000
    kv_block_tokens: int = 16
    batch: tuple[DecodingRequest, ...] = ()
    queue: tuple[QueuedRequest, ...] = ()
    kind: InstanceKind = SOLE_KIND

    def decoding(self) -> Sequence[DecodingRequest]:
        return self.batch

    def queued(self) -> Sequence[QueuedRequest]:
        return self.queue

    def find(self, request: int) -> DecodingRequest | None:
        return next((found for found in self.batch if found.request == request), None)


def views(*running: int, as_of_s: float = 0.0) -> list[View]:
    """Instances with these many requests running and none waiting."""
    return [View(number, as_of_s, count) for number, count in enumerate(running)]


def arrival(prompt_tokens: int = 100, *, request: int = 0, prefix_ids: tuple[int, ...] = ()) -> RequestView:
    return RequestView(request, prompt_tokens, -1, prefix_ids, prompt_tokens)
