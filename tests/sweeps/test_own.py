"""Policies given to a sweep as a name and a builder, here and in other processes."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest

import l4sim
from l4sim.errors import InputError
from l4sim.policies.policy import Policy, PolicyEntry
from l4sim.policies.routers import RoundRobin
from l4sim.sweeps.own import own_policy


class Always:
    def __init__(self, instance):
        self._instance = instance

    def route(self, request, instances):
        return self._instance


def build_last(setting):
    return Policy(Always(setting.instances - 1))


def build_chosen(setting, instance):
    return Policy(Always(instance))


@pytest.fixture
def sweep(tiny, tmp_path):
    """Sweeps the tiny grid under given policies, always into the same folder; also says how many points ran."""
    ended = []

    def run(policies, **options):
        ended.clear()
        grid = {**tiny, "policies": policies, "instances": 3}
        result = l4sim.sweep(grid, tmp_path / "sweep", report=lambda progress: ended.append(progress.ended), **options)
        return result, ended[-1]

    return run


@pytest.mark.slow
def test_one_runs_beside_bundled_ones(sweep):
    result, _ = sweep(["round-robin", ("mine", build_last)])
    assert list(result.means["policy"]) == ["round-robin", "mine"]
    assert result.means["ttft_mean_s"].iloc[1] > 0


@pytest.mark.slow
def test_one_alone_needs_no_list(sweep):
    result, _ = sweep(("mine", build_last))
    assert list(result.means["policy"]) == ["mine"]


@pytest.mark.slow
def test_other_processes_find_the_same(sweep, tmp_path):
    # A lambda is sent with all that it holds.
    policies = ["round-robin", ("last", build_last), ("first", lambda setting: build_chosen(setting, 0))]
    here, _ = sweep(policies)
    for path in (tmp_path / "sweep" / "points").iterdir():
        path.unlink()
    elsewhere, ran = sweep(policies, jobs=2)
    assert ran == 3
    assert elsewhere.means.equals(here.means)


@pytest.mark.slow
def test_what_has_run_here_does_not_run_again_elsewhere(sweep):
    sweep(["round-robin", ("mine", build_last)])
    assert sweep(["round-robin", ("mine", build_last)], jobs=2)[1] == 0


@pytest.mark.slow
def test_another_builder_of_the_same_name_runs_again(sweep):
    assert sweep(("mine", partial(build_chosen, instance=0)))[1] == 1
    assert sweep(("mine", partial(build_chosen, instance=0)))[1] == 0
    assert sweep(("mine", partial(build_chosen, instance=1)))[1] == 1


@pytest.mark.slow
def test_an_entry_of_another_kind_runs_again(sweep):
    assert sweep(PolicyEntry("mine", build_last))[1] == 1
    assert sweep(("mine", build_last))[1] == 0
    assert sweep([PolicyEntry("mine", build_last, kind="oracle")], jobs=2)[1] == 1


@pytest.mark.slow
def test_a_search_takes_them(sweep, tiny, tmp_path):
    synth = {name: value for name, value in tiny["synth"].items() if name != "rate"}
    grid = {**tiny, "synth": {**synth, "rate": 5}, "policies": ["round-robin", ("mine", build_last)]}
    del grid["instances"]
    result = l4sim.sweep(grid, tmp_path / "search", slo="ttft_p99=5s", search="instances", jobs=2)
    assert list(result.capacity["policy"]) == ["round-robin", "mine"]
    assert set(result.capacity["instances"]) == {1}


@pytest.mark.slow
def test_the_folder_says_which_there_were(sweep, tmp_path):
    sweep(["round-robin", ("mine", build_last)])
    assert '"mine"' in (tmp_path / "sweep" / "config.json").read_text()


@pytest.mark.parametrize(
    ("policies", "complaint"),
    [
        ([("l4", build_last)], "grid: 'l4' is a bundled policy: call your own something else"),
        ([("mine", build_last), ("mine", build_last)], "grid: policies: a value is given twice"),
        ([build_last], "grid: <function build_last .* is no policy: accepted is a name, a PolicyEntry, or"),
        ([("mine", "l4")], r"grid: \('mine', 'l4'\) is no policy"),
    ],
)
def test_what_is_no_policy_is_refused(sweep, policies, complaint):
    with pytest.raises(InputError, match=complaint):
        sweep(policies)


@pytest.mark.slow
def test_a_builder_that_does_not_open_elsewhere_is_a_failed_point(sweep):
    result, _ = sweep(["round-robin", ("mine", Unopenable())], jobs=2)
    assert list(result.failures["policy"]) == ["mine"]
    assert result.failures["error"].tolist() == ["ValueError: opened where it should not be"]


class Unopenable:
    """Is pickled, and does not come back."""

    def __call__(self, setting):
        return Policy(RoundRobin())

    def __reduce__(self):
        return fail, ()


def fail():
    raise ValueError("opened where it should not be")


@pytest.mark.slow
def test_what_cannot_be_sent_is_told_so_before_anything_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    message = r"policy 'mine' cannot be sent to other processes \(.*<lambda> is in no module.*: accepted is .* MODULE"
    with pytest.raises(InputError, match=message):
        own_policy(PolicyEntry("mine", lambda setting: Policy(RoundRobin())), elsewhere=True)
    importable = PolicyEntry("mine", build_last)
    there, here = own_policy(importable, elsewhere=True), own_policy(importable, elsewhere=False)
    assert there.code_hash == here.code_hash


SCRIPT = """
import l4sim
from l4sim.policies.policy import Policy

class Last:
    def route(self, request, instances):
        return len(instances) - 1

def build(setting):
    return Policy(Last())

grid = {"policies": ["round-robin", ("mine", build)], "model": "tiny", "instances": 2, "kv_blocks": 4096,
        "synth": {"prompt_lengths": "fixed:tokens=200", "output_lengths": "fixed:tokens=20", "requests": 10, "rate": 5}}
if __name__ == "__main__":
    result = l4sim.sweep(grid, "out", jobs=2)
    print(list(result.means["policy"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["a script", "typed in, as in a notebook"])
def test_a_policy_that_a_script_or_notebook_defines_runs_in_two_processes(how, tmp_path):
    (tmp_path / "study.py").write_text(SCRIPT)
    command = ["study.py"] if how == "a script" else ["-c", SCRIPT]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['round-robin', 'mine']"]
