"""`l4sim policies`."""

from __future__ import annotations

import json

import pytest

from l4sim.cli import main
from l4sim.policies.bundled import RENAMED
from l4sim.policies.registry import POLICIES


def run(capsys, *argv):
    """Exit code, stdout and stderr of a call."""
    with pytest.raises(SystemExit) as exit_:
        main(["policies", *argv])
    captured = capsys.readouterr()
    return exit_.value.code, captured.out, captured.err


def test_every_policy_is_listed_with_its_kind_what_it_does_and_its_source(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    for line, entry in zip(out.splitlines(), POLICIES.values(), strict=True):
        assert line.split()[:2] == [entry.name, entry.kind]
        assert entry.summary in line
        assert entry.source in line


def test_a_list_can_be_had_for_machines(capsys):
    _, out, _ = run(capsys, "--json")
    assert [told["name"] for told in json.loads(out)] == list(POLICIES)
    _, out, _ = run(capsys, "dynamo", "--json")
    assert json.loads(out)["source"] == POLICIES["dynamo"].source


def test_one_is_told_of_by_name(capsys):
    code, out, _ = run(capsys, "vllm-dp-0.32")
    assert code == 0
    assert "core_client.py" in out


@pytest.mark.parametrize("name", RENAMED)
def test_a_name_that_is_gone_is_refused_with_what_it_is_called_now(capsys, name):
    code, out, err = run(capsys, name)
    assert (code, out) == (2, "")
    assert err == f"l4sim: there is no policy '{name}' any more: it is called {RENAMED[name]}\n"
    assert any(new in RENAMED[name] for new in POLICIES)
