"""What differs between the versions of vLLM whose scheduling rules are bundled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VLLMRules:
    """One version's rules, where versions differ."""

    unhashed_first: bool
    """Freed blocks without a hash are the next to be taken (`BlockPool.free_blocks`), not the last."""
    lone_prompt_uncapped: bool
    """`long_prefill_token_threshold` does not hold for the only request there is (`Scheduler.schedule`)."""
    victims_keep_turns: bool
    """Priority scheduling: a victim that stood before the request whose turn it is, but had no share in the iteration,
    lets those behind keep theirs. Where not, the next one is passed over (`req_index` in `Scheduler.schedule`)."""


VLLM_0_32 = VLLMRules(unhashed_first=True, lone_prompt_uncapped=True, victims_keep_turns=True)

VERSIONS = {
    "vllm-0.19": VLLMRules(unhashed_first=False, lone_prompt_uncapped=False, victims_keep_turns=False),
    "vllm-0.32": VLLM_0_32,
}
"""Rules by version, from the oldest to the newest; each is proven against that version's own scheduler."""
