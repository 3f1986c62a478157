"""What the policies of SGLang's gateway and of its descendants have in common."""

from __future__ import annotations

from collections.abc import Sequence

CHARACTERS_PER_TOKEN = 4
"""Ours: the usual rule of thumb for English text."""


def is_imbalanced(loads: Sequence[int], abs_threshold: int, rel_threshold: float) -> bool:
    """Whether load goes before affinity: max - min > ``abs_threshold`` and max > ``rel_threshold`` x min.

    Source: `select_worker` in `cache_aware.rs` and in `bucket.rs` of SGLang's gateway 0.3.2.
    """
    most, least = max(loads), min(loads)
    return most - least > abs_threshold and most > rel_threshold * least


def least_loaded(loads: Sequence[int], sent_ever: Sequence[int]) -> list[int]:
    """Positions of the fewest requests in flight, that which was sent the fewest requests so far in front.

    Source: `min_load_idx` in `cache_aware.rs` (vllm-project/router 0.1.17 likewise).
    """
    least = min(loads)
    return sorted((row for row, load in enumerate(loads) if load == least), key=sent_ever.__getitem__)
