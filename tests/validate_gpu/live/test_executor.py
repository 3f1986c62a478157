import pytest
import torch

from l4sim.policies.routers import RoundRobin
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.simulator import Rules, simulate
from l4sim.specs.placement import Placement
from tests.simulator.conftest import iterations, migrations, requests
from tests.validate_gpu.live.live_runs import COST, KV_BYTES_PER_TOKEN, SLOW, ImposedTimes, MoveAt
from tests.validate_gpu.live.small import MODEL, device_engine, engine_config, make_trace, transformer
from validate_gpu.live.engine import DeviceEngine, torch_kernels
from validate_gpu.live.executor import LiveExecutor, RecordedExecutor
from validate_gpu.live.sequences import Sequences


class Remembering(DeviceEngine):
    """An engine that keeps the logits it has computed, by request."""

    def __init__(self, *args):
        self.remembered = {}
        super().__init__(*args)

    def logits(self, inputs):
        logits = super().logits(inputs)
        for (request, _), row in zip(inputs.samplers, logits, strict=True):
            self.remembered.setdefault(request, []).append(row.clone())
        return logits


def remembering(config, instances, devices=1):
    """Engines of so many instances each."""
    sequences = Sequences(MODEL.vocab, 0)
    return [Remembering(transformer(), config, instances, torch_kernels(), sequences) for _ in range(devices)]


def run(trace, executor, config, *, boundary=None, instances=2, rules=None):
    """Requests go to the instances in turn; those of instance 0 move to the last one at the boundary."""
    return simulate(
        trace,
        router=RoundRobin(),
        agents=[MoveAt(boundary if number == 0 else None, instances - 1) for number in range(instances)],
        cluster=Placement(instances, intra=SLOW, inter=SLOW),
        engine=config,
        cost=COST,
        kv_bytes_per_token=KV_BYTES_PER_TOKEN,
        rules=Rules(fast_forward=False, migration=rules or MigrationRules(last_stage_blocks=1)),
        executor=executor,
    )


# Instance 0 serves requests 0 and 2, instance 1 serves 1 and 3.
TRACE = make_trace([0.0, 0.001, 0.002, 0.003], [21, 9, 30, 4], [60, 40, 25, 70])


@pytest.mark.slow
def test_a_migrated_requests_logits_are_those_of_one_never_moved():
    alone = make_trace([0.0], [21], [60])
    config = engine_config()
    (moved,), (still,) = remembering(config, 2), remembering(config, 2)
    result = run(alone, ImposedTimes([moved]), config, boundary=40)
    run(alone, ImposedTimes([still]), config)
    assert requests(result)["migrations"].tolist() == [1]
    assert migrations(result)["stages"].tolist() == [3]
    assert len(moved.remembered[0]) == len(still.remembered[0]) == 60
    for here, there in zip(moved.remembered[0], still.remembered[0], strict=True):
        assert torch.equal(here, there)


@pytest.mark.slow
def test_so_are_they_among_other_requests_and_between_devices():
    config = engine_config()
    # Two copies share the link at a time: the third request needs an answer that is longer than that takes.
    trace = make_trace([0.0, 0.001, 0.002, 0.003], [21, 9, 30, 4], [60, 40, 45, 70])
    moved, still = remembering(config, 1, devices=2), remembering(config, 1, devices=2)
    moved_result = run(trace, ImposedTimes(moved), config, boundary=40)
    run(trace, ImposedTimes(still), config)
    assert requests(moved_result)["migrations"].tolist() == [1, 0, 1, 0]
    for request in range(4):
        here, there = ([row for e in engines for row in e.remembered.get(request, [])] for engines in (moved, still))
        # In float32, where only the order of sums may differ with the batch.
        torch.testing.assert_close(torch.stack(here), torch.stack(there), rtol=1e-4, atol=1e-4)
    # And the move is real: the request's last tokens were sampled at the destination.
    assert 0 in moved[1].remembered


@pytest.mark.slow
def test_a_preempted_request_computes_its_answer_again_and_goes_on_as_before():
    trace = make_trace([0.0, 0.0], [20, 21], [30, 30])
    roomy, tight = (engine_config(kv_blocks=blocks) for blocks in (40, 19))
    engines = device_engine(roomy, 1), device_engine(tight, 1)
    results = [
        run(trace, ImposedTimes([engine]), config, instances=1)
        for engine, config in zip(engines, (roomy, tight), strict=True)
    ]
    assert [int(requests(result)["preemptions"].sum()) for result in results] == [0, 1]
    assert engines[0].sequences.sampled == engines[1].sequences.sampled


@pytest.mark.slow
@pytest.mark.parametrize("async_scheduling", [False, True])
def test_the_simulator_repeats_a_live_runs_schedule_from_its_recorded_times(async_scheduling):
    config = engine_config(kv_blocks=45, async_scheduling=async_scheduling)
    live = LiveExecutor([device_engine(config, 2)])
    measured = run(TRACE, live, config, boundary=40)
    repeated = run(TRACE, RecordedExecutor(live.iterations), config, boundary=40)
    assert measured.requests.numbers == repeated.requests.numbers
    assert measured.iterations.numbers == repeated.iterations.numbers
    # Rows hold NaN, which equals nothing: bytes do.
    assert measured.migrations.numbers.tobytes() == repeated.migrations.numbers.tobytes()
    assert len(measured.migrations)


@pytest.mark.slow
def test_with_imposed_times_a_live_run_equals_a_simulation():
    config = engine_config(kv_blocks=45)
    engine = device_engine(config, 2)
    # What runs live is slowed down by copies as much as it is; the cost model alone has to be told.
    rules = MigrationRules(last_stage_blocks=1, slowdown=0.0)
    live = run(TRACE, ImposedTimes([engine]), config, boundary=40, rules=rules)
    simulated = run(TRACE, None, config, boundary=40, rules=rules)
    assert live.requests.numbers == simulated.requests.numbers
    assert live.iterations.numbers == simulated.iterations.numbers


@pytest.mark.slow
def test_no_page_is_left_when_a_run_has_ended():
    config = engine_config()
    engine = device_engine(config, 2)
    result = run(TRACE, ImposedTimes([engine]), config, boundary=40)
    assert [pool.pages_held for pool in engine.pools] == [0, 0]
    assert result.kv_blocks_held == (0, 0)


@pytest.mark.slow
def test_an_aborted_migration_leaves_no_page_behind():
    config = engine_config()
    engine = device_engine(config, 2)
    # One stage, and nothing may be left after it: copying never catches up.
    rules = MigrationRules(last_stage_blocks=0, max_stages=1)
    result = run(TRACE, ImposedTimes([engine]), config, boundary=40, rules=rules)
    assert 2 in migrations(result)["status"]
    assert [pool.pages_held for pool in engine.pools] == [0, 0]


@pytest.mark.slow
def test_an_iterations_seconds_are_divided_by_the_devices_slowness():
    config = engine_config(kv_blocks=45)
    measured_s = []

    def slowness(seconds):
        measured_s.append(seconds)
        return 2.0 + len(measured_s) % 2

    live = LiveExecutor([device_engine(config, 2)], slowness=slowness)
    result = run(TRACE, live, config, boundary=40)
    assert [iteration.slowness for iteration in live.iterations[:3]] == [3.0, 2.0, 3.0]
    assert [i.seconds * i.slowness for i in live.iterations] == pytest.approx(measured_s)
    repeated = run(TRACE, RecordedExecutor(live.iterations), config, boundary=40)
    assert result.requests.numbers == repeated.requests.numbers
    plain = LiveExecutor([device_engine(config, 2)])
    run(TRACE, plain, config, boundary=40)
    assert {iteration.slowness for iteration in plain.iterations} == {1.0}


@pytest.mark.slow
def test_every_iteration_is_kept_with_its_batch_and_its_seconds():
    config = engine_config()
    live = LiveExecutor([device_engine(config, 2)])
    result = run(TRACE, live, config)
    rows = iterations(result)
    for instance in (0, 1):
        own = {name: column[rows["instance"] == instance] for name, column in rows.items()}
        kept = [iteration for iteration in live.iterations if iteration.instance == instance]
        assert own["end_s"] - own["start_s"] == pytest.approx([iteration.seconds for iteration in kept])
        # Copies, not views into the engine's buffer, which has moved on.
        contexts = [iteration.batch.decode_context_tokens for iteration in kept]
        assert own["decode_requests"].tolist() == [len(lengths) for lengths in contexts]
        assert own["context_tokens"].tolist() == [lengths.sum() for lengths in contexts]
        chunks = [sum(chunk.chunk_tokens for chunk in iteration.batch.prefills) for iteration in kept]
        assert own["prefill_tokens"].tolist() == chunks


@pytest.mark.slow
def test_every_copy_is_kept_with_its_size():
    config = engine_config()
    live = ImposedTimes([device_engine(config, 2)])
    result = run(TRACE, live, config, boundary=40)
    # Those of migrations that were aborted are copies too.
    assert len(live.copies) > 1
    assert sum(copy.tokens for copy in live.copies) * KV_BYTES_PER_TOKEN == migrations(result)["copied_bytes"].sum()
    for copy in live.copies:
        assert (copy.source, copy.destination) == (0, 1)
        # Two layers' keys and values of 2 heads of 64 floats.
        assert copy.size_bytes == copy.tokens * 2 * 2 * 2 * 64 * 4
        assert copy.seconds > 0
        assert copy.equal


@pytest.mark.slow
def test_a_device_that_fails_ends_the_run_and_keeps_what_there_is():
    class Failing(DeviceEngine):
        def logits(self, inputs):
            if len(self.sequences.sampled[3]) == 45:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore lines")
            return super().logits(inputs)

    config = engine_config()
    failing = Failing(transformer(), config, 2, torch_kernels(), Sequences(MODEL.vocab, 0))
    result = run(TRACE, ImposedTimes([failing]), config)
    table = requests(result)
    assert table["status"].tolist() == [2, 0, 0, 2]
    assert result.requests.words["reason"][1].endswith("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_another_schedule_than_the_recorded_one_is_noticed():
    config = engine_config()
    live = LiveExecutor([device_engine(config, 2)])
    run(make_trace([0.0], [5], [3]), live, config)
    result = run(make_trace([0.0], [5], [4]), RecordedExecutor(live.iterations), config)
    assert result.requests.words["reason"] == ("", "instance 0 runs more iterations than were recorded")


@pytest.mark.slow
def test_an_engine_serves_the_next_run_afresh():
    config = engine_config()
    engine = device_engine(config, 2)
    run(TRACE, ImposedTimes([engine]), config, boundary=40)
    first = {request: tokens.tolist() for request, tokens in engine.sequences.sampled.items()}
    run(TRACE, ImposedTimes([engine]), config, boundary=40)
    assert {request: tokens.tolist() for request, tokens in engine.sequences.sampled.items()} == first
