"""Profiles: what was measured or assumed of one GPU, read from ``profile.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from l4sim.bundled import folder
from l4sim.cost.captured import NONE_CAPTURED, Captured
from l4sim.cost.curve import Curve
from l4sim.cost.elementwise import ElementwiseCoefficients
from l4sim.cost.gemm import Correction, GemmCoefficients, Neighbours
from l4sim.cost.host import HostOverhead
from l4sim.cost.operators import MeasuredOperators
from l4sim.errors import InputError
from l4sim.specs.fields import Fields, read_fields
from l4sim.specs.gpu import GPU

PROFILE = "profile.json"
"""The file that makes a folder a profile."""

_LARGEST_CAPTURED = 1 << 20


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a profile comes from; None for what its source does not tell."""

    date: str | None
    source: str
    licence: str
    gpu_clock: str | None
    driver: str | None
    cuda: str | None
    torch: str | None
    kernels: str | None
    """The serving engine or kernel library, with its version."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One attention kernel's fit."""

    coefficients: Mapping[str, Any]
    """As ``l4sim.cost.attention.build_attention`` takes them."""
    errors: Mapping[str, Any]
    """Held-out errors by kind of batch; empty if nothing was measured."""
    source: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that turns a batch on one GPU type into seconds."""

    name: str
    measured: bool
    """False for rooflines: then every printed figure says so."""
    gpu: GPU
    provenance: Provenance
    default_kernel: str
    kernels: Mapping[str, Kernel]
    linear: GemmCoefficients
    elementwise: ElementwiseCoefficients
    all_reduce: Mapping[int, Curve]
    """Seconds over bytes, by number of GPUs."""
    operators: tuple[MeasuredOperators, ...]
    """Models whose operators were measured themselves; ``linear`` and ``elementwise`` serve all others."""
    captured: Captured
    """What the engine runs as CUDA graphs, and so pads."""
    host: HostOverhead
    errors: Mapping[str, Mapping[str, Any]]
    """Held-out errors of ``linear``, ``all_reduce``, ``operators`` and ``iteration``; empty if nothing was measured."""
    sources: Mapping[str, str]
    """Where each operator's figures come from, by section."""
    reference_s: float | None
    """Seconds of the reference iteration at the speed that these costs are of, on devices whose speed is not their own;
    None: the device is taken as it is."""
    content_hash: str
    """SHA-256 of ``profile.json``."""

    @property
    def basis(self) -> str:
        """``measured``, ``roofline, not measured``, or what of it was measured."""
        if self.measured:
            return "measured"
        attention = any(kernel.errors for kernel in self.kernels.values())
        return "attention measured, the rest roofline" if attention else "roofline, not measured"

    def kernel_basis(self, kernel: str) -> str:
        """The basis of figures with one of the kernels: a measured profile may hold some that were not."""
        if self.kernels[kernel].errors:
            return self.basis
        return f"measured, but for {kernel}: not measured" if self.measured else "roofline, not measured"


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
    return _profile(read_fields(path), hashlib.sha256(path.read_bytes()).hexdigest())


def _profile(root: Fields, content_hash: str) -> Profile:
    sections = ("gpu", "provenance", "kernels", "linear", "elementwise", "operators", "all_reduce", "host_overhead")
    root.only("name", "measured", "default_kernel", "captured", "reference_s", *sections)
    kernels = {name: _kernel(root.object("kernels").object(name)) for name in root.object("kernels").values}
    default_kernel = root.text("default_kernel")
    if default_kernel not in kernels:
        raise InputError(f"{root.where}: default_kernel is {default_kernel!r}, accepted are {', '.join(kernels)}")
    linear = root.object("linear").only("coefficients", "errors", "source")
    elementwise = root.object("elementwise").only("coefficients", "source")
    all_reduce = root.object("all_reduce").only("gpus", "errors", "source")
    operators = root.object("operators").only("models", "errors", "source")
    host = root.object("host_overhead").only("seconds", "prompt_s", "sequence_s", "errors", "source")
    return Profile(
        name=root.text("name"),
        measured=root.flag("measured"),
        gpu=read_gpu(root.object("gpu")),
        provenance=read_provenance(root.object("provenance")),
        default_kernel=default_kernel,
        kernels=kernels,
        linear=_gemm(linear.object("coefficients")),
        elementwise=_elementwise(elementwise.object("coefficients")),
        all_reduce=_all_reduce(all_reduce.object("gpus")),
        operators=tuple(_operators(entry) for entry in operators.objects("models")),
        captured=read_captured(root.object("captured")) if "captured" in root.values else NONE_CAPTURED,
        host=HostOverhead(
            host.number("seconds"),
            host.number("prompt_s" if "prompt_s" in host.values else "seconds"),
            host.number("sequence_s") if "sequence_s" in host.values else 0.0,
        ),
        errors={
            "linear": linear.object("errors").values,
            "all_reduce": all_reduce.object("errors").values,
            "operators": _optional_errors(operators),
            "iteration": _optional_errors(host),
        },
        sources={name: root.object(name).text("source") for name in sections[3:]},
        reference_s=root.optional_positive("reference_s"),
        content_hash=content_hash,
    )


def _optional_errors(section: Fields) -> Mapping[str, Any]:
    """Errors of what few profiles have measured."""
    return section.object("errors").values if "errors" in section.values else {}


def read_gpu(section: Fields) -> GPU:
    """A GPU as ``profile.json`` holds it.

    Raises:
        InputError: a field that is missing, unknown or invalid.
    """
    section.only(*(field.name for field in fields(GPU)))
    return GPU(
        name=section.text("name"),
        sms=section.count("sms"),
        memory_bytes=section.count("memory_bytes"),
        memory_bytes_per_s=section.positive("memory_bytes_per_s"),
        bf16_flops=section.positive("bf16_flops"),
        l2_bytes=section.count("l2_bytes"),
        link_bytes_per_s=section.positive("link_bytes_per_s"),
        source=section.text("source"),
    )


def read_provenance(section: Fields) -> Provenance:
    """Where figures come from, as ``profile.json`` holds it.

    Raises:
        InputError: a field that is missing, unknown or invalid.
    """
    section.only(*(field.name for field in fields(Provenance)))
    return Provenance(
        date=section.optional_text("date"),
        source=section.text("source"),
        licence=section.text("licence"),
        gpu_clock=section.optional_text("gpu_clock"),
        driver=section.optional_text("driver"),
        cuda=section.optional_text("cuda"),
        torch=section.optional_text("torch"),
        kernels=section.optional_text("kernels"),
    )


def read_captured(section: Fields) -> Captured:
    """What is captured, as ``profile.json`` and ``measured.json`` hold it.

    Raises:
        InputError: a field that is missing, unknown or invalid.
    """
    section.only("decodes", "steps")
    return Captured(_captured_sizes(section, "decodes"), _captured_sizes(section, "steps"))


def _captured_sizes(section: Fields, name: str) -> tuple[int, ...]:
    """An ascending list of whole numbers, which may be empty."""
    if section.get(name) == []:
        return ()
    sizes = section.ascending(name)
    for size in sizes:
        if size != int(size) or not 1 <= size <= _LARGEST_CAPTURED:
            raise InputError(
                f"{section.where}: {name} has {size:g}, accepted are whole numbers from 1 to {_LARGEST_CAPTURED:,}"
            )
    return tuple(map(int, sizes))


def _kernel(section: Fields) -> Kernel:
    section.only("coefficients", "errors", "source")
    return Kernel(section.object("coefficients").values, section.object("errors").values, section.text("source"))


def _gemm(section: Fields) -> GemmCoefficients:
    section.only(*(field.name for field in fields(GemmCoefficients)))
    return GemmCoefficients(
        launch_s=section.number("launch_s"),
        bandwidth_fraction=section.positive("bandwidth_fraction"),
        tensor_core_fraction=section.positive("tensor_core_fraction"),
        wave_s=section.number("wave_s"),
        sm_stream_bytes_per_s=section.positive("sm_stream_bytes_per_s"),
        split_k_s=section.number("split_k_s"),
        overlap_exponent=section.positive("overlap_exponent"),
        by_output_and_depth=_correction(section, "by_output_and_depth"),
        by_shape=_correction(section, "by_shape"),
        by_neighbours=_neighbours(section),
        wide_tiles=section.flag("wide_tiles", default=False),
    )


def _correction(section: Fields, name: str) -> Correction | None:
    if section.get(name) is None:
        return None
    table = section.object(name).only("x_knots", "y_knots", "values")
    x_knots, y_knots = table.ascending("x_knots"), table.ascending("y_knots")
    return Correction(x_knots, y_knots, table.grid("values", len(x_knots), len(y_knots)))


def _neighbours(section: Fields) -> Neighbours | None:
    if section.values.get("by_neighbours") is None:
        return None
    names = [field.name for field in fields(Neighbours)]
    table = section.object("by_neighbours").only(*names)
    columns = [table.numbers(name, signed=name == "weights") for name in names]
    if len({len(column) for column in columns}) != 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise InputError(f"{table.where}: lists of {lengths} numbers, accepted are as many in each")
    return Neighbours(*columns)


def _operators(section: Fields) -> MeasuredOperators:
    section.only(*(field.name for field in fields(MeasuredOperators)))
    shape = ("hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab", "tensor_parallel")
    return MeasuredOperators(
        **{name: section.count(name) for name in shape},
        layer=_curve(section.object("layer"), "tokens"),
        once=_curve(section.object("once"), "tokens"),
        sampled=_curve(section.object("sampled"), "sequences"),
    )


def _elementwise(section: Fields) -> ElementwiseCoefficients:
    section.only("kernel_s", "bandwidth_fraction")
    return ElementwiseCoefficients(section.number("kernel_s"), section.positive("bandwidth_fraction"))


def _all_reduce(section: Fields) -> dict[int, Curve]:
    for gpus in section.values:
        if not gpus.isdecimal():
            raise InputError(f"{section.where}: {gpus} is not a number of GPUs")
    return {int(gpus): _curve(section.object(gpus), "size_bytes") for gpus in section.values}


def _curve(section: Fields, size: str) -> Curve:
    section.only(size, "seconds")
    sizes, seconds = section.ascending(size), section.numbers("seconds")
    if len(sizes) != len(seconds):
        raise InputError(f"{section.where}: {len(seconds)} seconds for {len(sizes)} {size}")
    return Curve(sizes, seconds)
