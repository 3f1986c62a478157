"""What a cluster may ask of an instance, whichever engine's rules it follows.

An engine is sans-IO: it never waits and reads no clock. Whoever drives it repeats *decide, execute, account*::

    step = engine.plan(now_s)
    seconds = ...  # the simulator: a cost model; a live instance: a forward pass
    outcome = engine.commit(step, now_s + seconds)

and between two steps gives it stimuli: requests that arrive, leave or migrate. Every token count and block count is
as of the last commit; an argument ``iteration`` asks for what they are while a repeated step goes on: which of its
iterations is under way, from 1.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from l4sim.batch import Batch
from l4sim.engine.blocks import BlockPool, CacheLog
from l4sim.engine.config import EngineConfig
from l4sim.engine.request import Request


class Chunk(NamedTuple):
    """The prompt tokens of one request that an iteration computes."""

    request: Request
    tokens: int
    done_tokens: int
    """Tokens computed before."""
    ends: bool
    """Whether the prompt is complete with it."""


class Step(NamedTuple):
    """One iteration's work, which may be repeated ``iterations`` times before anything can change."""

    batch: Batch
    chunks: tuple[Chunk, ...]
    iterations: int


class Outcome(NamedTuple):
    """What a commit brought about."""

    finished: list[Request]
    crossed: list[Request]
    """Decoding requests whose context has reached the watched boundary."""


Snapshot = tuple[float, int, int]
"""Standard deviation of the decoding requests' context lengths in tokens, requests waiting, KV blocks used."""


class Engine(Protocol):
    """Queues, batch and KV blocks of one instance."""

    config: EngineConfig
    admission_blocked: bool
    """Whether the head of the queue found no room, so that arrivals behind it change nothing."""
    departed: list[Request]
    """Requests that have left the batch as asked by `detach`, for the driver to take; each holds its blocks and its
    place here until `drop` or `restore`."""
    preempted: list[Request]
    """Requests preempted, for the driver to take."""

    # What others may ask.

    @property
    def waiting(self) -> Collection[Request]:
        """The queue, head first."""
        ...

    @property
    def decoding_requests(self) -> Sequence[Request]:
        """The decoding requests in batch order. A view: read it now."""
        ...

    @property
    def running(self) -> int:
        """Requests admitted and not yet ended: decoding, prompts in progress, and those about to migrate away."""
        ...

    @property
    def waiting_tokens(self) -> int:
        """Tokens that the waiting requests bring along, prefix hits not taken off."""
        ...

    @property
    def partial_tokens(self) -> int:
        """Tokens of prompts in progress that no planned iteration computes yet."""
        ...

    @property
    def requests(self) -> int:
        """Requests that are here, whatever they do."""
        ...

    @property
    def idle(self) -> bool:
        """Whether nothing is here: no request, and no room set aside for one."""
        ...

    @property
    def kv_blocks_total(self) -> int:
        """KV blocks there are."""
        ...

    @property
    def kv_blocks_used(self) -> int:
        """KV blocks that are held or set aside."""
        ...

    def snapshot(self) -> Snapshot:
        """What the table of segments tells of the moment at which one begins."""
        ...

    def kv_blocks_free(self, iteration: int = 1) -> int:
        """KV blocks that no request holds."""
        ...

    def context_sum_tokens(self, iteration: int = 1) -> int:
        """KV tokens of all decoding requests."""
        ...

    def context_tokens(self, request: Request, iteration: int = 1) -> int:
        """KV tokens of a decoding request."""
        ...

    def find_decoding(self, index: int) -> Request | None:
        """A decoding request by its number; None if it does not decode here."""
        ...

    def queued(self) -> Sequence[tuple[Request, int]]:
        """Requests that wait and have not begun, head first, each with its prompt tokens in the prefix cache."""
        ...

    def blocks_for(self, tokens: int) -> int:
        """KV blocks that a context of so many tokens takes here."""
        ...

    def tokens_for(self, blocks: int) -> int:
        """The longest context that so many KV blocks hold here."""
        ...

    def refusal(self, request: Request) -> str | None:
        """Why a request can never be served here; None if it can."""
        ...

    def log_cache(self) -> CacheLog:
        """Where the prefix cache notes from now on what it stores and removes."""
        ...

    # Stimuli. Their times let a step that was planned earlier not see them.

    def add(self, request: Request, now_s: float) -> None:
        """Queue a request that `refusal` has nothing against."""
        ...

    def withdraw(self, index: int) -> Request | None:
        """Take a request that has not begun out of the queue; None if there is no such one."""
        ...

    def watch(self, boundary_tokens: int | None) -> None:
        """From now on report decoding requests whose context reaches this length; None stops it."""
        ...

    def reserve(self, blocks: int, iteration: int = 1) -> bool:
        """Set blocks and a place in the batch aside for a request that migrates here; False if there is no room."""
        ...

    def reserve_more(self, blocks: int, iteration: int = 1) -> bool:
        """Set more blocks aside for a request that has grown while it was copied."""
        ...

    def cancel_reservation(self, blocks: int) -> None:
        """Give back what `reserve` and `reserve_more` set aside."""
        ...

    def attach(self, request: Request, reserved_blocks: int, now_s: float) -> None:
        """Let a migrated request, whose KV is in the reserved blocks, decode here from the next planned step on."""
        ...

    def detach(self, request: Request, now_s: float) -> None:
        """Let a decoding request leave the batch with the next iteration planned from ``now_s`` on."""
        ...

    def drop(self, request: Request) -> None:
        """Free the blocks of a departed request."""
        ...

    def restore(self, request: Request, now_s: float) -> None:
        """Let a departed request, whose blocks are still here, decode on."""
        ...

    def evacuate(self, step: Step | None) -> list[Request]:
        """The instance has died in ``step``: all requests that were here, ready to start over elsewhere."""
        ...

    # The loop.

    def plan(self, now_s: float) -> Step | None:
        """What to run now; None if there is nothing to do."""
        ...

    def commit(
        self,
        step: Step,
        now_s: float,
        *,
        iterations: int = 1,
        last_started_s: float | None = None,
        longest_s: float | None = None,
    ) -> Outcome:
        """Account for a step that has run ``iterations`` times and ended at ``now_s``.

        ``last_started_s``: when the last of these iterations began (default: when the step was planned);
        ``longest_s``: the longest of them (default: the whole step).
        """
        ...

    def account_last(self, iterations: int, now_s: float, longest_s: float) -> None:
        """Account for the first iterations of a repeated step in which the instance has died: nothing follows them."""
        ...

    def violations(self) -> list[str]:
        """What of the engine's own invariants does not hold, each with its number (`docs/invariants.md`)."""
        ...


class EngineFactory(Protocol):
    """Makes the engines of a run, one for each instance."""

    def __call__(
        self,
        config: EngineConfig,
        *,
        max_iterations: int | None = None,
        pool: BlockPool | None = None,
    ) -> Engine:
        """Make one engine.

        ``max_iterations`` bounds how often one step may be repeated (1: never; None: as often as nothing changes).
        ``pool`` stands in for the engine's own: blocks that are more than counts.
        """
        ...
