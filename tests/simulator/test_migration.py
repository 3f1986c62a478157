"""Live migration, worked by hand on a cluster of two."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.policies.agent import Crossed, Migrate, MigrationEnded, Started, Watch
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.simulator import Rules, simulate
from l4sim.specs.link import Link
from l4sim.specs.placement import Placement
from tests.simulator.conftest import make_trace, migrations, requests, texts

ITERATION_S = 0.010
COST = AffineCost(base_s=ITERATION_S)
BYTES_PER_TOKEN = 1_000


class FirstInstance:
    """Routes everything to the first instance."""

    def route(self, request, instances):
        return 0


class Mover:
    """Moves every request to ``to`` once its context reaches a length."""

    def __init__(self, boundary_tokens, to):
        self.boundary_tokens, self.to, self.ends = boundary_tokens, to, []

    def handle(self, stimulus, own, now_s):
        match stimulus:
            case Started():
                return (Watch(self.boundary_tokens),)
            case Crossed(request):
                return (Migrate(request.request, self.to, "handover"),)
            case MigrationEnded():
                self.ends.append((stimulus, now_s))
        return ()


def run(trace, *, bytes_per_s, boundary_tokens=50, rules=None, to=1, instances=2, fast_forward=True, **engine):
    options = {"kv_blocks": 40, "max_model_len": 500, "max_num_seqs": 8, "max_num_batched_tokens": 64} | engine
    options.setdefault("async_scheduling", False)
    link = Link("test", bytes_per_s=bytes_per_s, latency_s=0.001)
    agents = [Mover(boundary_tokens if number == 0 else None, to) for number in range(instances)]
    result = simulate(
        trace,
        router=FirstInstance(),
        agents=agents,
        cluster=Placement(instances, intra=link, inter=link),
        engine=EngineConfig(**options),
        cost=COST,
        kv_bytes_per_token=BYTES_PER_TOKEN,
        rules=Rules(migration=rules or MigrationRules(last_stage_blocks=1, slowdown=0.0), fast_forward=fast_forward),
    )
    return result, agents[0]


def test_blocks_are_copied_while_decoding_goes_on_and_only_the_rest_pauses_the_request():
    # The prompt of 40 takes one iteration, to 0.010. The 10th token after it makes 50 in the cache, at 0.110.
    # Copying 50 tokens takes 1 ms + 50 kB / 1 MB/s = 51 ms, to 0.161; by then the iterations up to 0.160 have made 55.
    # The rest is under a block: the request leaves with the iteration that ends at 0.170, with 56. Its last 6 tokens
    # take 7 ms, to 0.177, and so it decodes at the destination from there on.
    result, _ = run(make_trace([0.0], [40], [30]), bytes_per_s=1e6)
    [moved] = np.column_stack(
        [migrations(result)[k] for k in ("asked_s", "pause_start_s", "end_s", "pause_s", "stages")]
    )
    assert moved == pytest.approx([0.110, 0.170, 0.177, 0.007, 2])
    assert migrations(result)["copied_bytes"][0] == 56 * BYTES_PER_TOKEN
    assert texts(result.migrations, "status")[0] == "done"

    ended = requests(result)
    assert ended["migrations"][0] == 1
    assert (ended["first_instance"][0], ended["last_instance"][0]) == (0, 1)
    # 30 tokens: one with the prompt, 29 iterations, and the pause.
    assert ended["e2e_s"][0] == pytest.approx(30 * ITERATION_S + 0.007)
    assert ended["max_itl_s"][0] == pytest.approx(ITERATION_S + 0.007)


@pytest.mark.parametrize("fast_forward", [True, False])
def test_iterations_take_longer_while_an_instance_takes_part_in_a_migration(fast_forward):
    # As above, but 10 % slower: asked for at 0.110, when the iteration to 0.120 has begun. Copying ends at 0.161, in
    # the fourth slow iteration (0.153 to 0.164), which the request leaves with; its last 5 tokens take 6 ms.
    rules = MigrationRules(last_stage_blocks=1, slowdown=0.1)
    result, _ = run(make_trace([0.0], [40], [30]), bytes_per_s=1e6, rules=rules, fast_forward=fast_forward)
    assert migrations(result)["pause_start_s"][0] == pytest.approx(0.120 + 4 * 0.011)
    assert migrations(result)["end_s"][0] == pytest.approx(0.164 + 0.006)
    # 12 iterations to 0.120 with the prompt's, 4 slow ones, the pause, and 14 at the destination, at full speed again.
    assert requests(result)["e2e_s"][0] == pytest.approx(30 * ITERATION_S + 4 * 0.001 + 0.006)


def test_transfers_that_leave_one_instance_at_once_share_its_link():
    # Three requests of 50 tokens cross, each to another instance; the first one's prompt runs before the others' two.
    class Spreader(Mover):
        def handle(self, stimulus, own, now_s):
            if isinstance(stimulus, Crossed):
                return (Migrate(stimulus.request.request, 1 + stimulus.request.request, "handover"),)
            return super().handle(stimulus, own, now_s)

    link = Link("test", bytes_per_s=1e6, latency_s=0.001)
    result = simulate(
        make_trace([0.0] * 3, [40] * 3, [60] * 3),
        router=FirstInstance(),
        agents=[Spreader(50, 0), *(Mover(None, 0) for _ in range(3))],
        cluster=Placement(4, intra=link, inter=link),
        engine=EngineConfig(
            kv_blocks=40, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=128, async_scheduling=False
        ),
        cost=COST,
        kv_bytes_per_token=BYTES_PER_TOKEN,
        rules=Rules(migration=MigrationRules(last_stage_blocks=2, slowdown=0.0)),
    )
    moved = migrations(result)
    # The first has sent 10 kB when the others join at 0.120; the 40 left take 120 ms at a third of 1 MB/s, to 0.240.
    # The others have 10 kB left then: half goes until the first one's last 14 kB join at 0.250, the rest takes 15 ms.
    assert moved["pause_start_s"] == pytest.approx([0.250, 0.270, 0.270])
    # At 0.270 the first has 4 kB left, the others 15 each: 12 ms for the three of them, 22 ms for two. Latency is 1 ms.
    assert moved["end_s"] == pytest.approx([0.283, 0.305, 0.305])


def test_stages_follow_one_another_until_little_is_left():
    # 50 tokens take 501 ms at 100 kB/s; the 50 made meanwhile are more than two blocks, and so they are copied while
    # decoding goes on too, and again the 50 of that time.
    rules = MigrationRules(last_stage_blocks=2, max_stages=3, slowdown=0.0)
    result, agent = run(make_trace([0.0], [40], [400]), bytes_per_s=1e5, rules=rules)
    assert migrations(result)["stages"][0] == 3
    assert texts(result.migrations, "reason")[0] == "copying did not catch up with decoding"
    [(end, _)] = agent.ends
    assert not end.done
    assert requests(result)["last_instance"][0] == 0
    assert requests(result)["e2e_s"][0] == pytest.approx(400 * ITERATION_S)


def test_a_request_that_ends_first_stays():
    result, agent = run(make_trace([0.0], [40], [12]), bytes_per_s=1e6)
    [(end, _)] = agent.ends
    assert (end.done, end.reason) == (False, "the request ended first")
    assert requests(result)["e2e_s"][0] == pytest.approx(12 * ITERATION_S)
    assert result.kv_blocks_held == (0, 0)


class FirstThenSecond:
    """Routes the first request to the first instance, the next to the second."""

    def route(self, request, instances):
        return 0 if request.request == 0 else 1


def run_beside_another(trace, *, bytes_per_s, kv_blocks, rules=None, **engine):
    """The first request crosses 50 tokens, and asks for the instance that serves the second."""
    link = Link("test", bytes_per_s=bytes_per_s, latency_s=0.001)
    mover = Mover(50, 1)
    result = simulate(
        trace,
        router=FirstThenSecond(),
        agents=[mover, Mover(None, 0)],
        cluster=Placement(2, intra=link, inter=link),
        engine=EngineConfig(
            kv_blocks=kv_blocks, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=64, **engine
        ),
        cost=COST,
        kv_bytes_per_token=BYTES_PER_TOKEN,
        rules=Rules(migration=rules or MigrationRules()),
    )
    return result, mover.ends


def test_a_destination_without_room_refuses():
    # The destination has the same 5 blocks: 50 tokens and one block more take them all, and another request is there.
    result, ends = run_beside_another(make_trace([0.0, 0.0], [40, 20], [30, 60]), bytes_per_s=1e6, kv_blocks=5)
    assert [(end.done, end.reason) for end, _ in ends] == [(False, "the destination has no room")]
    assert (requests(result)["status"] == 0).all()


def run_slowly_beside_another(arrival_s, output_tokens, copied_s=0.415):
    """50 tokens and one block more are 5 of 6 blocks, room for 80. Copying takes 305 ms, from 0.110 to 0.415.

    80 tokens are there then, and the iteration under way makes the 81st. Another request comes with 2 tokens.
    """
    bytes_per_s = 50_000 / (copied_s - 0.111)
    return run_beside_another(
        make_trace([0.0, arrival_s], [40, 2], [50, output_tokens]),
        bytes_per_s=bytes_per_s,
        kv_blocks=6,
        rules=MigrationRules(last_stage_blocks=2, slowdown=0.0),
        async_scheduling=False,
    )


def test_a_copied_request_stays_in_its_batch_where_its_next_token_would_find_no_room():
    # The 6th block is the other request's, there from 0.300 to 0.440.
    result, [(end, ended_s)] = run_slowly_beside_another(0.3, 14)
    assert (end.done, end.reason) == (False, "the destination has no room")
    assert ended_s == pytest.approx(0.415)
    assert np.isnan(migrations(result)["pause_start_s"][0])
    assert requests(result)["e2e_s"] == pytest.approx([50 * ITERATION_S, 14 * ITERATION_S])


def test_a_copied_request_whose_next_token_still_has_room_asks_for_no_more():
    # At 0.405 there are 79 tokens, and the iteration under way makes the 80th, the last that fits.
    result, ends = run_slowly_beside_another(0.3, 14, copied_s=0.405)
    assert [end.done for end, _ in ends] == [True]
    assert migrations(result)["pause_start_s"] == pytest.approx([0.410])


def test_a_reservation_holds_the_token_that_the_iteration_under_way_makes():
    # The 6th block is taken at 0.415, before the request leaves at 0.420, so that the other, which asks for it at
    # 0.417, waits until the first has ended.
    result, ends = run_slowly_beside_another(0.417, 2)
    assert [end.done for end, _ in ends] == [True]
    assert requests(result)["queue_s"][1] > 0


@pytest.mark.parametrize(
    ("to", "rules", "reason"),
    [
        (0, MigrationRules(), "the destination is the source"),
        (1, MigrationRules(max_concurrent=0), "the source takes part in as many migrations as it may"),
    ],
)
def test_refusals_say_why(to, rules, reason):
    result, agent = run(make_trace([0.0], [40], [30]), bytes_per_s=1e6, to=to, rules=rules)
    assert agent.ends[0][0] == MigrationEnded(0, to, False, reason)
    assert texts(result.migrations, "reason")[0] == reason


def test_no_more_than_the_allowed_transfers_run_at_a_time():
    trace = make_trace([0.0] * 5, [40] * 5, [30] * 5)
    _, agent = run(trace, bytes_per_s=1e6, max_num_batched_tokens=256)
    assert sorted(end.done for end, _ in agent.ends) == [False, False, True, True, True]


def test_tensor_parallel_ranks_send_their_shares_at_once():
    link = Link("test", bytes_per_s=1e6, latency_s=0.001)
    mover = Mover(50, 1)
    result = simulate(
        make_trace([0.0], [40], [30]),
        router=FirstInstance(),
        agents=[mover, Mover(None, 0)],
        cluster=Placement(2, tensor_parallel=2, intra=link, inter=link),
        engine=EngineConfig(
            kv_blocks=40, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False
        ),
        cost=COST,
        kv_bytes_per_token=BYTES_PER_TOKEN,
        rules=Rules(migration=MigrationRules(slowdown=0.0)),
    )
    # 50 kB in two halves: 1 + 25 ms from 0.110 to 0.136; it leaves at 0.140 with 53, whose last 3 take 1 + 1.5 ms.
    assert migrations(result)["pause_start_s"][0] == pytest.approx(0.140)
    assert migrations(result)["end_s"][0] == pytest.approx(0.1425)
