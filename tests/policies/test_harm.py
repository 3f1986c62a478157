"""What one more request does to an instance."""

from __future__ import annotations

import numpy as np

from l4sim.policies.harm import harm_tokens, least_harm
from tests.policies.conftest import View


def test_an_idle_instance_has_only_the_prompt_itself_to_wait_for():
    assert harm_tokens(View(), 700) == 700


def test_all_who_are_there_wait_for_all_prompts_and_every_iteration_reads_all_context():
    # The 3 running, the 1 waiting and the new one wait for 2,000 + 500 tokens; and 6,000 tokens are read.
    view = View(running=3, waiting=1, pending_prompt_tokens=2000, context_tokens=6000)
    assert harm_tokens(view, 500) == 5 * 2500 + 6000


def test_a_long_prompt_is_dear_among_many_and_a_short_one_among_long_contexts():
    many_short, few_long = View(running=20, context_tokens=10_000), View(running=1, context_tokens=60_000)
    assert harm_tokens(many_short, 20_000) > harm_tokens(few_long, 20_000)
    assert harm_tokens(many_short, 100) < harm_tokens(few_long, 100)


def test_the_least_harm_is_that_of_all_worked_out_and_the_first_of_equals():
    rng = np.random.default_rng(8)
    for _ in range(300):
        counts = rng.integers(0, 4, (6, 3)).tolist()
        instances = [
            View(number, running=running, pending_prompt_tokens=10 * pending, context_tokens=100 * context)
            for number, (running, pending, context) in enumerate(counts)
        ]
        cached = {int(number): 30 for number in rng.integers(0, 6, 2)}
        harms = [harm_tokens(view, 50 - cached.get(view.instance, 0)) for view in instances]
        assert least_harm(instances, 50, cached) == harms.index(min(harms))
