"""`l4sim gain` as its users meet it."""

from __future__ import annotations

import json

import pytest

from l4sim.cli import main
from l4sim.policies.defaults import RIVALS

SMALL = ["--limit", "60", "--instances", "4", "--rivals", "round-robin,two-pools"]


def run(capsys, *argv):
    """Exit code, stdout and stderr of a call."""
    with pytest.raises(SystemExit) as exit_:
        main(["gain", *argv])
    captured = capsys.readouterr()
    return exit_.value.code, captured.out, captured.err


@pytest.mark.slow
def test_it_names_the_best_rival_the_causes_and_what_they_add_up_to(capsys):
    code, out, _ = run(capsys, *SMALL)
    assert code == 0
    for told in ("round-robin", "two-pools", "kernel heterogeneity", "isolation", "KV memory", "balancing"):
        assert told in out
    shares = [float(line.split("%")[0].split()[-1]) for line in out.splitlines() if "%" in line]
    *parts, total = shares
    assert len(parts) == 4
    # Printed to a tenth of a percent each.
    assert sum(parts) == pytest.approx(total, abs=0.25)
    assert "handovers" in out


@pytest.mark.slow
def test_json_holds_the_same_and_the_configuration(capsys):
    _, out, _ = run(capsys, *SMALL, "--json")
    told = json.loads(out)
    assert told["policy"] == "l4"
    assert told["rival"] == min(("round-robin", "two-pools"), key=told["normalized_latency_s"].get)
    assert told["total"] == pytest.approx(sum(told[cause] for cause in ("kernel", "isolation", "memory", "balancing")))
    assert told["config"]["options"]["instances"] == 4


@pytest.mark.slow
def test_requests_that_were_rejected_are_told(capsys):
    _, out, _ = run(capsys, *SMALL, "--max-model-len", "20000")
    assert "of 60 requests finished under every policy" in out


def test_help_names_the_default_rivals(capsys):
    _, out, _ = run(capsys, "--help")
    assert ",".join(RIVALS) in "".join(out.split())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--rivals", ""], "a gain needs a rival to be over: none is named"),
        (["--rivals", "vlm"], "no policy 'vlm': accepted are random, round-robin"),
        (["--policy", "l5"], "no policy 'l5': accepted are random, round-robin"),
        (["--rivals", "l4"], "l4"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(capsys, options, complaint):
    code, _, err = run(capsys, "--limit", "10", *options)
    assert code == 2
    assert complaint in err
    assert len(err.splitlines()) == 1
