"""What policies may see: only what a live engine and its front end could report.

Views are read-only by contract and may be refreshed in place between calls: read them, keep numbers, not views.
A request's true output length is in none of them.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class RequestView(NamedTuple):
    """A request as the front end sees it."""

    request: int
    """The request's number, unique in a run."""
    prompt_tokens: int
    session: int
    """Session number, -1 for none."""
    prefix_ids: tuple[int, ...]
    """Hashes of the prompt's full prefix blocks; empty where the trace has none."""
    context_tokens: int
    """Prompt and tokens generated so far (more than the prompt only for a request that restarts elsewhere)."""


class InstanceKind(NamedTuple):
    """What an instance is: equal for all instances of a group, and constant while it lives."""

    group: str
    """The name of its group of the fleet."""
    gpu: str
    role: str
    """`both`, or what a group specialises in: `prefill` or `decode`."""
    tensor_parallel: int
    relative_speed: float
    """Iterations per second of one reference batch, relative to the fleet's fastest group: at most 1."""


SOLE_KIND = InstanceKind("all", "", "both", 1, 1.0)
"""The kind of instances that are all equal, where nobody says more of them."""


class InstanceView(Protocol):
    """An instance as its own engine reports it, as of the last iteration it has finished."""

    @property
    def instance(self) -> int:
        """The instance's number, from 0."""
        ...

    @property
    def kind(self) -> InstanceKind:
        """What it is, where instances differ; its KV size is in `kv_blocks_total`."""
        ...

    @property
    def as_of_s(self) -> float:
        """When the numbers were true."""
        ...

    @property
    def running(self) -> int:
        """Requests in the batch, prompts in progress included."""
        ...

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        ...

    @property
    def waiting_tokens(self) -> int:
        """Tokens that the queued requests bring along."""
        ...

    @property
    def pending_prompt_tokens(self) -> int:
        """Prompt tokens yet to be computed: of queued requests, of prompts in progress, and of this iteration."""
        ...

    @property
    def context_tokens(self) -> int:
        """KV tokens of all decoding requests."""
        ...

    @property
    def kv_blocks_free(self) -> int:
        """KV blocks that no request holds."""
        ...

    @property
    def kv_blocks_total(self) -> int:
        """KV blocks there are."""
        ...

    @property
    def kv_block_tokens(self) -> int:
        """Tokens per KV block."""
        ...


class DecodingRequest(NamedTuple):
    """A request in the batch of an agent's own instance."""

    request: int
    """The request's number."""
    context_tokens: int
    cached_tokens: int = 0
    """Prompt tokens that it found in the prefix cache."""


class QueuedRequest(NamedTuple):
    """A request in the queue of an agent's own instance that has not begun."""

    request: int
    """The request's number."""
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that it would find in the prefix cache now."""
