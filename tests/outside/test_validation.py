"""A policy, a cost model, an engine and a format from outside, held against live instances on a CPU."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from l4sim.cli import cli

pytest.importorskip("torch")

ENGINE = ["--instances=2", "--kv-blocks=200", "--max-model-len=2048", "--max-num-seqs=8"]
OUTSIDE = ["--cost-model=constant", "--engine-rules=short-prompts", "--policies=last-instance,round-robin"]


def run(*arguments):
    result = CliRunner().invoke(cli, ["validate", *arguments, "--tolerance=1e9"])
    assert not result.exception or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.mark.slow
def test_live_instances_and_a_recording_of_them(installed, triples, tmp_path):
    live = ["--format=triples", "--model=tiny", "--device=cpu", "--kernel=flashinfer-cuda", "--repeats=1"]
    run(str(triples), *live, *ENGINE, *OUTSIDE, "--out", str(tmp_path / "live"))
    found = json.loads((tmp_path / "live" / "validation.json").read_text())
    # The live engine has refused, as the simulated one has, and the router has been asked the same again.
    assert set(found["figures"]) == {"last-instance", "round-robin"}
    assert found["decisions"]["last-instance"]["differing"] == 0
    predicted = {figure["metric"]: figure["predicted"] for figure in found["figures"]["last-instance"]}
    assert predicted["tpot_s"] == pytest.approx(0.01)

    run(
        "recorded", str(tmp_path / "live"), "--cost-model=l4sim_outside:constant_cost", "--out", str(tmp_path / "again")
    )
    again = json.loads((tmp_path / "again" / "validation.json").read_text())
    assert again["figures"] == found["figures"]
