"""What the gateway's policies have in common."""

from __future__ import annotations

from collections.abc import Sequence

CHARACTERS_PER_TOKEN = 4
"""Ours: the usual rule of thumb for English text."""


def is_imbalanced(loads: Sequence[int], abs_threshold: int, rel_threshold: float) -> bool:
    """Whether load goes before affinity: max - min > ``abs_threshold`` and max > ``rel_threshold`` x min.

    Source: `select_worker` in `cache_aware.rs` and in `bucket.rs`.
    """
    most, least = max(loads), min(loads)
    return most - least > abs_threshold and most > rel_threshold * least
