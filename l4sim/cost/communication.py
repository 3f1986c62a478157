"""Seconds of the all-reduces that tensor parallelism needs."""

from __future__ import annotations

from collections.abc import Mapping

from l4sim.cost.curve import OverBytes
from l4sim.errors import InputError


def all_reduce_of(table: Mapping[int, OverBytes], gpus: int, profile: str) -> OverBytes:
    """The all-reduce among ``gpus``.

    Raises:
        InputError: the profile has none for so many GPUs.
    """
    if gpus not in table:
        known = ", ".join(str(count) for count in sorted(table)) or "none"
        raise InputError(
            f"profile {profile}: no all-reduce among {gpus} GPUs, tensor parallel sizes accepted: 1, {known}"
        )
    return table[gpus]
