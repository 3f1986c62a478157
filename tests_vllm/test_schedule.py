"""Our engine and vLLM's scheduler, iteration by iteration: no difference in any setting."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

from l4sim.engine.rules import engine_named
from tests.engine.vllm.driving import drive
from tests.engine.vllm.reference import ReferenceScheduler
from tests_vllm.cases import SETTINGS, Case, iteration_s, realistic_case, small_cases
from tests_vllm.real_scheduler import RealEngine

RULES = "vllm-" + ".".join(vllm.__version__.split(".")[:2])
CASES = int(os.environ.get("CASES", "25"))
"""Cases in each setting."""
SEED = os.environ.get("SEED", "0")

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids="-".join)


def check(case: Case) -> int:
    """Serve a case on both; returns how often vLLM preempted."""
    served, iterations, used = RealEngine(case.config, iteration_s).run(case.asks)
    stepped = drive(engine_named(RULES)(case.config, max_iterations=1), case.jobs(), iteration_s)
    skipped = drive(engine_named(RULES)(case.config), case.jobs(), iteration_s)
    if not case.config.kv_groups:
        assert ReferenceScheduler(case.config, RULES, iteration_s).run(case.jobs())[1:] == (iterations, used)
    assert stepped.iterations == iterations
    assert stepped.blocks_used == used
    assert skipped.iterations == iterations
    assert skipped.blocks_used == used
    for record in (stepped, skipped):
        for request, real in zip(record.requests, served, strict=True):
            times = real.token_times_s
            assert request.preemptions == real.preemptions
            assert request.cached_tokens == real.cached_tokens
            assert request.scheduled_s == real.scheduled_s
            assert (request.first_token_s, request.last_token_s) == (times[0], times[-1])
            assert request.generated_tokens == len(times)
            assert request.max_itl_s == max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    return sum(real.preemptions for real in served)


@each_setting
def test_first_come_first_served(setting: tuple[str, ...]) -> None:
    preemptions = [check(case) for case in small_cases(setting, SEED, CASES)]
    assert sum(map(bool, preemptions)) > (CASES / 5 if "short" in setting else -1)


@each_setting
def test_by_priority(setting: tuple[str, ...]) -> None:
    for case in small_cases(setting, SEED, CASES // 3, scheduling_policy="priority"):
        check(case)


@each_setting
def test_long_prompts_in_pieces(setting: tuple[str, ...]) -> None:
    options = {
        "long_prefill_token_threshold": lambda random: random.randint(1, 16),
        "scheduling_policy": lambda random: random.choice(["fcfs", "priority"]),
    }
    for case in small_cases(setting, SEED, CASES // 3, **options):
        check(case)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("blocks", [1500, 20_000], ids=["short", "ample"])
def test_at_usual_size(blocks: int, asynchronous: bool) -> None:
    case = realistic_case(SEED, kv_blocks=blocks, async_scheduling=asynchronous)
    assert bool(check(case)) == (blocks == 1500)
