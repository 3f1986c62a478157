"""How loaded an instance is, in tokens of context: one number that agents and the router compare **[ours]**."""

from __future__ import annotations

from l4sim.policies.views import InstanceView

REQUEST_TOKENS = 512
"""What a request weighs besides its context: its share of linear layers, sampling and launches in every iteration. On
an H200 with llama-3.1-8b, a request's part of the linear layers costs about as much as reading 500 tokens of KV."""


def load_tokens(view: InstanceView) -> float:
    """The load of an instance: KV tokens that decode, tokens that wait, and a constant per request."""
    return view.context_tokens + view.waiting_tokens + REQUEST_TOKENS * (view.running + view.waiting)
