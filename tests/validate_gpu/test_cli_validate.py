import json

import pytest
from click.testing import CliRunner

from l4sim.cli import cli, main

ENGINE = [
    "--instances=2",
    "--kv-blocks=200",
    "--max-model-len=2048",
    "--max-num-seqs=8",
    "--max-num-batched-tokens=512",
]
ARGUMENTS = ["--model=tiny", "--device=cpu", "--no-prefix-caching", "--limit=6", "--policies=round-robin,l4", *ENGINE]


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.jsonl"
    rows = [
        {"timestamp": 50 * row, "input_length": 100 + row, "output_length": 12, "hash_ids": [row]} for row in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_commands_are_found_by_entry_point():
    told = CliRunner().invoke(cli, ["validate", "--help"]).output
    assert "lockstep" in told
    assert "realtime" in told


def test_lockstep_tells_measured_and_predicted_figures(trace, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, ["validate", "lockstep", str(trace), *ARGUMENTS, "--json", "--out", str(out)])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert set(told["figures"]) == {"round-robin", "l4"}
    for figure in told["figures"]["l4"]:
        assert figure["measured"] > 0
        expected = 100 * (figure["predicted"] - figure["measured"]) / figure["measured"]
        assert figure["error_pct"] == pytest.approx(expected)
    assert told["config"]["live"]["device"] == "cpu"
    assert (out / "live" / "requests.parquet").is_file()
    assert (out / "simulated" / "requests.parquet").is_file()
    seconds = json.loads((out / "validation.json").read_text())["seconds"]["l4"]
    assert all(time > 0 for times in seconds.values() for time in times)


def test_a_missing_gpu_is_one_line_and_exit_code_2(trace, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as stopped:
        main(["validate", "lockstep", str(trace), *ARGUMENTS, "--device", "cuda"])
    assert stopped.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert told == ["l4sim: --device cuda: no GPU is visible; --device cpu --model tiny runs the same code without one"]


def test_realtime_refuses_more_instances_than_devices(trace, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["validate", "realtime", str(trace), *ARGUMENTS, "--instances=999"])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "l4sim: 999 instances for" in told
    assert "or --share-devices" in told
    assert len(told.splitlines()) == 1
