"""How many small faults the tests catch: a seeded sample of mutants of the parts that make a run's figures.

    make mutants                                            400 mutants, about an hour on two cores
    python -m benchmarks.mutants --count 20 --room engine   fewer, of one room

cosmic-ray's operators make the mutants (a comparison turned, a number off by one, a loop left out); a coverage database
with a context per test says which tests run a mutated line, and only those are run: first those of the mutated module's
own room, then others, the quickest first. Two mutants at a time run, each in a copy of the working tree. Times are of
the CPU, so that a busy machine calls no mutant a timeout. What is done is kept in runs/mutants, and a run that was
stopped goes on from there.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
import math
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import click

from benchmarks.cpu_times import CPU_S

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "runs" / "mutants"

ROOMS: Mapping[str, Sequence[str]] = {
    "engine": ("l4sim/engine/**/*.py",),
    "runtime": ("l4sim/runtime/**/*.py", "l4sim/simulator/*.py"),
    "policies/l4": ("l4sim/policies/l4/**/*.py",),
    "cost": ("l4sim/cost/**/*.py", "l4sim/kernels/**/*.py"),
}

# Faults that look like a slip of the pen. Decorators, exceptions and variables would be caught by the first import.
_OPERATORS = ("Replace", "Number", "AddNot", "Unary", "Delete", "ZeroIteration")
_NOT_OPERATORS = ("Variable", "Exception")

# Seconds of the CPU that a mutant's tests took in the coverage run, after which it counts as survived.
_BUDGET_S = 30.0
# A mutant that takes more of the CPU than its tests did, so many times over, counts as one that never ends.
_START_S = 15.0
_SLOWER = 4.0
# One that waits for what never comes uses no CPU.
_WAIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one place."""

    room: str
    module: str
    line: int
    column: int
    statement: tuple[int, int]
    """First and last line of the statement that it is in, without those that stand under it."""
    operator: str
    occurrence: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant."""

    mutant: Mutant
    status: str
    """``killed``, ``timeout`` (killed too), ``survived``, or ``untested`` where no test runs the line."""
    tests: int
    seconds: float
    """By the clock."""
    diff: str


@dataclass(frozen=True)
class Coverage:
    """Which tests run which lines, and how much of the CPU they take."""

    lines: Mapping[str, Mapping[int, frozenset[str]]]
    """Tests by module and line; those that run a line only by importing its module are not told."""
    seconds: Mapping[str, float]

    def tests_of(self, mutant: Mutant) -> list[list[str]]:
        """The tests to run, its own room's first: those of the line, or of its module where imports alone run it."""
        lines = self.lines.get(mutant.module, {})
        run = [lines[line] for line in range(mutant.statement[0], mutant.statement[1] + 1) if line in lines]
        if not run:
            return []
        found = frozenset().union(*run) or frozenset().union(*lines.values(), self._mirror(mutant.module))
        chosen, total_s = [], 0.0
        for test in sorted(found, key=lambda test: (not _is_own(test, mutant.module), self.seconds[test], test)):
            seconds = self.seconds[test]
            if total_s + seconds <= _BUDGET_S or not chosen:
                chosen.append(test)
                total_s += seconds
        own = [test for test in chosen if _is_own(test, mutant.module)]
        return [stage for stage in (own, [test for test in chosen if test not in own]) if stage]

    def _mirror(self, module: str) -> frozenset[str]:
        """The tests of the file that mirrors a module: what they read of it at import is in no test's context."""
        path = PurePosixPath(module)
        file = str(PurePosixPath("tests", *path.parts[1:-1], f"test_{path.name}"))
        return frozenset(test for test in self.seconds if test.split("::")[0] == file)

    def expected_s(self, tests: Sequence[str]) -> float:
        """Seconds of the CPU that tests took under coverage."""
        return sum(self.seconds[test] for test in tests)


def _is_own(test: str, module: str) -> bool:
    """Whether a test is in the folder that mirrors the module's."""
    return PurePosixPath(test.split("::")[0]).parent.parts[1:] == PurePosixPath(module).parent.parts[1:]


def find_mutants(room: str) -> list[list[Mutant]]:
    """Every mutant of a room, those of one place together."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    operators = {
        name: get_operator(name)()
        for name in operator_names()
        if any(part in name for part in _OPERATORS) and not any(part in name for part in _NOT_OPERATORS)
    }
    places: dict[tuple[str, int, int], list[Mutant]] = defaultdict(list)
    for module in modules_of(room):
        source = (ROOT / module).read_text(encoding="utf-8")
        statements, nodes = _Statements(source), list(ast_nodes(get_ast(source)))
        for name, operator in operators.items():
            occurrence = 0
            for node in nodes:
                for (line, column), _ in operator.mutation_positions(node):
                    if not statements.ignored(line, column):
                        mutant = Mutant(room, module, line, column, statements.around(line), name, occurrence)
                        places[module, line, column].append(mutant)
                    occurrence += 1
    return [places[place] for place in sorted(places)]


def modules_of(room: str) -> list[str]:
    """The files of a room."""
    found = {path.relative_to(ROOT).as_posix() for pattern in ROOMS[room] for path in ROOT.glob(pattern)}
    return sorted(found)


class _Statements:
    """What is where in a module."""

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        self._spans: list[tuple[int, int]] = []
        ignored: list[ast.AST | None] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.stmt):
                body = getattr(node, "body", None)
                self._spans.append((node.lineno, body[0].lineno - 1 if body else node.end_lineno or node.lineno))
            if isinstance(node, (ast.arg, ast.AnnAssign)):
                ignored.append(node.annotation)
            elif isinstance(node, ast.FunctionDef):
                ignored.append(node.returns)
            elif isinstance(node, ast.ClassDef):
                ignored += node.decorator_list
            elif isinstance(node, ast.Assert):
                ignored.append(node.msg)
            elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                ignored.append(node)
        self._ignored = [node for node in ignored if isinstance(node, (ast.expr, ast.stmt))]

    def around(self, line: int) -> tuple[int, int]:
        """First and last line of the statement that a line is part of."""
        return min(
            ((first, last) for first, last in self._spans if first <= line <= last),
            key=lambda span: span[1] - span[0],
            default=(line, line),
        )

    def ignored(self, line: int, column: int) -> bool:
        """Whether a change there changes nothing: in annotations, which are never evaluated, what only type checkers
        read, how dataclasses keep their fields, and what failed assertions would say.
        """
        return any(
            (node.lineno, node.col_offset) <= (line, column) < (node.end_lineno or 0, node.end_col_offset or 0)
            for node in self._ignored
        )


def sample(rooms: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """``count`` mutants, of as many different places, every place as likely as any other."""
    places = [place for room in rooms for place in find_mutants(room)]
    chooser = random.Random(seed)
    chosen = chooser.sample(places, min(count, len(places)))
    return [chooser.choice(place) for place in chosen]


def measure_coverage(tests: Sequence[str]) -> Coverage:
    """Run tests once, with a context per test; what was measured of the same files is taken as it is."""
    OUT.mkdir(parents=True, exist_ok=True)
    data, times, key = OUT / "coverage.sqlite", OUT / "times.xml", OUT / "coverage.key"
    state = _state(tests)
    if not key.exists() or key.read_text(encoding="utf-8") != state:
        settings = OUT / "coverage.ini"
        settings.write_text(f"[run]\ndata_file = {data}\nsource = l4sim\n", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-n", "2", "--benchmark-disable"]
        command += [f"--junitxml={times}", "-p", "benchmarks.cpu_times", "--cov", f"--cov-config={settings}"]
        command += ["--cov-context=test", "--cov-report=", *tests]
        done = subprocess.run(command, cwd=ROOT, env=_environment(ROOT), stdout=sys.stderr)
        # Tests may fail for being slow under coverage: those are left out.
        if done.returncode not in (0, 1):
            raise click.ClickException("the tests could not be run under coverage")
        key.write_text(state, encoding="utf-8")
    seconds = _times(times)
    return Coverage(_lines(data, seconds.keys()), seconds)


def _state(tests: Sequence[str]) -> str:
    """A text that is another one after any change of code or tests, and for other tests."""
    paths = sorted(path for folder in ("l4sim", "validate_gpu", "tests") for path in (ROOT / folder).rglob("*.py"))
    changed = [f"{path.relative_to(ROOT)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths]
    return "\n".join([*tests, *changed])


def _lines(data: Path, passed: Set[str]) -> dict[str, dict[int, frozenset[str]]]:
    from coverage import CoverageData

    read = CoverageData(str(data))
    read.read()
    found = {}
    for file in read.measured_files():
        found[Path(file).resolve().relative_to(ROOT).as_posix()] = {
            line: frozenset(context.split("|")[0] for context in contexts) & passed
            for line, contexts in read.contexts_by_lineno(file).items()
        }
    return found


def _times(path: Path) -> dict[str, float]:
    """Seconds of the CPU of every test that passed, by its id. JUnit tells its file and class with dots."""
    found = {}
    for case in ET.parse(path).iter("testcase"):
        if any(child.tag != "properties" for child in case):  # what happened, other than passing
            continue
        parts = case.attrib["classname"].split(".")
        file = next(index for index, part in enumerate(parts) if part.startswith("test_")) + 1
        names = [f"{'/'.join(parts[:file])}.py", *parts[file:], case.attrib["name"]]
        properties = {item.attrib["name"]: item.attrib["value"] for item in case.iter("property")}
        found["::".join(names)] = float(properties[CPU_S])
    return found


class Trees:
    """Copies of the working tree, lent to one mutant each."""

    def __init__(self, folder: Path, count: int) -> None:
        self._free: queue.Queue[Path] = queue.Queue()
        for number in range(count):
            copy = folder / str(number)
            ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache", ".hypothesis")
            shutil.copytree(ROOT, copy, ignore=ignored)
            self._free.put(copy)
        self._sound: set[str] = set()

    def run(self, mutant: Mutant, coverage: Coverage) -> Outcome:
        """Put a mutant into a free copy, run its tests, and take it out."""
        tree = self._free.get()
        path = tree / mutant.module
        source = path.read_text(encoding="utf-8")
        began = time.monotonic()
        try:
            mutated = _mutated(source, mutant)
            _write(path, mutated)
            stages = coverage.tests_of(mutant)
            status, killers = _status(tree, stages, coverage)
            _write(path, source)
            self._check(tree, killers)
        finally:
            _write(path, source)
            self._free.put(tree)
        return Outcome(mutant, status, sum(map(len, stages)), time.monotonic() - began, _diff(source, mutated, mutant))

    def _check(self, tree: Path, tests: Sequence[str]) -> None:
        """A test that noticed a mutant must pass without one; each is tried once.

        Raises:
            click.ClickException: it fails all the same.
        """
        unsure = [test for test in tests if test not in self._sound]
        if unsure and _pytest(tree, unsure, None).returncode:
            raise click.ClickException(f"not sound in a copy of the tree, without a mutant: {' '.join(unsure)}")
        self._sound.update(unsure)


def _mutated(source: str, mutant: Mutant) -> str:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    mutated = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    if mutated is None:
        raise RuntimeError(f"{mutant}: nothing is changed; cosmic-ray counts occurrences in another order")
    return str(mutated)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    # Bytecode is told from its source by size and whole seconds, which two mutants may share.
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def _status(tree: Path, stages: Sequence[Sequence[str]], coverage: Coverage) -> tuple[str, Sequence[str]]:
    """What becomes of a mutant, and the tests that notice it: the first, or all that could not be collected."""
    for tests in stages:
        try:
            done = _pytest(tree, tests, math.ceil(_START_S + _SLOWER * coverage.expected_s(tests)))
        except subprocess.TimeoutExpired:
            return "timeout", ()
        if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            return "timeout", ()
        if done.returncode:
            failed = [line.split(" - ")[0].removeprefix("FAILED ") for line in done.stdout.splitlines()]
            return "killed", [test for test in tests if test in failed] or tests[:1]
    return ("survived" if stages else "untested"), ()


def _pytest(tree: Path, tests: Sequence[str], cpu_limit_s: int | None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "--benchmark-disable", "-p", "no:cacheprovider", *tests]
    if cpu_limit_s is not None:
        command = ["sh", "-c", f'ulimit -t {cpu_limit_s}; exec "$@"', "sh", *command]
    return subprocess.run(
        command,
        cwd=tree,
        env=_environment(tree),
        capture_output=True,
        text=True,
        timeout=None if cpu_limit_s is None else _WAIT_S + 10 * cpu_limit_s,
    )


def _environment(tree: Path) -> dict[str, str]:
    """Imports from a tree alone; hypothesis' examples are always the same ones."""
    shared = os.environ.get("L4SIM_SHARED", str(ROOT.parent / "shared"))
    return os.environ | {"PYTHONPATH": str(tree), "CI": "1", "L4SIM_SHARED": shared, "OMP_NUM_THREADS": "1"}


def _diff(source: str, mutated: str, mutant: Mutant) -> str:
    lines = difflib.unified_diff(
        source.splitlines(), mutated.splitlines(), mutant.module, mutant.module, n=1, lineterm=""
    )
    return "\n".join(lines)


def report(outcomes: Sequence[Outcome]) -> str:
    """Killed and survived by room, then every survivor with its diff."""
    lines = [f"{'room':<14}{'mutants':>8}{'killed':>8}{'timeout':>8}{'survived':>9}{'untested':>9}{'killed, %':>11}"]
    for room in (*ROOMS, "all"):
        counts = Counter(outcome.status for outcome in outcomes if room in (outcome.mutant.room, "all"))
        if total := counts.total():
            caught = 100 * (counts["killed"] + counts["timeout"]) / total
            figures = (total, counts["killed"], counts["timeout"], counts["survived"], counts["untested"])
            lines.append(
                f"{room:<14}{figures[0]:>8}{figures[1]:>8}{figures[2]:>8}{figures[3]:>9}{figures[4]:>9}{caught:>11.1f}"
            )
    for outcome in outcomes:
        if outcome.status in ("survived", "untested"):
            lines += ["", f"{outcome.status} {outcome.tests} tests: {outcome.mutant.operator}", outcome.diff]
    return "\n".join(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--count", default=400, type=click.IntRange(1), help="Mutants.")
@click.option("--seed", default=0, help="Of the sample.")
@click.option(
    "--room", "rooms", multiple=True, type=click.Choice(list(ROOMS)), help="Only of these rooms  [default: all]"
)
@click.option("--jobs", default=2, type=click.IntRange(1), help="Mutants at a time.")
@click.option("--tests", multiple=True, metavar="PATH", help="Only these tests  [default: all]")
@click.option("--list", "only_list", is_flag=True, help="Say which mutants there would be, and run none.")
def cli(count: int, seed: int, rooms: tuple[str, ...], jobs: int, tests: tuple[str, ...], only_list: bool) -> None:
    """Put small faults in, one at a time, and see whether the tests notice."""
    chosen = rooms or tuple(ROOMS)
    mutants = sample(chosen, count, seed)
    if only_list:
        for mutant in mutants:
            source = (ROOT / mutant.module).read_text(encoding="utf-8")
            click.echo(_diff(source, _mutated(source, mutant), mutant) + "\n")
        return
    coverage = measure_coverage(tests)
    outcomes = _done(tests)
    left = [mutant for mutant in mutants if mutant not in outcomes]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as workers:
        trees = Trees(Path(folder), jobs)
        for outcome in workers.map(lambda mutant: trees.run(mutant, coverage), left):
            outcomes[outcome.mutant] = outcome
            _keep(tests, outcomes.values())
            place = f"{outcome.mutant.module}:{outcome.mutant.line}"
            click.echo(f"{outcome.status} {place} ({outcome.seconds:.0f} s), {len(outcomes)} done", err=True)
    click.echo(report([outcomes[mutant] for mutant in mutants]))


def _done(tests: Sequence[str]) -> dict[Mutant, Outcome]:
    """What an earlier run of the same code and tests found."""
    path = OUT / "outcomes.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if kept.get("state") != _state(tests):
        return {}
    found = {}
    for row in kept["outcomes"]:
        mutant = Mutant(**row["mutant"] | {"statement": tuple(row["mutant"]["statement"])})
        found[mutant] = Outcome(**row | {"mutant": mutant})
    return found


def _keep(tests: Sequence[str], outcomes: Iterable[Outcome]) -> None:
    kept = {"state": _state(tests), "outcomes": [asdict(outcome) for outcome in outcomes]}
    (OUT / "outcomes.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli()
