import gzip
import json
import shutil

import pandas as pd
import pytest
from click.testing import CliRunner

from l4sim.cli import cli, main

pytestmark = pytest.mark.slow

ENGINE = [
    "--instances=2",
    "--kv-blocks=200",
    "--max-model-len=2048",
    "--max-num-seqs=8",
    "--max-num-batched-tokens=512",
]
ARGUMENTS = ["--model=tiny", "--device=cpu", "--limit=6", "--policies=round-robin,llumnix,l4", *ENGINE]


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    rows = [
        {"timestamp": 50 * row, "input_length": 100 + row, "output_length": 12, "hash_ids": [row]} for row in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def validate(trace, law_profile):
    def run(*arguments):
        return CliRunner().invoke(cli, ["validate", str(trace), *ARGUMENTS, f"--profile={law_profile}", *arguments])

    return run


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["validate", *arguments])
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_what_is_no_command_is_a_trace(trace, capsys):
    told = CliRunner().invoke(cli, ["validate", "--help"]).output
    assert "vllm" in told
    assert "live" in told
    assert "nothing.jsonl" in refusal(capsys, "nothing.jsonl", "--device=cpu", "--kernel=fa3", *ENGINE)
    # Options may come first.
    assert "no device 'tpu'" in refusal(capsys, "--device", "tpu", str(trace))


@pytest.fixture(scope="module")
def validated(validate, tmp_path_factory):
    """A comparison of two runs of each policy: the folder that it leaves, and what it prints."""
    out = tmp_path_factory.mktemp("validated")
    result = validate("--repeats=2", "--tolerance=1e9", "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_the_report_holds_what_it_is_to_hold(validated):
    out, _ = validated
    text = (out / "report.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# 2 live instances of tiny against the simulator",
        "## Latencies",
        "## Ranking",
        "## Iterations",
        "## Decisions",
        "## Migrations",
        "## Pictures",
        "## Provenance",
    ]
    for policy in ("round-robin", "llumnix", "l4"):
        for latency in ("TTFT", "TPOT", "E2E"):
            for statistic in ("mean", "P50", "P90", "P99"):
                assert f"| {policy} | {latency} {statistic} |" in text
    assert "the simulator gives their tables row for row" in text
    pictures = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert pictures == ["cdf.png", "scatter.png", "iterations.png", "device.png"]
    assert all((out / name).is_file() for name in pictures)
    for told in ("device: torch", "device: threads | 1", "sha256", "option: seed | 0", "profile: source"):
        assert told in text


def test_every_decision_is_the_same_when_replayed(validated):
    out, _ = validated
    decisions = json.loads((out / "validation.json").read_text())["decisions"]
    assert [found["routed"] for found in decisions.values()] == [12, 12, 12]
    assert decisions["llumnix"]["stimuli"] > 0
    assert decisions["l4"]["instructions"] > 0
    assert [found["differing"] for found in decisions.values()] == [0, 0, 0]
    for policy in ("round-robin", "llumnix", "l4"):
        for run in (1, 2):
            with gzip.open(out / "live" / f"{policy}-{run}" / "decisions.jsonl.gz", "rt") as file:
                calls = [json.loads(line) for line in file]
            assert [call["call"] for call in calls].count("Routed") == 6
            if policy == "llumnix":
                assert any("running" in call["read"] for call in calls if call["call"] == "Asked")


def test_both_sides_tables_and_all_iterations_are_kept(validated):
    out, told = validated
    assert told["schedules_equal"] == {"round-robin": True, "llumnix": True, "l4": True}
    simulated = pd.read_parquet(out / "simulated" / "requests.parquet")
    assert (simulated.groupby("policy").size() == 6).all()
    for run in ("round-robin-1", "llumnix-1", "l4-2"):
        requests = pd.read_parquet(out / "live" / run / "requests.parquet")
        assert len(requests) == 6
        assert (requests["status"] == "finished").all()
    iterations = pd.read_parquet(out / "iterations.parquet")
    # Five further tokens of twelve come from decodes, for six requests, in two runs of three policies.
    assert iterations["decode_requests"].sum() == 11 * 6 * 2 * 3
    assert (iterations["seconds"] > 0).all()


def test_beyond_the_tolerance_the_exit_code_is_1_and_the_report_is_written(validate, tmp_path):
    # No CPU is as slow as this law's.
    out = tmp_path / "out"
    result = validate("--repeats=1", "--policies=round-robin,l4", "--tolerance=0.001%", "--out", str(out))
    assert result.exit_code == 1
    assert "Beyond the tolerance of 0.001 %: round-robin, l4." in (out / "report.md").read_text()
    assert "it was not repeated" in result.stdout


@pytest.fixture
def recorded(validated, tmp_path):
    """A copy of what was recorded then, to be changed."""
    out, _ = validated
    shutil.copytree(out / "live", tmp_path / "recorded" / "live")
    return tmp_path / "recorded"


def told_of(folder, *arguments):
    result = CliRunner().invoke(cli, ["validate", "recorded", str(folder), "--tolerance=1e9", "--json", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_recording_is_compared_without_the_device_and_is_what_was_live(recorded, tmp_path):
    out = tmp_path / "compared"
    told = told_of(recorded, "--out", str(out))
    assert told["schedules_equal"] == {"round-robin": True, "llumnix": True, "l4": True}
    assert [found["differing"] for found in told["decisions"].values()] == [0, 0, 0]
    live = pd.read_parquet(recorded / "live" / "l4-2" / "requests.parquet")
    measured = {(f["metric"], f["statistic"]): f["measured"] for f in told["figures"]["l4"]}
    assert measured["e2e_s", "mean"][1] == pytest.approx(live["e2e_s"].mean())
    assert (out / "report.md").is_file()
    # The folder itself will do, and the second time is no other.
    assert told_of(recorded / "live") == told


def test_seconds_are_told_at_the_profiles_speed_and_the_report_says_how_slow_the_cpu_was(recorded, tmp_path):
    out = tmp_path / "compared"
    told = told_of(recorded, "--out", str(out))
    assert 0 < told["slowness"]["p5"] <= told["slowness"]["p95"]
    iterations = pd.read_parquet(out / "iterations.parquet")
    measured_s = (iterations["seconds"] * iterations["slowness"]).sum()
    assert told["slowness"]["mean"] == pytest.approx(measured_s / iterations["seconds"].sum())
    batches = [pd.read_parquet(path) for path in sorted((recorded / "live").glob("l4-*/batches.parquet"))]
    assert set(pd.concat(batches)["slowness"]) >= set(iterations[iterations["policy"] == "l4"]["slowness"])
    assert "- Speed: seconds are told at the profile's reference speed." in (out / "report.md").read_text()


def test_a_profile_of_another_speed_predicts_nothing_of_a_recording(recorded, law_profile, tmp_path, capsys):
    profile = json.loads((law_profile / "profile.json").read_text())
    for name, speed in (("faster", {"reference_s": 1e-9}), ("none", {"reference_s": None})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "profile.json").write_text(json.dumps({**profile, **speed}))
        refused = refusal(capsys, "recorded", str(recorded), "--profile", str(tmp_path / name))
        assert f"profile law has reference_s {speed['reference_s']}, and the runs were recorded at" in refused


def test_a_profile_without_a_reference_leaves_seconds_as_they_are(validate, law_profile, tmp_path):
    profile = json.loads((law_profile / "profile.json").read_text())
    del profile["reference_s"]
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "profile.json").write_text(json.dumps(profile))
    out = tmp_path / "out"
    alone = ["--repeats=1", "--policies=round-robin"]
    result = validate(*alone, "--profile", str(tmp_path / "plain"), "--tolerance=1e9", "--out", str(out), "--json")
    assert json.loads(result.stdout)["slowness"] is None
    assert (pd.read_parquet(out / "iterations.parquet")["slowness"] == 1.0).all()
    assert "Speed:" not in (out / "report.md").read_text()


def test_another_profile_predicts_and_the_policies_stay_as_they_were(recorded, law_profile, tmp_path):
    slower = tmp_path / "slower"
    slower.mkdir()
    profile = json.loads((law_profile / "profile.json").read_text())
    profile["host_overhead"]["seconds"] += 1.0
    profile["host_overhead"]["prompt_s"] += 1.0
    (slower / "profile.json").write_text(json.dumps(profile))
    own, other = told_of(recorded), told_of(recorded, "--profile", str(slower))
    for policy, figures in own["figures"].items():
        for here, there in zip(figures, other["figures"][policy], strict=True):
            assert here["measured"] == there["measured"]
    assert other["figures"]["l4"][-1]["predicted"] > 10 * own["figures"]["l4"][-1]["predicted"]
    assert other["schedules_equal"]["l4"]
    assert other["decisions"] == own["decisions"]


def test_decisions_that_are_no_longer_the_same_are_counted(recorded):
    for run in ("round-robin-1", "round-robin-2"):
        path = recorded / "live" / run / "decisions.jsonl.gz"
        with gzip.open(path, "rt") as file:
            lines = file.read().splitlines()
        with gzip.open(path, "wt") as file:
            file.write("\n".join([lines[0].replace('"position": 0', '"position": 1'), *lines[1:]]))
    decisions = told_of(recorded)["decisions"]
    assert {policy: found["differing"] for policy, found in decisions.items()} == {
        "round-robin": 2,
        "llumnix": 0,
        "l4": 0,
    }
    assert '"position": 1' in decisions["round-robin"]["first_difference"]


def test_what_is_no_recording_is_refused(recorded, tmp_path, capsys):
    assert "no live.json; accepted is the folder live of what" in refusal(capsys, "recorded", str(tmp_path))
    whole = (recorded / "live" / "l4-1" / "decisions.jsonl.gz").read_bytes()
    (recorded / "live" / "l4-1" / "decisions.jsonl.gz").write_bytes(whole[:-20])
    assert "l4-1: cannot be read as a recorded run" in refusal(capsys, "recorded", str(recorded))
    (recorded / "live" / "l4-1" / "batches.parquet").write_bytes(b"no table")
    assert "l4-1: cannot be read as a recorded run" in refusal(capsys, "recorded", str(recorded))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("policies", 5, "policies is 5, accepted is a list, each a text"),
        ("policies", ["vllm"], "no run of vllm is in it"),
        ("driver", "steps", "driver is 'steps', accepted is lockstep, realtime"),
        ("options", {"instances": "four"}, "options cannot be used"),
    ],
)
def test_a_recordings_description_is_checked(recorded, capsys, field, value, told):
    path = recorded / "live" / "live.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert told in refusal(capsys, "recorded", str(recorded))


def test_by_the_walls_clock_no_decisions_are_compared(recorded):
    path = recorded / "live" / "live.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"driver": "realtime"}))
    told = told_of(recorded)
    assert told["schedules_equal"] == {}
    assert [found["routed"] for found in told["decisions"].values()] == [0, 0, 0]


def test_a_recording_may_be_made_anew_with_its_own_profile(recorded, validate):
    again = validate(
        "--repeats=1", "--no-compare", f"--profile={recorded / 'live' / 'profile'}", "--out", str(recorded)
    )
    assert again.exit_code == 0, again.output
    assert [path.name for path in recorded.iterdir()] == ["live"]
    assert not (recorded / "live" / "l4-2").exists()
    assert told_of(recorded)["schedules_equal"]["l4"]


def test_a_run_that_is_neither_compared_nor_kept_is_refused(trace, law_profile, capsys):
    told = refusal(capsys, str(trace), *ARGUMENTS, f"--profile={law_profile}", "--no-compare")
    assert "--no-compare without --out" in told


def test_a_missing_gpu_is_one_line_and_exit_code_2(trace, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    told = refusal(capsys, str(trace), *ARGUMENTS, "--device=cuda")
    assert told == "l4sim: --device cuda: no GPU is visible; --device cpu --model tiny runs the same code without one"


def test_a_prefix_cache_is_refused(trace, law_profile, capsys):
    arguments = (str(trace), *ARGUMENTS, f"--profile={law_profile}", "--prefix-caching")
    assert "a live run has no prefix cache: accepted is --no-prefix-caching" in refusal(capsys, *arguments)


def test_realtime_refuses_more_instances_than_devices(trace, law_profile, capsys):
    arguments = (str(trace), *ARGUMENTS, f"--profile={law_profile}", "--driver=realtime", "--instances=999")
    told = refusal(capsys, *arguments)
    assert "l4sim: 999 instances for" in told
    assert "or --share-devices" in told


def test_an_option_of_the_other_driver_is_refused(trace, law_profile, capsys):
    arguments = (str(trace), *ARGUMENTS, f"--profile={law_profile}", "--share-devices")
    assert "--share-devices is for --driver realtime" in refusal(capsys, *arguments)
