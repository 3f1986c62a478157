"""Which room may import which: imports point down the house's list of rooms, and no two modules need each other.

Imports are read from the source, inside functions too: a lazy import makes a start faster, and a design no better.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

# In one worker: all sources are read and parsed once.
pytestmark = pytest.mark.xdist_group("imports")

_ROOT = Path(__file__).resolve().parent.parent

_GROUND = ("errors", "batch", "records", "bundled", "json_files", "code_hash", "plugins")
_COSTS = (*_GROUND, "specs", "kernels", "cost")
_DECISIONS = (*_GROUND, "specs", "workload", "cost", "policies")
_SIMULATION = (*_DECISIONS, "engine", "runtime", "simulator")
_COMPOSED = (*_SIMULATION, "experiment")
_REPORTED = (*_COMPOSED, "results")
_ALL = (*_REPORTED, "kernels", "calibration", "recordings", "gain", "sweeps", "cli", "api")

ROOMS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "batch": (),
    "records": ("errors",),
    "bundled": (),
    "json_files": ("errors",),
    "code_hash": ("errors",),
    "plugins": ("errors", "code_hash"),
    "specs": _GROUND,
    "workload": _GROUND,
    "kernels": _GROUND,
    # What a run needs knows nothing of how it was measured.
    "cost": (*_GROUND, "specs", "kernels"),
    "calibration": _COSTS,
    # An engine takes seconds from whoever drives it.
    "engine": (*_GROUND, "specs"),
    # Decisions only: no clock, no engine, no simulator.
    "policies": (*_GROUND, "specs", "workload", "cost"),
    "runtime": (*_DECISIONS, "engine"),
    "simulator": (*_DECISIONS, "engine", "runtime"),
    "experiment": _SIMULATION,
    "results": _COMPOSED,
    "gain": _REPORTED,
    "sweeps": _REPORTED,
    # Points of benchmarks are as many simulations as a sweep, and use its processes.
    "recordings": (*_REPORTED, "calibration", "sweeps"),
    "serve": (*_DECISIONS, "engine", "runtime"),
    "api": tuple(room for room in _ALL if room not in ("cli", "api")),
    "cli": tuple(room for room in _ALL if room != "cli"),
    "__main__": ("cli",),
}
"""The rooms of l4sim, from the ground up, and what each may import besides itself."""

VALIDATE_GPU_ROOMS = (
    "vllm",
    "decisions",
    "live_run",
    "live",
    "measure",
    "profile_match",
    "lockstep",
    "realtime",
    "recording",
    "comparison",
    "cli",
)
"""The rooms of validate_gpu, from the ground up: each may import those before it, and all of l4sim but its surface."""

_COMMAND_LINES = ("validate_gpu.cli", "validate_gpu.comparison", "validate_gpu.measure")
"""Of validate_gpu, what may use l4sim's command line: commands, and what prints like them."""

ROOM_EXCEPTIONS = {
    # The simulator's rows become a Run, which lies with the results that are made of it.
    ("experiment", "results"),
}
"""What the table refuses and is there still. An entry that is no longer needed fails, so that it goes."""


class Import(NamedTuple):
    """One module's import of another."""

    module: str
    imported: str
    line: int
    for_types: bool
    """Seen by type checkers alone."""


@cache
def modules() -> dict[str, Path]:
    """Every module of both packages by name."""
    found = {}
    for package in ("l4sim", "validate_gpu"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            parts = path.relative_to(_ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import of one of the packages' modules by another."""
    return tuple(found for module, path in modules().items() for found in imports_of(module, path.read_text("utf-8")))


def imports_of(module: str, source: str) -> Iterator[Import]:
    tree = ast.parse(source)
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    for_types = {inner for guard in guards for statement in guard.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        for name in _names(node):
            if name != module:
                yield Import(module, name, node.lineno, node in for_types)  # type: ignore[attr-defined]


def _names(node: ast.AST) -> Iterator[str]:
    """The packages' modules that a statement imports: of ``from package import module`` the module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules())
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if inner in modules():
                yield inner
            elif node.module in modules():
                yield str(node.module)


def room_of(module: str) -> str:
    """``l4sim.cost.gemm`` is in ``cost``, ``validate_gpu.live.kv`` in ``validate_gpu.live``."""
    package, _, below = module.partition(".")
    room = below.partition(".")[0]
    return room if package == "l4sim" else f"{package}.{room}"


def allowed(room: str) -> set[str]:
    package, _, below = room.partition(".")
    if package != "validate_gpu":
        return set(ROOMS[room])
    before = {f"validate_gpu.{name}" for name in VALIDATE_GPU_ROOMS[: VALIDATE_GPU_ROOMS.index(below)]}
    inner = {name for name in _ALL if name not in ("api", "cli")}
    return before | inner | ({"cli"} if room in _COMMAND_LINES else set())


def test_every_room_has_its_place_in_the_tables() -> None:
    rooms = {room_of(module) for module in modules()} - {"", "validate_gpu."}
    assert rooms <= set(ROOMS) | {f"validate_gpu.{name}" for name in VALIDATE_GPU_ROOMS}


def test_the_table_itself_points_down() -> None:
    ground_up = list(ROOMS)
    for room, may_import in ROOMS.items():
        above = {other for other in may_import if ground_up.index(other) > ground_up.index(room)}
        assert not above, f"{room} may import what stands above it"


@pytest.mark.slow
@pytest.mark.parametrize("room", sorted({room_of(module) for module in modules()} - {"", "validate_gpu."}))
def test_a_room_imports_only_what_stands_below_it(room: str) -> None:
    may_import = allowed(room) | {imported for importer, imported in ROOM_EXCEPTIONS if importer == room} | {room}
    wrong = [
        f"{found.module}, line {found.line}: {found.imported}"
        for found in imports()
        if room_of(found.module) == room and found.imported != "l4sim" and room_of(found.imported) not in may_import
    ]
    assert wrong == []


@pytest.mark.slow
def test_cost_needs_nothing_of_what_makes_profiles() -> None:
    makers = [found for found in imports() if found.module.startswith("l4sim.cost")]
    assert makers
    assert not [found for found in makers if found.imported.startswith("l4sim.calibration")]


def test_l4sim_never_imports_the_gpu_package() -> None:
    assert not [
        found for found in imports() if room_of(found.imported).startswith("validate_gpu") and "l4sim" in found.module
    ]


def test_the_package_itself_imports_only_its_interface_and_that_lazily() -> None:
    interface = {"l4sim.api", "l4sim.recordings.start"}
    assert {found.imported for found in imports() if found.module == "l4sim"} == interface


def test_what_runs_in_vllms_environment_needs_nothing_of_l4sim() -> None:
    assert not [
        found
        for found in imports()
        if room_of(found.module) == "validate_gpu.vllm" and room_of(found.imported) != "validate_gpu.vllm"
    ]
    starts = {found.imported for found in imports() if found.module == "l4sim.recordings.start"}
    assert starts == {"l4sim.errors"}


def test_every_exception_is_still_needed() -> None:
    there = {(room_of(found.module), room_of(found.imported)) for found in imports()}
    assert there >= ROOM_EXCEPTIONS


def test_no_modules_import_one_another() -> None:
    assert first_circle(imports()) == []


def first_circle(found: Iterable[Import]) -> list[str]:
    """The modules of an import circle; empty if there is none.

    What only type checkers see makes none, nor does the package's own module: it gives its version to its files, and
    loads the public functions when asked.
    """
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for one in found:
        if not one.for_types and "l4sim" not in (one.module, one.imported):
            graph[one.module].add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_is_found_where_an_import_is_late() -> None:
    there = Import("l4sim.a", "l4sim.b", 1, for_types=False)
    back = imports_of("l4sim.cost.gemm", "def f():\n    from l4sim.cost.linear import g")
    late = [Import("l4sim.cost.linear", "l4sim.cost.gemm", 1, for_types=False), there, *back]
    assert set(first_circle(late)) == {"l4sim.cost.gemm", "l4sim.cost.linear"}
    assert first_circle([one._replace(for_types=one in late[2:]) for one in late]) == []


@pytest.mark.parametrize(
    ("source", "imported", "for_types"),
    [
        ("from l4sim.cost import gemm", "l4sim.cost.gemm", False),
        ("from l4sim.cost.gemm import gemm_s", "l4sim.cost.gemm", False),
        ("import l4sim.cost.gemm as g", "l4sim.cost.gemm", False),
        ("def f():\n    from l4sim.cost.gemm import gemm_s", "l4sim.cost.gemm", False),
        ("if TYPE_CHECKING:\n    from l4sim.cost.gemm import gemm_s", "l4sim.cost.gemm", True),
    ],
)
def test_every_kind_of_import_is_seen(source: str, imported: str, for_types: bool) -> None:
    [found] = imports_of("l4sim.somewhere", source)
    assert (found.imported, found.for_types) == (imported, for_types)
