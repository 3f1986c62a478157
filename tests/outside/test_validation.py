"""A policy, a cost model, an engine and a format from outside, held against live instances on a CPU."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from l4sim.cli import cli

pytest.importorskip("torch")

ENGINE = ["--instances=2", "--kv-blocks=200", "--max-model-len=2048", "--max-num-seqs=8"]
OUTSIDE = ["--cost-model=constant", "--engine-rules=short-prompts", "--policies=last-instance"]


def run(*arguments):
    result = CliRunner().invoke(cli, ["validate", *arguments, "--tolerance=1e9"])
    assert not result.exception or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["lockstep", "realtime"])
def test_live_instances_and_a_recording_of_them(driver, installed, triples, tmp_path):
    live = ["--format=triples", "--model=tiny", "--device=cpu", "--kernel=flashinfer-cuda", "--repeats=1"]
    run(str(triples), f"--driver={driver}", *live, *ENGINE, *OUTSIDE, "--out", str(tmp_path / "live"))
    found = json.loads((tmp_path / "live" / "validation.json").read_text())
    live_requests = pd.read_parquet(tmp_path / "live" / "live" / "last-instance-1" / "requests.parquet")
    assert sorted(set(live_requests["reason"])) == ["", "the prompt is too long"]
    assert set(live_requests["first_instance"]) == {-1, 1}
    assert set(found["figures"]) == {"last-instance"}
    assert found["decisions"]["last-instance"]["differing"] == 0
    predicted = {figure["metric"]: figure["predicted"] for figure in found["figures"]["last-instance"]}
    assert predicted["tpot_s"] == pytest.approx(0.01)

    run(
        "recorded", str(tmp_path / "live"), "--cost-model=l4sim_outside:constant_cost", "--out", str(tmp_path / "again")
    )
    again = json.loads((tmp_path / "again" / "validation.json").read_text())
    assert again["figures"] == found["figures"]
