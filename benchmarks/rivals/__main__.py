"""L4 against its rivals, on cases to develop on and on cases that no constant was chosen on.

    python -m benchmarks.rivals development [--cases NAME ...] [--seeds N] [--jobs N]
    python -m benchmarks.rivals test
    python -m benchmarks.rivals development --bound

Every change is of the policy that is judged against one rival, with a 95 % interval: paired by seed where a case has
several traces, else by request. What was simulated stays in --out, and the next call goes on from there; a change of
the simulator's code begins anew. Runs of the test set are logged in benchmarks/rivals/test_runs.csv. Traces that the
project does not ship are looked for in the folder that L4SIM_SHARED names (default ../shared); cases whose trace is
absent are left out, saying so. --bound prints instead how far small cases are from the best assignment found offline.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.rivals.bound import SIMULATIONS, bound_lines
from benchmarks.rivals.cases import SETS, Case
from benchmarks.rivals.measure import Measured, measure_wanted, missing
from benchmarks.rivals.report import Outcome, case_lines, outcome, summary_lines
from benchmarks.rivals.runs_log import log_run
from l4sim.policies.defaults import COMPARED, RIVALS, SOLE

POLICIES = tuple(dict.fromkeys((*RIVALS, *COMPARED)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    given = _parser().parse_args(arguments)
    policies = tuple(dict.fromkeys((*given.policies.split(","), given.policy)))
    if given.bound:
        for line in bound_lines(policies, given.seeds or 2, given.simulations):
            print(line, flush=True)
        return
    cases = []
    for case in SETS[given.set]:
        if given.cases and not case.name.startswith(tuple(given.cases)):
            continue
        if absent := missing(case):
            print(f"{case.name}: left out: {absent}", flush=True)
        else:
            cases.append(case if given.profile is None else replace(case, options=_with(case, given.profile)))
    before = len(list(given.out.glob("*.parquet")))
    outcomes = []
    for found in _outcomes(cases, policies, given):
        outcomes.append(found)
        for line in case_lines(found, given.policy):
            print(line, flush=True)
    for line in summary_lines(outcomes, given.policy):
        print(line)
    simulated = len(list(given.out.glob("*.parquet"))) - before
    if given.set == "test" and cases:
        log_run(cases, policies, given.policy, sum(each.traces for each in outcomes), simulated, given.log)


def _with(case: Case, profile: str) -> dict[str, Any]:
    return {"profile": profile, **case.options}


def _outcomes(cases: Sequence[Case], policies: Sequence[str], given: argparse.Namespace) -> Iterator[Outcome]:
    """Case after case, the traces of all of them shared out among processes."""
    wanted = [(case, seed) for case in cases for seed in case.seeds[: given.seeds]]
    work = partial(measure_wanted, policies=policies, store=given.out)
    if given.jobs == 1:
        yield from _by_case(cases, map(work, wanted), given)
        return
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        yield from _by_case(cases, pool.map(work, wanted), given)


def _by_case(cases: Sequence[Case], measured: Iterator[Measured], given: argparse.Namespace) -> Iterator[Outcome]:
    for case in cases:
        yield outcome(case, [next(measured) for _ in case.seeds[: given.seeds]], given.policy)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("set", choices=tuple(SETS))
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only cases whose names begin like this")
    parser.add_argument("--policy", default=SOLE, help="the one that is judged (default: %(default)s)")
    parser.add_argument("--policies", default=",".join(POLICIES), metavar="A,B", help="against whom (%(default)s)")
    parser.add_argument("--profile", help="of the cases that name none, instead of the default")
    parser.add_argument("--seeds", type=int, metavar="N", help="only the first N traces of each case")
    parser.add_argument("--out", type=Path, default=Path("runs/rivals"), help="where runs are kept (%(default)s)")
    parser.add_argument("--log", type=Path, default=Path(__file__).with_name("test_runs.csv"), help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("--bound", action="store_true", help="the distance to the best assignment found offline")
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, metavar="N",
                        help="of one search with --bound (default: %(default)s)")  # fmt: skip
    return parser


if __name__ == "__main__":
    main()
