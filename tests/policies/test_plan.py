import pytest

from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition
from l4sim.policies.plan import GivenPlan, Plan, SharedPlans, Stage

PLAN = Plan((Stage(0, 100, (0,)), Stage(100, 1000, (1, 2)), Stage(1000, 4000, (3,))))


@pytest.mark.parametrize(
    ("context_tokens", "stage"), [(0, 0), (99, 0), (100, 1), (999, 1), (1000, 2), (4000, 2), (9999, 2)]
)
def test_a_length_belongs_to_the_stage_that_it_is_below_the_end_of(context_tokens, stage):
    assert PLAN.stage_of(context_tokens) == stage


@pytest.mark.parametrize(
    ("stages", "complaint"),
    [
        ((), "from 0"),
        ((Stage(1, 9, (0,)),), "from 0"),
        ((Stage(0, 5, (0,)), Stage(6, 9, (1,))), r"\[0, 5\) is followed by one from 6"),
        ((Stage(0, 5, (0,)), Stage(5, 9, (0,))), "instances of its own"),
        ((Stage(0, 5, (0,)), Stage(5, 9, ())), "instances of its own"),
        ((Stage(0, 5, (0,)), Stage(5, 5, (1,))), "a range"),
    ],
)
def test_refuses_stages_that_do_not_tile_lengths_and_instances(stages, complaint):
    with pytest.raises(ValueError, match=complaint):
        Plan(stages)


def planned():
    return Partition(PLAN, (), Objective(), 1.0, 0.5)


def test_shared_plans_are_made_once_for_every_key():
    plans = SharedPlans()
    one = plans.plan("a", planned)
    assert plans.plan("a", planned) is one
    assert plans.plan("b", planned) is not one


def test_a_given_plan_is_asked_for_when_somebody_needs_it():
    asked = []
    recorded = planned()

    def give():
        asked.append(None)
        return recorded

    plans = GivenPlan(give)
    assert not asked
    assert plans.plan("any", lambda: pytest.fail("nothing is planned")) is recorded
