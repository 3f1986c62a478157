"""Profiles: what was measured or assumed of one GPU, read from ``profile.json``."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l4sim.bundled import folder
from l4sim.cost.captured import NONE_CAPTURED, Captured
from l4sim.cost.communication import AllReduceTable
from l4sim.cost.curve import OverBytes
from l4sim.cost.elementwise import ElementwiseCoefficients
from l4sim.cost.gemm import GemmCoefficients
from l4sim.cost.host import HostOverhead
from l4sim.cost.operators import MeasuredOperators
from l4sim.cost.tables.stored import TABLES_FILE, StoredTables, read_tables
from l4sim.cost.tables.table import OperatorTable
from l4sim.cost.whole_iterations import WholeIterations
from l4sim.errors import InputError
from l4sim.json_files import NonNegative, Positive, Text, checked_items, read_json
from l4sim.specs.gpu import GPU

PROFILE = "profile.json"
"""The file that makes a folder a profile."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a profile comes from; None for what its source does not tell."""

    date: Text | None
    source: Text
    licence: Text
    gpu_clock: Text | None
    driver: Text | None
    cuda: Text | None
    torch: Text | None
    kernels: Text | None
    """The serving engine or kernel library, with its version."""


@dataclass(frozen=True, slots=True)
class ProfiledKernel:
    """One attention kernel on this GPU."""

    coefficients: Mapping[str, Any]
    """As ``l4sim.cost.attention.build_attention`` takes them."""
    errors: Mapping[str, Any]
    """Held-out errors by kind of batch; empty if nothing was measured."""
    source: Text


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that turns a batch on one GPU type into seconds."""

    name: str
    measured: bool
    """False for rooflines: then every printed figure says so."""
    gpu: GPU
    provenance: Provenance
    default_kernel: str
    kernels: Mapping[str, ProfiledKernel]
    linear: GemmCoefficients
    elementwise: ElementwiseCoefficients
    all_reduce: tuple[AllReduceTable, ...]
    """By number of GPUs, regime and engine; none where nothing was measured."""
    operators: tuple[MeasuredOperators, ...]
    """Models whose operators were measured themselves; ``linear`` and ``elementwise`` serve all others."""
    captured: Captured
    """What the engine runs as CUDA graphs, and so pads."""
    host: HostOverhead
    host_kind: str | None
    """Of fitted host constants the kind, by how the kernels were timed; None: the host is this profile's own."""
    errors: Mapping[str, Mapping[str, Any]]
    """Held-out errors of ``linear``, ``elementwise``, ``operators``, ``iteration`` and each table of all-reduces; empty
    if nothing was measured."""
    sources: Mapping[str, str]
    """Where each operator's figures come from, by section."""
    reference_s: float | None
    """Seconds of the reference iteration at the speed that these costs are of, on devices whose speed is not their own;
    None: the device is taken as it is."""
    content_hash: str
    """SHA-256 of ``profile.json``."""
    iterations: tuple[WholeIterations, ...] = ()
    """Models whose whole iterations were recorded; where there are any, the profile serves these alone."""
    tables: Mapping[str, OperatorTable] = field(default_factory=dict)
    """Operators of any model, looked up; where there are any, they stand for ``linear`` and ``operators``."""

    @property
    def basis(self) -> str:
        """``measured``, ``roofline, not measured``, or what of it was: of the profile, `basis_of` tells it of a run."""
        if self.measured:
            return "measured"
        attention = any(kernel.errors for kernel in self.kernels.values())
        return "attention measured, the rest roofline" if attention else "roofline, not measured"


def list_profiles() -> tuple[str, ...]:
    """Names of the bundled profiles, sorted."""
    return tuple(sorted(path.parent.name for path in folder("profiles").glob(f"*/{PROFILE}")))


def profile_folder(name_or_dir: str) -> Path:
    """Where a profile lies: a bundled one by name, or any by its folder.

    Raises:
        InputError: no such profile.
    """
    bundled = list_profiles()
    directory = folder("profiles") / name_or_dir if name_or_dir in bundled else Path(name_or_dir)
    if not (directory / PROFILE).is_file():
        raise InputError(f"no profile '{name_or_dir}': accepted are {', '.join(bundled)}, or a folder with {PROFILE}")
    return directory


def load_profile(name_or_dir: str) -> Profile:
    """A bundled profile by name, or any by its folder.

    Raises:
        InputError: no such profile; a field that is missing, unknown or invalid.
    """
    path = profile_folder(name_or_dir) / PROFILE
    file = read_json(path, _File)
    tables = {} if file.tables is None else read_tables(file.tables, path.parent / TABLES_FILE)
    return _profile(file, str(path), hashlib.sha256(path.read_bytes()).hexdigest(), tables)


@dataclass(frozen=True, slots=True)
class _Linear:
    coefficients: GemmCoefficients
    errors: Mapping[str, Any]
    source: Text


@dataclass(frozen=True, slots=True)
class _Elementwise:
    coefficients: ElementwiseCoefficients
    source: Text
    errors: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Operators:
    models: tuple[MeasuredOperators, ...]
    source: Text
    errors: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _AllReduce:
    source: Text
    tables: tuple[AllReduceTable, ...] = ()
    gpus: Mapping[str, Any] = field(default_factory=dict)
    """Curves by number of GPUs, with one set of ``errors`` for all: how profiles were written that had one regime."""
    errors: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _HostOverhead:
    seconds: NonNegative
    """Of decodes alone; and with prompts, where no more was measured."""
    source: Text
    prompt_s: NonNegative | None = None
    sequence_s: NonNegative = 0.0
    kind: Text | None = None
    """How the kernels were timed beside which it was found (`l4sim.specs.fitted`)."""
    errors: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _File:
    """``profile.json``, a section for each kind of operator, each with its errors and its source."""

    name: Text
    measured: bool
    gpu: GPU
    provenance: Provenance
    default_kernel: Text
    kernels: Mapping[str, Any]
    linear: _Linear
    elementwise: _Elementwise
    operators: _Operators
    all_reduce: _AllReduce
    host_overhead: _HostOverhead
    captured: Captured = NONE_CAPTURED
    reference_s: Positive | None = None
    iterations: tuple[WholeIterations, ...] = ()
    tables: StoredTables | None = None


def _profile(file: _File, where: str, content_hash: str, tables: Mapping[str, OperatorTable]) -> Profile:
    kernels = checked_items(file.kernels, ProfiledKernel, f"{where}: kernels")
    if file.default_kernel not in kernels:
        raise InputError(f"{where}: default_kernel is {file.default_kernel!r}, accepted are {', '.join(kernels)}")
    all_reduce = _all_reduce(file, f"{where}: all_reduce")
    host = file.host_overhead
    return Profile(
        name=file.name,
        measured=file.measured,
        gpu=file.gpu,
        provenance=file.provenance,
        default_kernel=file.default_kernel,
        kernels=kernels,
        linear=file.linear.coefficients,
        elementwise=file.elementwise.coefficients,
        all_reduce=all_reduce,
        operators=file.operators.models,
        captured=file.captured,
        host=HostOverhead(host.seconds, host.seconds if host.prompt_s is None else host.prompt_s, host.sequence_s),
        host_kind=host.kind,
        errors={
            "linear": file.linear.errors,
            "elementwise": file.elementwise.errors,
            **{table.name: table.errors for table in all_reduce},
            **{f"{name}, {what}": errors for name, table in tables.items() for what, errors in table.errors.items()},
            "operators": file.operators.errors,
            "iteration": host.errors,
        },
        sources={
            "linear": file.linear.source,
            "elementwise": file.elementwise.source,
            "operators": file.operators.source,
            "all_reduce": file.all_reduce.source,
            "host_overhead": host.source,
            **{f"table of {name}": f"{table.source}, {table.engine}" for name, table in tables.items()},
        },
        reference_s=file.reference_s,
        content_hash=content_hash,
        iterations=file.iterations,
        tables=tables,
    )


def _all_reduce(file: _File, where: str) -> tuple[AllReduceTable, ...]:
    section = file.all_reduce
    for gpus in section.gpus:
        if not gpus.isdecimal():
            raise InputError(f"{where}: gpus: {gpus} is not a number of GPUs")
    curves = checked_items(section.gpus, OverBytes, f"{where}: gpus")
    tables = (
        *section.tables,
        *(
            AllReduceTable(int(gpus), "captured", "no stated engine", file.gpu.name, True, curve, section.errors)
            for gpus, curve in curves.items()
            # Without errors they are a ring over the datasheet's link, of which more is known now.
            if section.errors
        ),
    )
    for name, count in Counter(table.name for table in tables).items():
        if count > 1:
            raise InputError(f"{where}: {count} tables of {name}, accepted is one")
    return tables
