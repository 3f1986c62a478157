"""What the registry makes of a name; each policy's own tests have the rest."""

from __future__ import annotations

import pytest

from l4sim.policies.agent import Started
from l4sim.policies.l4.affinity import Affinity, Prices
from l4sim.policies.l4.agent import RefineTime
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition, StageForecast
from l4sim.policies.policy import Setting
from l4sim.policies.registry import build_policy
from tests.policies.conftest import View
from tests.policies.l4.protocol import THREE_STAGES, timers

FORECAST = StageForecast(0.5, 2.0, 0.01, 0.1, 1.0, 100.0, 0.01)
PLANNED = Partition(THREE_STAGES, (FORECAST,) * 3, Objective(), 0.03, 0.5)


def setting(affinity: Affinity | None) -> Setting:
    return Setting(
        instances=4,
        seed=0,
        partition=lambda: PLANNED,
        sample_lengths=lambda: pytest.fail("l4 goes by its plan"),
        output_tokens=lambda: pytest.fail("l4 knows no answer's length"),
        prefix_id_tokens=16,
        affinity=None if affinity is None else lambda: affinity,
        planning=lambda: pytest.fail("l4 makes no second plan"),
    )


@pytest.mark.parametrize("follows_prefixes", [False, True])
def test_l4_refines_boundaries_unless_requests_go_where_their_prefixes_are(follows_prefixes):
    affinity = Affinity(Prices(1e-5, 0.0, 1e-5, 1e-8, 100.0), 16, 10**6) if follows_prefixes else None
    policy = build_policy("l4", setting(affinity))
    assert len(policy.agents) == 4
    for instance, agent in enumerate(policy.agents):
        kinds = [type(timer.name) for timer in timers(agent.handle(Started(), View(instance), 0.0))]
        assert (RefineTime in kinds) == (not follows_prefixes)
