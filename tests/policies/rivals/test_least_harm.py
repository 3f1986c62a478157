"""The router of least harm."""

from __future__ import annotations

from l4sim.policies.rivals.least_harm import LeastHarm
from tests.policies.conftest import View, arrival, views


def test_it_weighs_who_would_wait_against_what_is_read():
    # For 100 tokens: 21 x 100 + 4,000 = 6,100, and 2 x 100 + 8,000 = 8,200; for 1,000: 25,000 and 10,000.
    instances = [View(running=20, context_tokens=4000), View(running=1, context_tokens=8000)]
    assert LeastHarm().route(arrival(100), instances) == 0
    assert LeastHarm().route(arrival(1000), instances) == 1


def test_it_shuns_prompts_that_are_yet_to_be_computed():
    # 2 x 5,100 against 3 x 100 + 9,000.
    instances = [View(running=1, pending_prompt_tokens=5000), View(running=2, context_tokens=9000)]
    assert LeastHarm().route(arrival(100), instances) == 1


def test_of_equals_the_first_is_taken():
    assert LeastHarm().route(arrival(), views(2, 1, 1)) == 1
