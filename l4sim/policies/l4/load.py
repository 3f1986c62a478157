"""How loaded an instance is: one number that agents and the router compare **[ours]**."""

from __future__ import annotations

from l4sim.policies.views import InstanceView

PROMPT_TOKENS = 4096
"""Prompt tokens to compute that weigh as much as one request in flight. A request slows every iteration down a little
and for long, a prompt few iterations and a lot: 2,048 to 8,192 gave nearly the same latencies on the bundled traces,
both better than leaving prompts out, and better than counting tokens of context instead of requests."""


def load_of(view: InstanceView) -> float:
    """The load of an instance in requests: those that it has, and its prompts yet to be computed."""
    return view.running + view.waiting + view.pending_prompt_tokens / PROMPT_TOKENS


def queued_load(prompt_tokens: int) -> float:
    """What a queued request adds to the load."""
    return 1.0 + prompt_tokens / PROMPT_TOKENS
