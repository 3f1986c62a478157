"""`l4sim plan` as its users meet it."""

from __future__ import annotations

import json

import pytest

from l4sim.cli import main

SMALL = ["--limit", "200", "--rate", "2", "--instances", "4"]
HISTOGRAM = "prompt_tokens,output_tokens,requests_per_s\n500,200,8\n40000,400,1\n"


def run(capsys, *argv):
    """Exit code, stdout and stderr of a call."""
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    captured = capsys.readouterr()
    return exit_.value.code, captured.out, captured.err


def plan(capsys, *argv):
    code, out, _ = run(capsys, "plan", *argv, "--json")
    assert code == 0
    return json.loads(out)


@pytest.fixture
def histogram(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text(HISTOGRAM)
    return str(path)


def assert_tiles(stages, longest, instances):
    assert stages[0]["lo_tokens"] == 0
    assert stages[-1]["hi_tokens"] == longest
    assert [stage["lo_tokens"] for stage in stages[1:]] == [stage["hi_tokens"] for stage in stages[:-1]]
    assert [number for stage in stages for number in stage["instances"]] == list(range(instances))


@pytest.mark.slow
def test_json_holds_the_plan_what_is_expected_of_it_and_its_runner_ups(capsys):
    made = plan(capsys, *SMALL)
    assert_tiles(made["stages"], 131072, 4)
    assert made["feasible"] is True
    assert made["objective"] == "normalized-latency"
    assert 0 < made["planning_s"] < 10
    assert 0 < made["load"] < 1
    assert made["load"] == max(stage["load"] for stage in made["stages"])
    assert made["objective_value"] == pytest.approx(sum(stage["objective_share"] for stage in made["stages"]))
    for stage in made["stages"]:
        assert {"batch", "tpot_s", "ttft_s", "prompts_per_s", "decode_tokens_per_s"} <= stage.keys()
    for other in made["runner_ups"]:
        assert_tiles(other["stages"], 131072, 4)
        assert other["objective_value"] is None or other["objective_value"] >= made["objective_value"]


def test_a_plan_can_be_made_for_a_histogram(capsys, histogram):
    made = plan(capsys, "--plan-histogram", histogram, "--instances", "6")
    assert_tiles(made["stages"], 131072, 6)
    assert sum(stage["prompts_per_s"] for stage in made["stages"]) == pytest.approx(9)
    assert sum(stage["decode_tokens_per_s"] for stage in made["stages"]) == pytest.approx(8 * 199 + 399)


@pytest.mark.slow
def test_a_replay_can_be_planned_for_a_histogram(capsys, histogram):
    code, out, _ = run(capsys, "replay", *SMALL, "--plan-histogram", histogram, "--json")
    assert code == 0
    assert json.loads(out)["config"]["options"]["plan_histogram"] == histogram
    expected = plan(capsys, "--plan-histogram", histogram, "--instances", "4")["stages"]
    replayed = json.loads(out)["policies"][0]["plan"]
    assert [stage["hi_tokens"] for stage in replayed] == [stage["hi_tokens"] for stage in expected]


def test_the_number_of_stages_and_the_objective_can_be_chosen(capsys, histogram):
    options = ["--plan-histogram", histogram, "--instances", "6"]
    assert len(plan(capsys, *options, "--stages", "2")["stages"]) == 2
    assert plan(capsys, *options, "--objective", "e2e")["objective_value"] > 1
    met = plan(capsys, *options, "--objective", "slo", "--ttft-slo", "30", "--tpot-slo", "1")
    assert met["objective_value"] == pytest.approx(0, abs=1e-3)


def test_an_infeasible_load_is_told_with_its_size(capsys, tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text("prompt_tokens,output_tokens,requests_per_s\n40000,400,20\n")
    options = ["--plan-histogram", str(path), "--instances", "2"]
    made = plan(capsys, *options)
    assert made["feasible"] is False
    assert made["objective_value"] is None
    assert made["load"] >= made["least_load"] > 2
    code, out, _ = run(capsys, "plan", *options)
    assert code == 0
    assert f"gets {made['least_load']:.2f} times what its fullest stage carries" in " ".join(out.split())


@pytest.mark.slow
def test_prints_stages_expectation_and_time(capsys):
    code, out, _ = run(capsys, "plan", *SMALL)
    text = " ".join(out.split())
    assert code == 0
    assert "expected mean normalized latency" in text
    assert "runner-up: to " in text
    assert "planned in" in text


@pytest.mark.slow
def test_draws_a_picture(capsys, tmp_path):
    path = tmp_path / "plan.png"
    code, _, err = run(capsys, "plan", *SMALL, "--out", str(path))
    assert code == 0
    assert str(path) in err
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--objective", "speed"], "no objective 'speed': accepted are normalized-latency, e2e, slo"),
        (["--objective", "slo"], "objective 'slo'"),
        (["--stages", "9", *SMALL], "9 stages: 4 instances"),
        (["--plan-histogram", "none.csv"], "none.csv: cannot be read"),
        (["--rate", "3", "--plan-histogram", "none.csv"], "--rate and --plan-histogram exclude one another"),
        (["trace.csv", "--plan-histogram", "none.csv"], "TRACE and --plan-histogram exclude one another"),
        (["--out", "no/such/folder/plan.png", *SMALL], "no/such/folder/plan.png: cannot be written"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, options, complaint):
    code, out, err = run(capsys, "plan", *options)
    assert code == 2
    assert out == ""
    assert complaint in err
    assert err.count("\n") == 1


def test_a_closed_loop_s_plan_tells_the_rate_that_it_is_for(capsys):
    loop = ["--limit", "200", "--concurrency", "8", "--instances", "4"]
    told = plan(capsys, *loop)["closed_loop"]
    assert told["requests_per_s"] == pytest.approx(8 / told["e2e_s"])
    code, out, _ = run(capsys, "plan", *loop)
    assert (code, "8 at a time, each predicted to take" in out) == (0, True)
    code, _, err = run(capsys, "plan", *loop, "--rate", "2")
    assert (code, "--rate and --concurrency exclude one another" in err) == (2, True)
