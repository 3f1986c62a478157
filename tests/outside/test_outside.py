"""A package that is installed beside l4sim serves its policies, cost models, engines and formats wherever named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import l4sim
from l4sim.cli import main
from l4sim.errors import InputError
from l4sim.experiment import Options
from l4sim.gain import explain_gain

NAMES = {"policy": "last-instance", "cost_model": "constant", "engine_rules": "short-prompts", "format": "triples"}
ATTRIBUTES = {
    "policy": "l4sim_outside:last_instance",
    "cost_model": "l4sim_outside:constant_cost",
    "engine_rules": "l4sim_outside:ShortPrompts",
    "format": "l4sim_outside:TRIPLES",
}
CLUSTER = {"instances": 3, "model": "tiny", "kv_blocks": 4096}


@pytest.fixture(params=[NAMES, ATTRIBUTES], ids=["entry points", "module:attribute"])
def names(request, installed):
    return request.param


def check(requests):
    """What the package's four things make of the trace, each by what only it does."""
    done, rejected = requests[requests["status"] == "finished"], requests[requests["status"] == "rejected"]
    assert (len(done), len(rejected)) == (18, 2)
    assert set(rejected["reason"]) == {"the prompt is too long"}
    assert set(done["first_instance"]) == {2}
    assert done["tpot_s"].to_numpy() == pytest.approx(0.01)


@pytest.mark.slow
def test_a_comparison_in_python(names, triples):
    trace = l4sim.load_trace(triples, format=names["format"])
    cluster = l4sim.Cluster(**CLUSTER, cost_model=names["cost_model"], engine_rules=names["engine_rules"])
    result = l4sim.compare(trace, ["round-robin", names["policy"]], cluster)
    rival, own = (run.requests for run in result.runs)
    check(own)
    assert set(rival["first_instance"]) == {-1, 0, 1, 2}


@pytest.mark.slow
def test_a_comparison_on_the_command_line(names, triples, capsys):
    command = [
        *("compare", str(triples), "--format", names["format"], "--policies", f"{names['policy']},round-robin"),
        *("--cost-model", names["cost_model"], "--engine-rules", names["engine_rules"]),
        *("--instances", "3", "--model", "tiny", "--kv-blocks", "4096", "--json"),
    ]
    if names is NAMES:
        # In a process of its own: what is offered under a name must be found by one that has imported nothing of it.
        done = subprocess.run([sys.executable, "-m", "l4sim", *command], capture_output=True, text=True, check=True)
        printed = done.stdout
    else:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(command)
        printed = capsys.readouterr().out
    own, rival = json.loads(printed)["policies"]
    assert (own["policy"], rival["policy"]) == (names["policy"], "round-robin")
    assert (own["requests"]["finished"], own["requests"]["rejected"]) == (18, 2)
    assert own["tpot_s"]["mean"] == pytest.approx(0.01)


def grid(names, triples):
    return {
        **CLUSTER,
        "trace": str(triples),
        "format": names["format"],
        "policies": [names["policy"], "round-robin"],
        "cost_model": names["cost_model"],
        "engine_rules": names["engine_rules"],
        "seed": [0, 1],
    }


@pytest.mark.slow
def test_a_sweep_in_two_processes(names, triples, tmp_path):
    result = l4sim.sweep(grid(names, triples), tmp_path / "sweep", jobs=2)
    assert list(result.means["policy"]) == [names["policy"], "round-robin"]
    assert set(result.means["seeds"]) == {2}
    assert set(result.points["requests_rejected"]) == {2}
    assert result.means["tpot_mean_s"].to_numpy() == pytest.approx(0.01)


@pytest.mark.slow
def test_code_that_has_changed_runs_again(installed, triples, tmp_path):
    runs = []

    def ended():
        runs.clear()
        l4sim.sweep(grid(NAMES, triples), tmp_path / "sweep", report=lambda progress: runs.append(progress.ended))
        return runs[-1]

    assert ended() == 4
    assert ended() == 0
    module = installed / "l4sim_outside.py"
    module.write_text(module.read_text().replace("ITERATION_S = 0.01", "ITERATION_S = 0.0125"))
    assert ended() == 4


@pytest.mark.slow
def test_another_version_of_the_package_runs_again(installed, triples, tmp_path):
    before = l4sim.sweep(grid(NAMES, triples), tmp_path / "sweep")
    [info] = installed.glob("*.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: l4sim-outside\nVersion: 2.0\n")
    l4sim.sweep(grid(NAMES, triples), tmp_path / "sweep")
    assert len(list((tmp_path / "sweep" / "points").iterdir())) == 2 * len(before.points)


@pytest.mark.slow
def test_a_gain_over_a_policy_from_outside(installed, triples):
    trace = l4sim.load_trace(triples, format="triples")
    options = Options(**CLUSTER, engine_rules="short-prompts")
    explained = explain_gain(trace, options, ["last-instance", "l4sim_outside:last_instance"], "least-harm")
    assert list(explained.normalized_latency_s) == ["least-harm", "last-instance", "l4sim_outside:last_instance"]
    assert (explained.rival, explained.finished) == ("last-instance", 18)
    with pytest.raises(InputError, match="explained by the bundled cost models: accepted are tile, mean"):
        explain_gain(trace, Options(**CLUSTER, cost_model="constant"), ["last-instance"], "least-harm")


@pytest.mark.slow
def test_a_module_in_the_working_directory_needs_no_installation(installed, triples, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    source = (installed / "l4sim_outside.py").read_text()
    (elsewhere / "here_alone.py").write_text(source)
    shutil.rmtree(installed)
    (elsewhere / "grid.yaml").write_text(
        f"{{policies: 'here_alone:last_instance', trace: {triples}, format: 'here_alone:TRIPLES', "
        "model: tiny, instances: 3, kv_blocks: 4096}"
    )
    # As the console script is run, which has no working directory on its path.
    program = "import sys; sys.path = [p for p in sys.path if p]; from l4sim.cli import main; main()"
    command = [sys.executable, "-c", program, "sweep", "grid.yaml", "--out", "out", "--jobs", "2", "--no-plots"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 points done, 0 failed" in done.stdout


@pytest.mark.slow
def test_a_bundled_name_cannot_be_taken(installed, triples):
    [info] = installed.glob("*.dist-info")
    (info / "entry_points.txt").write_text("[l4sim.policies]\nround-robin = l4sim_outside:last_instance\n")
    trace = l4sim.load_trace(triples, format="l4sim_outside:TRIPLES")
    requests = l4sim.replay(trace, "round-robin", l4sim.Cluster(**CLUSTER)).requests
    assert len(set(requests["first_instance"])) > 1


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        ("l4sim_outside:ITERATION_S", {}, "is a float: accepted is what builds a Policy, or a PolicyEntry"),
        (
            "least-harm",
            {"cost_model": "l4sim_outside:ITERATION_S"},
            "is a float: accepted is a function that builds one",
        ),
        (
            "least-harm",
            {"cost_model": "l4sim_outside:no_cost"},
            "its builder made a NoneType, which has no iteration_s",
        ),
        (
            "least-harm",
            {"engine_rules": "l4sim_outside:ITERATION_S"},
            "are a float: accepted is what makes an engine",
        ),
    ],
)
def test_what_is_of_another_kind_is_told_so(policy, options, message, installed, triples):
    trace = l4sim.load_trace(triples, format="triples")
    with pytest.raises(InputError, match=message):
        l4sim.replay(trace, policy, l4sim.Cluster(**options))


def test_a_format_that_is_none_is_told_so(installed, triples):
    with pytest.raises(InputError, match="trace format 'l4sim_outside:ITERATION_S' is a float: accepted is a Format"):
        l4sim.load_trace(triples, format="l4sim_outside:ITERATION_S")
