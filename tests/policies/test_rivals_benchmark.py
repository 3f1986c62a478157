"""The benchmark of L4 against its rivals, with three small runs."""

from __future__ import annotations

import csv
from itertools import product

import numpy as np
import pytest

from benchmarks.rivals.__main__ import main
from benchmarks.rivals.bound import search
from benchmarks.rivals.cases import SETS, Case
from benchmarks.rivals.measure import OTHER_DAY, WrongCost, measure, misinformed, world
from benchmarks.rivals.report import case_lines, outcome, summary_lines
from benchmarks.rivals.traffic import Recorded, Synthetic, at_load, work_of
from l4sim.batch import Batch, Prefill
from l4sim.experiment import Options, resolve
from l4sim.experiment.planning import setting_for
from l4sim.results.changes import HEADLINE

TURNS, FEWEST = "round-robin", "least-outstanding"
CASE = Case("small", Synthetic(60, lengths="chat"), 0.5, (1,), {"instances": 2})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def measured(store):
    return measure(CASE, 1, (TURNS, FEWEST), store)


def test_what_was_simulated_is_read_again(measured, store, monkeypatch):
    monkeypatch.setattr("benchmarks.rivals.measure.run_built", None)
    again = measure(CASE, 1, (TURNS, FEWEST), store)
    for name, run in measured.runs.items():
        assert again.runs[name].requests.equals(run.requests)


def test_a_case_is_told_rival_by_rival_and_over_all_cases(measured):
    found = outcome(CASE, [measured], FEWEST)
    own, base = (measured.runs[name].requests["normalized_latency_s"].mean() for name in (FEWEST, TURNS))
    assert found.changes[TURNS, HEADLINE, "all"].change == pytest.approx(own / base - 1)
    assert "against" in "\n".join(case_lines(found, FEWEST))
    assert "in 1 of 1 case" in "\n".join(summary_lines([found], FEWEST))


def test_seeds_are_paired(measured, store):
    twice = [measured, measured]
    found = outcome(CASE, twice, FEWEST).changes[TURNS, HEADLINE, "all"]
    assert found.low == pytest.approx(found.change)


def test_a_policy_that_cannot_run_is_left_out_and_told(measured, store):
    found = measure(CASE, 1, (TURNS, "no-such-policy"), store)
    assert list(found.runs) == [TURNS]
    assert "left out" in "\n".join(case_lines(outcome(CASE, [found], "no-such-policy"), "no-such-policy"))


@pytest.mark.slow
def test_runs_of_the_test_set_are_logged_and_go_on_where_they_stopped(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(SETS, "test", (CASE,))
    log = tmp_path / "log.csv"
    for _ in range(2):
        main(["test", "--policies", TURNS, "--policy", FEWEST, "--jobs", "1", "--out", str(tmp_path / "runs"),
              "--log", str(log)])  # fmt: skip
    first, second = csv.DictReader(log.read_text().splitlines())
    assert (first["simulated"], second["simulated"]) == ("2", "0")
    assert first["settings"] == second["settings"]
    assert (first["policy"], first["rivals"], first["cases"], first["traces"]) == (
        FEWEST,
        TURNS,
        "1",
        "1",
    )


def stretches(case: Case) -> set[int]:
    """The rows of a recorded trace that a case serves, told at another day included."""
    others = [seed + OTHER_DAY for seed in case.seeds] if case.knowledge == "another day" else []
    traffic = case.traffic
    return {traffic.first + seed * traffic.requests + row
            for seed in (*case.seeds, *others) for row in range(traffic.requests)}  # fmt: skip


def test_the_test_cases_are_none_of_those_that_were_developed_on():
    development, test = SETS["development"], SETS["test"]
    assert len({case.name for case in (*development, *test)}) == len(development) + len(test)
    for case, other in product(test, development):
        if isinstance(case.traffic, Recorded) and isinstance(other.traffic, Recorded):
            assert case.traffic.file != other.traffic.file or not stretches(case) & stretches(other)
        else:
            assert not set(case.seeds) & set(other.seeds) or case.traffic != other.traffic


def test_a_load_is_the_share_of_time_that_instances_are_busy():
    setup = resolve(Options(instances=3))
    trace = Synthetic(200, prompt_lengths="fixed:tokens=1000", output_lengths="fixed:tokens=100").trace(1)
    slow, fast = at_load(trace, setup, 0.2), at_load(trace, setup, 0.4)
    assert slow.arrival_s[-1] == pytest.approx(2 * fast.arrival_s[-1])
    assert work_of(trace, prefix_caching=True)[:2] == (1000, 100)


def test_a_wrong_cost_is_wrong_for_policies_alone():
    case = Case("small", CASE.traffic, 0.5, (1,), {"instances": 2}, knowledge="prompts dear")
    setup, trace = world(case, 1)
    true = setting_for(trace, setup)
    told = misinformed(true, case, 1, setup, trace)
    decode = Batch(np.array([500, 900]), 1400)
    both = decode._replace(prefills=(Prefill(512, 0),))
    right, wrong = true.fleet[0].cost, told.fleet[0].cost
    assert isinstance(wrong, WrongCost)
    assert wrong.iteration_s(decode) == pytest.approx(0.8 * right.iteration_s(decode))
    prompt_s = right.iteration_s(both) - right.iteration_s(decode)
    assert wrong.iteration_s(both) - wrong.iteration_s(decode) == pytest.approx(1.2 * prompt_s)
    assert setup.groups[0].cost.iteration_s(decode) == right.iteration_s(decode)


@pytest.mark.slow
def test_the_search_never_ends_behind_where_it_began():
    setup = resolve(Options(instances=2))
    trace = at_load(Synthetic(20, lengths="chat").trace(3), setup, 0.8)
    found = search(trace, setup, np.zeros(20, dtype=np.int64), 25)
    assert found.best_s < found.start_s
    assert set(found.assignment.tolist()) == {0, 1}
