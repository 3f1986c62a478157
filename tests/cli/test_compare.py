"""The command line as its users meet it: outputs, files, refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from l4sim.cli import main
from l4sim.specs.option import described
from l4sim.specs.options import GROUPS, Options, TraceOptions

SMALL = ["--limit", "40", "--instances", "3", "--model", "llama-3.1-8b"]


def run(capsys, *argv):
    """Exit code, stdout and stderr of a call."""
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    captured = capsys.readouterr()
    return exit_.value.code, captured.out, captured.err


@pytest.mark.slow
def test_compare_prints_a_table_and_says_whether_l4_pays(capsys):
    code, out, _ = run(capsys, "compare", *SMALL, "--policies", "round-robin,l4")
    assert code == 0
    assert "40 requests of long-context-mix on 3 instances of llama-3.1-8b, h200-sxm" in " ".join(out.split())
    assert "plan of l4: [0, " in out
    assert "round-robin" in out
    assert "mean normalized latency" in " ".join(out.split())


@pytest.mark.slow
def test_compare_says_how_sure_it_is_and_who_loses(capsys):
    options = [*SMALL, "--policies", "round-robin,least-outstanding"]
    code, out, _ = run(capsys, "compare", *options)
    assert code == 0
    told = " ".join(out.split())
    assert "95 % interval, paired by request" in told
    assert "Who loses:" in told or "No length class is more than" in told
    _, out, _ = run(capsys, "compare", *options, "--json")
    comparison = json.loads(out)["comparison"]
    assert (comparison["against"], comparison["requests"]) == ("round-robin", 40)
    assert {row["verdict"] for row in comparison["changes"]} <= {"better", "worse", "cannot tell"}


@pytest.mark.slow
def test_compare_leaves_what_the_design_lists(capsys, tmp_path):
    code, _, _ = run(capsys, "compare", *SMALL, "--policies", "random,l4", "--timeline", "--out", str(tmp_path))
    assert code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "requests.parquet", "iterations.parquet", "migrations.parquet", "summary.json"} <= names
    assert {"timeline-random.json", "timeline-l4.json", "latency_cdf.png", "plan.png"} <= names

    requests = pd.read_parquet(tmp_path / "requests.parquet")
    assert requests.groupby("policy").size().to_dict() == {"random": 40, "l4": 40}
    assert (requests["status"] == "finished").all()
    np.testing.assert_allclose(requests["normalized_latency_s"], requests["e2e_s"] / requests["output_tokens"])

    config = json.loads((tmp_path / "config.json").read_text())
    assert config["options"]["instances"] == 3
    assert config["engine"]["max_num_seqs"] == 1024
    assert len(config["profile"]["sha256"]) == 64
    assert len(config["trace"]["sha256"]) == 64


@pytest.mark.slow
def test_html_is_one_file_and_a_window_makes_a_timeline_smaller(capsys, tmp_path):
    options = ["--policy", "l4", "--no-plots", "--timeline", "--out", str(tmp_path)]
    run(capsys, "replay", *SMALL, *options)
    whole = (tmp_path / "timeline.json").stat().st_size
    code, _, err = run(capsys, "replay", *SMALL, *options, "--timeline-window", "1", "2", "--html")
    assert code == 0
    assert "report.html" in err
    assert "data:image/png" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "timeline.json").stat().st_size < whole / 2


@pytest.mark.slow
def test_deaths_are_told_and_nothing_is_lost(capsys):
    options = [*SMALL, "--policies", "least-harm,l4", "--fail", "1@5s", "--fail", "2@9999s"]
    code, out, _ = run(capsys, "compare", *options, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["config"]["options"]["failures"] == "1@5s,2@9999s"
    for summary in document["policies"]:
        [death] = summary["deaths"]
        assert (death["instance"], death["time_s"]) == (1, 5.0)
        assert summary["requests"]["finished"] == 40
    _, out, _ = run(capsys, "compare", *options)
    told = " ".join(out.split())
    for summary in document["policies"]:
        left = summary["deaths"][0]["requests"]
        assert f"{summary['policy']}: instance 1 died at 5 s, {left} requests had to leave it" in told
    assert "instance 2 lived: the run was over before 9999 s." in told


def test_what_became_of_instances_is_told(capsys):
    events = ["--join", "1@4s", "--drain", "0@6s", "--fail", "0@9999s", "--drain", "1@9999s", "--join", "1@9999s"]
    code, out, _ = run(capsys, "replay", *SMALL, "--policy", "least-harm", *events)
    assert code == 0
    told = " ".join(out.split())
    assert "least-harm: instance 3 joined at 4 s; instance 0 drained from 6 s (requests there: " in told
    assert re.search(r"and left at [\d.]+ s; instance 0 had left before 9999 s; instance 1 stayed: the run", told)
    assert "instance 4 never joined: the run was over before 9999 s." in told


@pytest.mark.slow
def test_l4_s_ablations_compare(capsys):
    policies = "l4:plan,l4:handover,l4:refinement,l4:within,l4:across"
    code, out, _ = run(capsys, "compare", *SMALL, "--policies", policies, "--json")
    assert code == 0
    summaries = {summary["policy"]: summary for summary in json.loads(out)["policies"]}
    assert ",".join(summaries) == policies
    assert sum(summaries["l4:plan"]["migrations"].values()) == 0
    assert {summary["requests"]["finished"] for summary in summaries.values()} == {40}


def test_help_shows_every_option_once_under_its_heading(capsys):
    code, out, _ = run(capsys, "compare", "--help")
    assert code == 0
    headings = [line.removesuffix(":") for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [*GROUPS, "Options"]
    for option in (*described(TraceOptions), *described(Options)):
        assert len(re.findall(rf"^  {option.flag}\b(?!-)", out, re.MULTILINE)) == 1, option.flag


@pytest.fixture
def fleet(tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text("groups: [{name: mine, count: 3, max_num_seqs: 64}]\nevents: [{fail: 1@5s}]\n")
    return str(path)


@pytest.mark.slow
def test_a_fleet_of_one_group_runs_as_the_options_do_that_it_stands_for(capsys, fleet):
    options = ["compare", "--limit", "40", "--policies", "round-robin,l4", "--json"]
    _, given, _ = run(capsys, *options, "--fleet", fleet)
    _, plain, _ = run(capsys, *options, "--instances", "3", "--max-num-seqs", "64", "--fail", "1@5s")
    given, plain = json.loads(given), json.loads(plain)
    assert given["policies"] == plain["policies"]
    for settled in ("engine", "cluster", "profile", "events"):
        assert given["config"][settled] == plain["config"][settled]


@pytest.mark.parametrize("option", ["--instances", "--max-num-seqs"])
def test_an_option_beside_a_fleet_that_decides_it_is_refused_even_at_its_default(capsys, fleet, option):
    code, _, err = run(capsys, "compare", "--fleet", fleet, option, "16")
    assert code == 2
    assert err == f"l4sim: {option} and --fleet exclude one another: the fleet decides that\n"


@pytest.mark.slow
def test_rules_of_migration_and_messages_are_options(capsys):
    options = [*SMALL, "--policy", "l4:across", "--json"]
    _, out, _ = run(capsys, "replay", *options)
    [plain] = json.loads(out)["policies"]
    assert plain["migrations"]["done"] > 0
    _, out, _ = run(capsys, "replay", *options, "--max-concurrent-migrations", "0")
    [few] = json.loads(out)["policies"]
    # What still waits has no KV to copy, and moves on all the same.
    assert few["migrations"]["done"] < plain["migrations"]["done"]
    assert few["requests"]["finished"] == 40
    _, out, _ = run(capsys, "replay", *options, "--message-latency", "5")
    [late] = json.loads(out)["policies"]
    assert late["e2e_s"] != plain["e2e_s"]


def test_no_plots_draws_none(capsys, tmp_path):
    run(capsys, "replay", *SMALL, "--policy", "least-harm", "--no-plots", "--out", str(tmp_path))
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.slow
def test_the_same_call_gives_the_same_bytes(capsys, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two):
        run(capsys, "compare", *SMALL, "--policies", "power-of-two,l4", "--seed", "3", "--out", str(out))
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_json_is_machine_readable_and_alone_on_stdout(capsys):
    code, out, _ = run(capsys, "replay", *SMALL, "--policy", "l4", "--json")
    document = json.loads(out)
    assert code == 0
    [summary] = document["policies"]
    assert summary["policy"] == "l4"
    assert document["config"]["policies"] == ["l4"]


@pytest.mark.slow
def test_plan_tiles_the_context_and_uses_every_instance(capsys):
    code, out, _ = run(capsys, "plan", "--instances", "16", "--json")
    plan = json.loads(out)
    assert code == 0
    stages = plan["stages"]
    assert stages[0]["lo_tokens"] == 0
    assert stages[-1]["hi_tokens"] == 131072
    assert [s["hi_tokens"] for s in stages[:-1]] == [s["lo_tokens"] for s in stages[1:]]
    assert sorted(i for s in stages for i in s["instances"]) == list(range(16))
    assert plan["feasible"]
    assert plan["planning_s"] > 0


@pytest.mark.slow
def test_an_overload_is_called_infeasible(capsys):
    code, out, _ = run(capsys, "plan", "--instances", "2", "--rate", "200")
    assert code == 0
    assert "infeasible" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["compare", "--policies", "round-robin,l5"], "no policy 'l5': accepted are random, round-robin"),
        (["compare", "--policies", "l4,l4"], "policy 'l4' is named twice"),
        (["compare", "--policies", ","], "--policies names no policy"),
        (["replay", "--polcy", "l4"], "No such option"),
        (["replay", "--instances", "0"], "'--instances': 0 is not in the range x>=1"),
        (["replay", "--model", "gpt-5"], "gpt-5"),
        (["replay", "--profile", "b300"], "no profile 'b300': accepted are"),
        (["replay", "--kernel", "fa9"], "no kernel 'fa9', accepted are"),
        (["replay", "--cost-model", "magic"], "no cost model 'magic': accepted are tile"),
        (["replay", "--rate", "1", "--rate-scale", "2"], "--rate and --rate-scale exclude one another"),
        (["replay", "--rate", "-1"], "'--rate': -1.0 is not in the range x>0"),
        (["replay", "--timeline"], "--timeline needs --out"),
        (["replay", "--html"], "--html needs --out"),
        (["replay", "--timeline-window", "1", "2"], "--timeline-window needs --timeline"),
        (["replay", "--plan-sample", "0"], "'--plan-sample': 0.0 is not in the range 0<x<=1"),
        (["replay", "--max-model-len", "10000000"], "--max-model-len 10000000 exceeds"),
        (["replay", "--max-num-seqs", "64", "--max-num-batched-tokens", "32"], "max_num_batched_tokens (32) must be"),
        (["replay", "--model", "llama-3.1-70b"], "llama-3.1-70b does not fit"),
        (["replay", "no-such-file.csv"], "no-such-file.csv"),
        (["replay", "--intra-link", "string"], "no link 'string': accepted are"),
        (["replay", "--fail", "3-120"], "--fail '3-120': accepted is INSTANCE@SECONDS, such as 3@120s"),
        (["replay", "--fail", ""], "--fail '': accepted is"),
        (["compare", "--instances", "4", "--fail", "4@1s"], "--fail 4@1s: no instance 4; accepted are 0 to 3"),
        (["replay", "--fail", "1@2s", "--fail", "1@3s"], "--fail 1@3s: instance 1 dies twice"),
        (["replay", "--drain", "1"], "--drain '1': accepted is INSTANCE@SECONDS, such as 3@120s"),
        (["replay", "--join", "1"], "--join '1': accepted is [GROUP:]COUNT@SECONDS, such as 2@300s"),
        (["replay", "--fleet", "none.yaml"], "none.yaml: cannot be read"),
        (["plan", "--fail", "1@2s"], "No such option '--fail'"),
        (["plan", "--message-latency", "1"], "No such option '--message-latency'"),
        (["replay", "--message-loss", "2"], "'--message-loss': 2.0 is not in the range 0<=x<=1"),
        (["simulate"], "No such command 'simulate'"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(capsys, argv, complaint):
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert complaint in err


def test_help_imports_no_heavy_package():
    script = (
        "import sys\nfrom l4sim.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'pandas', 'scipy', 'matplotlib', 'pyarrow', 'simpy', 'torch'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
