"""Every bundled policy on a fleet that instances join, leave and die in: nothing is lost, and newcomers serve."""

from __future__ import annotations

import pytest

from l4sim.policies.plan import GivenPlan
from l4sim.policies.registry import POLICIES, build_policy
from l4sim.simulator import InstanceSpec, Rules, SimulationResult, simulate_fleet
from l4sim.simulator.cluster import Drain, FleetEvent, Join
from l4sim.specs.events import Fail
from l4sim.specs.placement import Placement
from tests.policies.rivals.test_in_simulator import ENGINE, busy_trace
from tests.policies.settings import setting
from tests.simulator.conftest import COST, KV_BYTES_PER_TOKEN, SLOW, requests, stages_of

INSTANCE = InstanceSpec(ENGINE, COST, KV_BYTES_PER_TOKEN)
EVENTS: tuple[FleetEvent, ...] = (
    Join(INSTANCE, 2.0),
    Drain(1, 3.0),
    Fail(2, 4.0),
    # Before anybody has noticed the death.
    Join(INSTANCE, 4.3),
    Drain(4, 6.0),
)


def run(name: str, events: tuple[FleetEvent, ...] = EVENTS) -> SimulationResult:
    trace = busy_trace()
    policy = build_policy(
        name,
        setting(
            4,
            sample=lambda: trace,
            output_tokens=trace.output_tokens.tolist,
            plans=GivenPlan(lambda: stages_of(4)),
        ),
    )
    placement = Placement(6, gpus_per_node=2, intra=SLOW, inter=SLOW)
    return simulate_fleet(trace, policy, [INSTANCE] * 4, placement, events=events, rules=Rules(validate=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_every_request_is_served_and_who_joined_serves_some(name):
    result = run(name)
    table = requests(result)
    assert result.requests.words["status"][0] == "finished"
    assert (table["status"] == 0).all()
    assert {4.0, 5.0} <= set(table["first_instance"]), "both that joined"
    left = {change.instance: change.time_s for change in result.changes if change.change == "left"}
    assert set(left) == {1, 4}
    routed_s = table["arrival_s"][table["first_instance"] == 1]
    assert (routed_s <= 3.0).all()


def emptied_s(name: str) -> float:
    """Seconds from when an instance is to leave until it has left."""
    [left] = [change.time_s for change in run(name, (Drain(1, 3.0),)).changes if change.change == "left"]
    return left - 3.0


@pytest.mark.slow
def test_handing_over_empties_an_instance_sooner_than_its_requests_end():
    assert emptied_s("l4:handover") < emptied_s("l4:plan")
