"""L4's dispatch by length; `test_affinity` has where it follows a prefix instead."""

from __future__ import annotations

from l4sim.policies.agent import Draining, InstanceUp, Left
from l4sim.policies.l4.messages import Boundary, Report
from l4sim.policies.l4.router import L4Router
from l4sim.policies.views import RequestView
from tests.policies.conftest import View, arrival, views
from tests.policies.l4.protocol import THREE_STAGES


def test_a_request_goes_to_the_least_loaded_instance_of_its_stage_the_first_of_equals():
    router = L4Router(THREE_STAGES, spill=False)
    instances = views(9, 5, 4, 0)
    assert [router.route(arrival(tokens), instances) for tokens in (99, 100, 999, 1000, 9999)] == [0, 2, 2, 3, 3]
    assert router.route(arrival(500), views(0, 4, 4, 0)) == 1


def test_prompts_to_compute_are_load():
    instances = [View(0), View(1, running=1, pending_prompt_tokens=5000), View(2, running=2), View(3)]
    assert L4Router(THREE_STAGES, spill=False).route(arrival(500), instances) == 2, "2 is less than 1 + 5000 / 4096"


def test_a_request_spills_over_where_its_own_stage_would_do_it_well_over_the_harm():
    # 500 tokens beside 8 others are 4,500; in the lowest stage beside 5 (or 6) they are 3,000 (or 3,500).
    router = L4Router(THREE_STAGES)
    assert router.route(arrival(500), views(4, 8, 9, 99)) == 0, "2,500, less than 4,500 / 1.5"
    assert router.route(arrival(500), views(5, 8, 9, 99)) == 1, "3,000 is not less"
    assert L4Router(THREE_STAGES, spill=False).route(arrival(500), views(4, 8, 9, 99)) == 1


def test_the_short_leave_a_quiet_stage_above_to_prompts_of_its_own_until_they_wait_for_longer_than_one_takes():
    router = L4Router(THREE_STAGES)
    # Beside 13 others 14 x 100 = 1,400, at an idle instance above 1 x 1,000; beside 15 it is 1,600.
    assert router.route(arrival(100), views(99, 13, 13, 0)) == 1
    assert router.route(arrival(100), views(99, 15, 15, 0)) == 3


def test_of_the_other_stages_the_least_harmful_is_spilled_over_to():
    router = L4Router(THREE_STAGES)
    assert router.route(arrival(500), views(2, 20, 20, 0)) == 3, "1,000 is less than 1,500"
    assert router.route(arrival(500), views(0, 20, 20, 0)) == 0, "and 500 is less than 1,000"


def test_a_stage_that_has_died_is_not_spilled_over_to():
    survivors = [View(1, running=20), View(2, running=20), View(3)]
    assert L4Router(THREE_STAGES).route(arrival(500), survivors) == 2, "which is instance 3"


def test_a_request_that_starts_over_goes_by_what_it_has_generated_too():
    request = RequestView(0, 80, -1, (), 120)
    assert L4Router(THREE_STAGES).route(request, views(0, 0, 0, 0)) == 1


def test_a_moved_boundary_counts_once_heard():
    router = L4Router(THREE_STAGES)
    router.receive(0, Boundary(0, 1, 90), 1.5)
    router.receive(0, Boundary(0, 1, 90), 2.5)
    router.receive(0, Report(3.0), 2.5)
    assert router.route(arrival(95), views(0, 0, 0, 0)) == 1
    assert router.moves == [(1.5, 0, 90)]


def test_an_instance_that_joins_serves_the_stage_that_it_joins():
    router = L4Router(THREE_STAGES, spill=False)
    assert router.route(arrival(500), views(0, 2, 2, 0)) == 1
    router.hear(InstanceUp(4), 5.0)
    assert router.route(arrival(500), views(0, 2, 2, 0, 1)) == 4
    assert [router.route(arrival(tokens), views(0, 2, 2, 0, 0)) for tokens in (50, 2000)] == [0, 3]


def test_one_that_joins_in_the_place_of_one_that_left_in_the_meantime_is_told_from_it():
    router = L4Router(THREE_STAGES, spill=False)
    assert router.route(arrival(2000), views(0, 0, 0, 0)) == 3
    for stimulus in (Draining(3), Left(3), InstanceUp(4)):
        router.hear(stimulus, 5.0)
    router.follow([0, 1, 2, 4])
    others = [View(number) for number in (0, 1, 2, 4)]
    assert router.route(arrival(2000), others) == 3, "which is instance 4, in the stage that nobody was left in"
    assert router.route(arrival(500), others) == 1


def test_those_that_cannot_serve_a_request_are_passed_over_for_it_alone():
    router = L4Router(THREE_STAGES, spill=False)
    assert router.route(arrival(500), views(0, 0, 0, 0)) == 1
    assert router.route(arrival(500), [View(0), View(3)]) == 1, "the stage above"
    assert router.route(arrival(500), views(0, 0, 0, 0)) == 1


def test_an_instance_that_drains_gets_nothing_and_what_lived_there_is_not_followed():
    router = L4Router(THREE_STAGES, spill=False)
    router.hear(Draining(1), 5.0)
    staying = [View(0), View(2, running=9), View(3)]
    assert router.route(arrival(500), staying) == 1, "which is instance 2"


def test_the_dead_are_passed_over_even_before_the_first_request():
    router = L4Router(THREE_STAGES, spill=False)
    survivors = [View(0), View(2, running=3), View(3)]
    assert router.route(arrival(500), survivors) == 1, "which is instance 2"
    assert router.route(arrival(500), [View(0), View(3)]) == 1, "the stage above"
    assert router.route(arrival(5000), [View(0)]) == 0, "whoever is left"
