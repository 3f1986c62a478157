"""SGLang's rules by hand, an iteration a second; and whatever happens, nothing is lost and the accounts agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.engine.invariants import check_engine
from l4sim.engine.request import Request
from l4sim.engine.sglang.engine import SGLangEngine
from l4sim.errors import InputError
from l4sim.experiment import Options, resolve
from l4sim.policies.policy import Policy
from l4sim.policies.routers import RoundRobin
from l4sim.simulator import InstanceSpec, Rules, simulate_fleet
from l4sim.specs.events import Fail
from l4sim.specs.placement import Placement
from tests.simulator.conftest import SLOW, Case, build, cases, iterations, requests


def engine(**options: Any) -> SGLangEngine:
    """One iteration at a time, blocks of a token, synchronous and without a prefix cache unless told otherwise."""
    plain = {"kv_blocks": 1000, "max_model_len": 500, "max_num_seqs": 8, "max_num_batched_tokens": 64}
    modes = {"block_tokens": 1, "prefix_caching": False, "async_scheduling": False}
    return SGLangEngine(EngineConfig(**{**plain, **modes, **options}), max_iterations=1)


class Driver:
    """Runs iterations; for each what was computed: ``5x8`` is 8 prompt tokens of request 5, ``3`` a token of 3's."""

    def __init__(self, made: SGLangEngine) -> None:
        self.engine = made
        self.now_s = 0.0
        self.ran: list[str] = []
        self.count = 0

    def add(self, prompt_tokens: int, output_tokens: int) -> Request:
        keys = (range(1000 * self.count, 1000 * self.count + prompt_tokens + output_tokens),)
        request = Request(self.count, self.now_s, prompt_tokens, output_tokens, block_keys=keys)
        self.count += 1
        self.engine.add(request, self.now_s)
        return request

    def run(self, steps: int = 1) -> None:
        for _ in range(steps):
            step = self.engine.plan(self.now_s)
            assert step is not None
            decoding = [str(request.index) for request in self.engine.decoding.requests]
            prompts = [f"{chunk.request.index}x{chunk.tokens}" for chunk in step.chunks]
            assert len(step.batch.decode_context_tokens) == (0 if prompts else len(decoding))
            self.ran.append(" ".join(prompts or sorted(decoding)))
            self.now_s += 1.0
            self.engine.commit(step, self.now_s)
            check_engine(0, self.engine)

    def finish(self) -> list[str]:
        while not self.engine.idle:
            self.run()
        return self.ran


def test_prompts_go_first_and_alone() -> None:
    driver = Driver(engine())
    first = driver.add(10, 4)
    driver.run(2)
    driver.add(20, 2)
    assert driver.finish() == ["0x10", "0", "1x20", "0 1", "0"]
    # Its second token came at 2 s, its third had to wait for the prompt.
    assert (first.first_token_s, first.last_token_s, first.max_itl_s) == (1.0, 5.0, 2.0)


def test_a_chunk_takes_whole_prompts_and_a_piece_of_the_last() -> None:
    driver = Driver(engine(max_num_batched_tokens=32))
    requests = [driver.add(tokens, 2) for tokens in (20, 30, 6)]
    assert driver.finish() == ["0x20 1x12", "1x18 2x6", "0 1 2"]
    # Who waited for the second batch of prompts alone waited 2 s, the others 1.
    assert [request.max_itl_s for request in requests] == [2.0, 1.0, 1.0]


def test_no_more_run_than_places() -> None:
    driver = Driver(engine(max_num_seqs=2))
    for output in (2, 3, 2):
        driver.add(3, output)
    assert driver.finish() == ["0x3 1x3", "0 1", "2x3", "1 2"]


@pytest.mark.parametrize(("kv_blocks", "admitted"), [(53, "0x10 1x10"), (56, "0x10 1x10 2x15")])
def test_without_a_cache_a_prompt_is_admitted_where_memory_lasts_at_every_end(kv_blocks: int, admitted: str) -> None:
    # All three hold 35 at first, 15 more when 1 ends, which gives back 15; 10 more when 2 ends, which gives back 25; 30
    # more when 0 ends. The most are 50 at the first end, and a token for each of those that are left is kept free.
    driver = Driver(engine(kv_blocks=kv_blocks))
    for prompt, output in ((10, 40), (10, 5), (15, 10)):
        driver.add(prompt, output)
    driver.run()
    assert driver.ran == [admitted]
    if "2x15" not in admitted:
        driver.run(4)
        # Nobody is asked again before somebody has gone.
        assert driver.ran[1:] == ["0 1"] * 4
        driver.run()
        assert driver.ran[-1] == "2x15"


def full_of_long_answers(*, prefix_caching: bool) -> tuple[Driver, list[Request]]:
    """Three that have generated 21 of 60 tokens, and a fourth, which needs 10 and 30."""
    driver = Driver(engine(kv_blocks=215, prefix_caching=prefix_caching))
    running = [driver.add(10, 60) for _ in range(3)]
    driver.run(21)
    return driver, [*running, driver.add(10, 30)]


def test_with_a_cache_a_share_of_what_may_be_generated_is_enough() -> None:
    # 82 are free with its prompt in. The others may generate 117 more, of which 0.68 count, and itself 30, in full; at
    # its end, without that discount, they would be 220 together.
    for prefix_caching, ran in ((False, "0 1 2"), (True, "3x10")):
        driver, _ = full_of_long_answers(prefix_caching=prefix_caching)
        driver.run()
        assert driver.ran[-1] == ran


def test_who_has_generated_least_is_taken_back_when_memory_ends() -> None:
    driver, requests = full_of_long_answers(prefix_caching=True)
    driver.finish()
    # Then 20 steps of the three that are left would still not fit: one of them goes too.
    assert [request.preemptions for request in requests] == [1, 0, 0, 1]
    assert all(request.generated_tokens == request.output_tokens for request in requests)


def test_between_two_looks_newcomers_wait() -> None:
    driver = Driver(engine(scheduler_recv_interval=4))
    driver.add(5, 12)
    driver.run(2)
    driver.add(7, 2)
    driver.run(4)
    # The engine looked after the prompt, and looks again after four iterations of decoding.
    assert driver.ran == ["0x5", "0", "0", "0", "0", "1x7"]


def test_newcomers_may_wait_in_one_step_of_several_iterations() -> None:
    made = SGLangEngine(engine(scheduler_recv_interval=10).config, max_iterations=None)
    driver = Driver(made)
    driver.add(5, 50)
    step = made.plan(0.0)
    made.commit(step, 1.0)
    step = made.plan(1.0)
    made.commit(step, 2.0)
    driver.now_s = 2.0
    driver.add(7, 2)
    assert made.plan(2.0).iterations == 9


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.one_of(cases(), cases(faults=True)), st.sampled_from([1, 3, 30]))
def test_whatever_happens_all_requests_end_and_a_step_is_of_one_kind(case: Case, interval: int) -> None:
    config = EngineConfig(
        kv_blocks=case.engine.kv_blocks,
        max_model_len=case.engine.max_model_len,
        max_num_seqs=case.engine.max_num_seqs,
        max_num_batched_tokens=case.engine.max_num_batched_tokens,
        block_tokens=case.engine.block_tokens,
        prefix_caching=case.engine.prefix_caching,
        async_scheduling=case.engine.async_scheduling,
        scheduler_recv_interval=interval,
    )
    cost = AffineCost(base_s=0.01, per_sequence_s=1e-4, per_prefill_token_s=1e-4)
    spec = InstanceSpec(config, cost, kv_bytes_per_token=1, make_engine=SGLangEngine)
    runs = [
        simulate_fleet(
            case.trace,
            Policy(RoundRobin()),
            [spec] * case.instances,
            Placement(case.instances),
            rules=Rules(validate=True, fast_forward=fast),
        )
        for fast in (True, False)
    ]
    ended = requests(runs[0])
    assert len(ended["status"]) == len(case.trace)
    steps = iterations(runs[0])
    assert ((steps["decode_requests"] == 0) | (steps["prefill_requests"] == 0)).all()
    assert (steps["prefill_tokens"] <= config.max_num_batched_tokens).all()
    for column in ("ttft_s", "e2e_s", "max_itl_s"):
        np_equal(ended[column], requests(runs[1])[column])


@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(cases(faults=True))
def test_requests_that_migrate_or_are_lost_end_too(case: Case) -> None:
    cost = AffineCost(base_s=0.01, per_sequence_s=1e-4, per_prefill_token_s=1e-4)
    spec = InstanceSpec(case.engine, cost, kv_bytes_per_token=100, make_engine=SGLangEngine)
    result = simulate_fleet(
        case.trace,
        build(case),
        [spec] * case.instances,
        Placement(case.instances, gpus_per_node=2, intra=SLOW, inter=SLOW),
        events=[Fail(instance, time_s) for instance, time_s in case.failures],
        rules=Rules(validate=True, migration=case.migration, network=case.network),
    )
    assert len(result.requests) == len(case.trace)
    assert not any(result.kv_blocks_held)


def np_equal(one: Any, other: Any) -> None:
    assert one == pytest.approx(other, nan_ok=True, rel=1e-9, abs=1e-9)


def test_it_is_asked_for_by_name_and_refuses_what_it_does_not_know() -> None:
    setup = resolve(Options(instances=1, engine_rules="sglang-0.5"))
    assert (setup.engine.max_num_batched_tokens, setup.engine.max_num_seqs) == (8192, 2048)
    with pytest.raises(InputError, match="--scheduler-recv-interval: not known to the rules of vllm"):
        resolve(Options(scheduler_recv_interval=5))
    with pytest.raises(InputError, match="--scheduling-policy: not known to the rules of sglang"):
        resolve(Options(engine_rules="sglang-0.5", scheduling_policy="priority"))
