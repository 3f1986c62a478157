"""Ways to migrate other than staged copy, worked by hand: a prompt of 40 tokens crosses 50, with 30 tokens to say."""

from __future__ import annotations

import pytest

from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError
from l4sim.policies.agent import Crossed, Migrate
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.simulator import Rules, simulate
from l4sim.specs.link import Link
from l4sim.specs.placement import Placement
from tests.simulator.conftest import make_trace, requests
from tests.simulator.test_migration import BYTES_PER_TOKEN, COST, ITERATION_S, FirstInstance, Mover

LINK = Link("test", bytes_per_s=1e6, latency_s=0.001)


def run(method, *, mover=None, kv_blocks=40):
    agents = [mover or Mover(50, 1), Mover(None, 0)]
    result = simulate(
        make_trace([0.0], [40], [30]),
        router=FirstInstance(),
        agents=agents,
        cluster=Placement(2, intra=LINK, inter=LINK),
        engine=EngineConfig(
            kv_blocks=kv_blocks, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False
        ),
        cost=COST,
        kv_bytes_per_token=BYTES_PER_TOKEN,
        rules=Rules(migration=MigrationRules(slowdown=0.0, method=method)),
    )
    return result, next(iter(result.migrations)), agents[0]


def test_stop_and_copy_pauses_a_request_for_all_of_its_kv():
    # It crosses with the iteration that ends at 0.110 and leaves with the one that ends at 0.120, with 51 tokens:
    # 1 ms and 51 kB at 1 MB/s.
    result, moved, _ = run("stop-and-copy")
    assert (moved.status, moved.stages) == ("done", 1)
    assert moved.copied_bytes == 51 * BYTES_PER_TOKEN
    assert [moved.asked_s, moved.pause_start_s, moved.end_s] == pytest.approx([0.110, 0.120, 0.172])
    ended = requests(result)
    assert ended["e2e_s"][0] == pytest.approx(30 * ITERATION_S + 0.052)
    assert (ended["migrations"][0], ended["preemptions"][0], ended["last_instance"][0]) == (1, 0, 1)
    assert result.kv_blocks_held == (0, 0)


def test_a_recomputed_request_waits_for_the_link_s_latency_and_its_prompt_again():
    # It leaves at 0.120 with 12 tokens said, arrives 1 ms later, and computes its 52 tokens in one iteration.
    result, moved, _ = run("recompute")
    assert (moved.status, moved.stages, moved.copied_bytes) == ("done", 0, 0)
    assert [moved.pause_start_s, moved.end_s] == pytest.approx([0.120, 0.121])
    ended = requests(result)
    assert ended["e2e_s"][0] == pytest.approx(0.121 + 18 * ITERATION_S)
    assert ended["max_itl_s"][0] == pytest.approx(0.011)
    assert (ended["migrations"][0], ended["first_instance"][0], ended["last_instance"][0]) == (1, 0, 1)
    assert result.kv_blocks_held == (0, 0)


def test_what_a_migration_is_for_is_the_policy_s_to_say():
    class Leaver(Mover):
        def handle(self, stimulus, own, now_s):
            if isinstance(stimulus, Crossed):
                return (Migrate(stimulus.request.request, 1, "evacuation"),)
            return super().handle(stimulus, own, now_s)

    _, moved, _ = run("staged-copy", mover=Leaver(50, 1))
    assert (moved.kind, moved.status) == ("evacuation", "done")


def test_unknown_methods_are_refused_by_name():
    with pytest.raises(InputError, match="no migration method 'teleport': accepted are staged-copy, stop-and-copy"):
        MigrationRules(method="teleport")
