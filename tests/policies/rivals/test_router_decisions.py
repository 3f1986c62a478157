"""Policies take the decisions that the real routers which they are named after took."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.router_decisions import FOLDER, UnknownRouterError, agreement, read

RECORDINGS = sorted([*FOLDER.glob("*.json"), *FOLDER.glob("*.json.gz")])
LEAST_EQUAL_PCT = {("smg", "cache_aware"): 95.0, ("sglang-router", "bucket"): 92.0}
"""Where a recording does not tell all that the router saw: characters within a block; when timers fired."""
RANDOM = ("random", "power_of_two")


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDINGS or [None], ids=lambda path: "none" if path is None else path.name)
def test_recorded_decisions_are_the_policys_or_equal_to_them_under_its_rule(path: Path | None):
    if path is None:
        pytest.skip(f"no recordings in {FOLDER} (L4SIM_ROUTER_DECISIONS, or golden/routers in L4SIM_SHARED)")
    recording = read(path)
    try:
        found = agreement(recording)
    except UnknownRouterError as error:
        pytest.skip(str(error))
    print(found)
    assert found.equal_pct >= LEAST_EQUAL_PCT.get((recording.product, recording.policy), 99.0), found
    if recording.policy in RANDOM:
        assert found.probability > 0.01, found
    else:
        assert math.isnan(found.probability)
