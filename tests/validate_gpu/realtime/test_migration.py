import pytest

from l4sim.policies.agent import Migrate, MigrationEnded
from l4sim.runtime.migration.methods import MigrationRules
from tests.validate_gpu.realtime.pair import Pair


def served(*requests, **options):
    """A pair that has served requests (side, prompt tokens, output tokens), numbered from 0."""
    pair = Pair(**options)
    for index, (side, prompt, output) in enumerate(requests):
        pair.submit(side, index, prompt, output)
    pair.run()
    return pair


@pytest.mark.slow
def test_a_migrated_request_says_what_it_would_have_said():
    moved = served((0, 20, 60), boundary=40)
    still = served((0, 20, 60), boundary=None)
    assert moved.sampled == still.sampled
    assert [side.finished != [] for side in moved.sides] == [False, True]
    request = moved.sides[1].finished[0]
    assert (request.migrations, request.first_instance, request.last_instance) == (1, 0, 1)
    assert moved.sides[1].agent.joined == [0]
    moved.assert_nothing_is_left()


@pytest.mark.slow
def test_it_is_copied_while_it_decodes_and_pauses_for_the_rest_alone():
    rules = MigrationRules(last_stage_blocks=1, max_stages=5)
    migration = served((0, 20, 60), boundary=40, rules=rules).migrations[0]
    assert migration.status == "done"
    assert (migration.source, migration.destination) == (0, 1)
    assert migration.stages >= 2
    # All KV but the last sampled token's.
    assert 40 <= migration.copied_bytes < 79
    assert 0 < migration.pause_s < 0.1


@pytest.mark.slow
def test_others_decode_on_meanwhile_and_say_the_same():
    requests = [(0, 20, 60), (1, 9, 70), (0, 25, 70), (1, 30, 50)]
    moved, still = served(*requests, boundary=50, kv_blocks=80), served(*requests, boundary=None, kv_blocks=80)
    assert {m.status for m in moved.migrations} == {"done"}
    assert len(moved.migrations) == 2
    assert moved.sampled == still.sampled
    moved.assert_nothing_is_left()


@pytest.mark.slow
def test_a_full_destination_refuses():
    # Instance 1 is filled by a request of 38 of its 40 blocks.
    pair = served((0, 20, 60), (1, 100, 50), boundary=40)
    assert [(m.request_id, m.status, m.reason) for m in pair.migrations] == [
        (0, "refused", "the destination has no room")
    ]
    assert pair.sides[0].agent.ended == [MigrationEnded(0, 1, False, "the destination has no room")]
    assert len(pair.sides[0].finished) == 1
    pair.assert_nothing_is_left()


@pytest.mark.slow
def test_stages_that_do_not_converge_are_called_off():
    rules = MigrationRules(last_stage_blocks=0, max_stages=1)
    # Nothing may be left after one stage, while each lasts a few iterations.
    pair = served((0, 20, 60), boundary=40, rules=rules, delay_s=0.003)
    assert [(m.status, m.reason) for m in pair.migrations] == [("aborted", "copying did not catch up with decoding")]
    pair.assert_nothing_is_left()


@pytest.mark.slow
def test_a_request_that_ends_meanwhile_ends_its_migration():
    pair = served((0, 20, 30), boundary=40, delay_s=0.05)
    assert [(m.status, m.reason) for m in pair.migrations] == [("aborted", "the request ended first")]
    assert [request.index for request in pair.sides[0].finished] == [0]
    pair.assert_nothing_is_left()


@pytest.mark.slow
def test_a_request_that_is_preempted_meanwhile_ends_its_migration():
    # Both requests of instance 0 grow to 20 blocks, of which it has 30: the one that came last is preempted.
    pair = served((0, 20, 60), (0, 20, 60), boundary=50, delay_s=0.02, kv_blocks=30, max_num_batched_tokens=64)
    assert (1, "aborted", "the request was preempted first") in [
        (m.request_id, m.status, m.reason) for m in pair.migrations
    ]
    assert len(pair.sampled) == 2
    pair.assert_nothing_is_left()


@pytest.mark.slow
def test_one_instance_takes_part_in_few_migrations_at_a_time():
    rules = MigrationRules(max_concurrent=1)
    pair = served((0, 20, 60), (0, 20, 60), boundary=40, rules=rules, max_num_batched_tokens=64, kv_blocks=80)
    assert sorted(m.status for m in pair.migrations) == ["done", "refused"]
    refused = next(m for m in pair.migrations if m.status == "refused")
    assert refused.reason == "the source takes part in as many migrations as it may"


@pytest.mark.parametrize(("wish", "reason"), [(Migrate(0, 0, "rebalance"), "the destination is the source")])
def test_senseless_wishes_are_refused(wish, reason):
    pair = Pair(boundary=None)
    pair.submit(0, 0, 4, 5)
    pair.sides[0].host.departures.ask(wish)
    assert pair.migrations[0].reason == reason


def test_a_request_that_does_not_decode_yet_and_has_begun_stays():
    pair = Pair(boundary=None)
    pair.submit(0, 0, 4, 5)
    # Its prompt is planned, so that it is neither waiting nor decoding.
    pair.sides[0].host.departures.ask(Migrate(0, 1, "rebalance"))
    pair.run()
    assert pair.migrations[0].reason == "the request does not decode at the source"


def test_a_request_that_has_not_begun_is_sent_on_as_it_is():
    pair = Pair(boundary=None, max_num_seqs=1, max_num_batched_tokens=24)
    pair.submit(0, 0, 4, 30)
    pair.submit(0, 1, 5, 6)
    pair.sides[0].host.departures.ask(Migrate(1, 1, "rebalance"))
    pair.run()
    assert [request.index for request in pair.sides[1].finished] == [1]
    request = pair.sides[1].finished[0]
    assert (request.first_instance, request.last_instance, request.migrations) == (1, 1, 1)
    assert [(m.status, m.copied_bytes) for m in pair.migrations] == [("done", 0)]
    pair.assert_nothing_is_left()
