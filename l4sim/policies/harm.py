"""How much one more request would slow an instance's requests down, and be slowed down by them. **[ours]**

The unit is a prompt token's time, held up for which one request waits. With n requests there, P prompt tokens yet to be
computed, C tokens of context, and a prompt of q tokens to come:

- *What it causes*: all n wait for its prompt, n · q.
- *What it suffers*: it waits for the prompts before its own, P, and for its own, q. And each of its iterations reads
  the context of the whole batch: on an H200 a prompt token of an 8B model lasts some 20 µs, once, and reading one of
  context some 30 ns, but in each of the hundreds of iterations that a request stays. That is about the same, so C.
- *What is being suffered already*: the n wait for one another's prompts, n · P. The request does not cause this, but
  the term distinguishes an instance that falls behind from one that keeps up, which matters to the requests after it.

Together (n + 1) · (P + q) + C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from l4sim.policies.views import InstanceView


def harm_tokens(view: InstanceView, prompt_tokens: int) -> float:
    """The harm of one more request with such a prompt, in prompt tokens times requests that wait for each."""
    requests = view.running + view.waiting + 1
    return requests * (view.pending_prompt_tokens + prompt_tokens) + view.context_tokens


def least_harm(views: Sequence[InstanceView], prompt_tokens: int, cached_tokens: Mapping[int, int]) -> int:
    """The position of least harm, the first of equals.

    ``cached_tokens``: those of the prompt that need not be computed, by instance number. Contexts, which change with
    every token, are read only where they can still decide.
    """
    without = [(view.running + view.waiting + 1) * (view.pending_prompt_tokens + prompt_tokens) for view in views]
    for position, view in enumerate(views) if cached_tokens else ():
        cached = cached_tokens.get(view.instance)
        if cached:
            without[position] -= (view.running + view.waiting + 1) * cached
    first = without.index(min(without))
    best = without[first] + views[first].context_tokens, first
    for position, harm in enumerate(without):
        if (harm, position) < best and position != first:
            best = min(best, (harm + views[position].context_tokens, position))
    return best[1]
