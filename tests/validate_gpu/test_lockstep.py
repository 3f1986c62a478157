import dataclasses

import pytest

from l4sim.errors import InputError
from l4sim.experiment import Options, resolve
from tests.validate_gpu.live.small import make_trace
from validate_gpu.live.build import LiveOptions
from validate_gpu.lockstep import lockstep, repeat, shared_memory

POLICIES = ("round-robin", "llumnix", "l4")
TRACE = make_trace([0.01 * number for number in range(24)], [40, 300, 7, 600, 25, 90] * 4, [40, 3, 60, 20, 100, 30] * 4)
CPU = LiveOptions(device="cpu")


def setup(**changes):
    options = {
        "instances": 3,
        "model": "tiny",
        "max_model_len": 1024,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 256,
        "kv_blocks": 90,
        "prefix_caching": False,
    }
    return resolve(Options(**{**options, **changes}))


@pytest.fixture(scope="module")
def live():
    return lockstep(TRACE, POLICIES, setup(), CPU)


@pytest.mark.slow
def test_a_recorded_live_run_is_repeated_by_the_simulator_table_for_table(live):
    for [measured] in live.runs.values():
        run, again = measured.run, repeat(TRACE, setup(), measured)
        assert (run.requests["status"] == "finished").all()
        assert run.requests.equals(again.requests)
        assert run.iterations.equals(again.iterations)
        assert run.migrations.equals(again.migrations)


@pytest.mark.slow
def test_an_iterations_time_is_the_one_measured(live):
    [measured] = live.runs["round-robin"]
    for instance, own in measured.run.iterations.groupby("instance"):
        seconds = [iteration.seconds for iteration in measured.iterations if iteration.instance == instance]
        assert (own["end_s"] - own["start_s"]).tolist() == pytest.approx(seconds)
        assert min(seconds) > 0


@pytest.mark.slow
def test_every_policy_runs_as_often_as_asked_and_is_told_of():
    ended = []
    live = lockstep(make_trace([0], [4], [2]), ["random", "least-harm"], setup(), CPU, repeats=2, on_run=ended.append)
    assert [one.run.policy for one in ended] == ["random", "least-harm", "random", "least-harm"]
    assert [len(runs) for runs in live.runs.values()] == [2, 2]


def test_instances_on_one_device_share_its_blocks():
    alone = setup(instances=1, kv_blocks=None)
    assert shared_memory(setup(instances=3, kv_blocks=None)).engine.kv_blocks == alone.engine.kv_blocks // 3


@pytest.mark.slow
def test_the_device_is_described():
    device = lockstep(make_trace([0], [4], [2]), ["round-robin"], setup(), CPU).device
    assert device["device"] == "cpu"
    assert device["threads"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefix_caching": True}, "a live run has no prefix cache: accepted is --no-prefix-caching"),
        ({"tensor_parallel": 2}, "--tensor-parallel 2: accepted in a live run is 1"),
        ({"kv_blocks": 10**8}, r"do not fit the .* GiB free on the CPU .*: accepted is --kv-blocks \d+ or fewer"),
    ],
)
def test_what_live_instances_cannot_do_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        lockstep(TRACE, POLICIES, setup(**changes), CPU)


def test_an_attention_that_needs_a_gpu_is_refused_on_a_cpu():
    with pytest.raises(InputError, match="--attention cuda-cores needs a GPU: accepted on cpu is torch"):
        lockstep(TRACE, POLICIES, setup(), dataclasses.replace(CPU, attention="cuda-cores"))
    with pytest.raises(InputError, match="no attention 'fast': accepted are auto, torch, tensor-cores"):
        lockstep(TRACE, POLICIES, setup(), dataclasses.replace(CPU, attention="fast"))
