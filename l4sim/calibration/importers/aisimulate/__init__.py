"""Profiles from AISimulate's tables of one GPU and engine (ai-dynamo/aisimulate, Apache-2.0)."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from l4sim.calibration.all_reduces import all_reduces_of
from l4sim.calibration.datasheet import (
    ELEMENTWISE,
    ELEMENTWISE_SOURCE,
    ROOFLINE_GEMM,
    assumed_kernels,
    hopper_elementwise,
    host_json,
)
from l4sim.calibration.importers.aisimulate.attention import attention_kernels
from l4sim.calibration.importers.aisimulate.find import BACKENDS, Found, all_versions, data_folder, find_tables
from l4sim.calibration.importers.aisimulate.held import held_out_errors
from l4sim.calibration.importers.aisimulate.operators import OPERATORS
from l4sim.calibration.importers.aisimulate.rows import Read, read_table
from l4sim.calibration.points.all_reduces import read_all_reduces
from l4sim.calibration.profile_json import all_reduce_json, provenance_json
from l4sim.cost.tables.stored import StoredTable, StoredTables, packed
from l4sim.errors import InputError
from l4sim.specs.fitted import GRAPH_TIMED
from l4sim.specs.gpu import GPU, load_gpu

SYSTEMS = {
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "b200_sxm": "b200-sxm",
    "b300_sxm": "b300-sxm",
    "gb200": "gb200",
    "gb300": "gb300",
    "l40s": "l40s",
    "rtx_pro_6000_server": "rtx-pro-6000",
    "a100_sxm": "a100-80gb-sxm",
}
"""AISimulate's systems, and what the GPU is called here."""

_LICENCE = "Apache-2.0 (measurements)"
_PUBLISHER = "ai-dynamo/aisimulate"
_HOPPER = ("h100-sxm", "h200-sxm")
_ALL_REDUCE = "custom_allreduce_perf"
_NEEDED = ("gemm_perf", "context_attention_perf", "generation_attention_perf")


@dataclass(frozen=True, slots=True)
class Imported:
    """What a folder of a profile holds."""

    profile: dict[str, Any]
    tables: bytes


def import_aisimulate(folder: Path | None, system: str, backend: str) -> Imported:
    """Make a profile of a system's newest tables of one engine; without a folder of those of the installed package.

    Raises:
        InputError: a system, engine or table that is missing, or a table that cannot be read or cannot be right.
    """
    if system not in SYSTEMS:
        raise InputError(f"no system '{system}': accepted are {', '.join(SYSTEMS)}")
    gpu = load_gpu(SYSTEMS[system])
    root = data_folder(folder)
    found = find_tables(root, system, backend)
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        raise InputError(f"{root}: {missing[0]} of {system} in {BACKENDS[backend]} is missing")
    read = {
        operator.name: read_table(
            operator,
            found[operator.file].path,
            gpu,
            f"{BACKENDS[backend]} {found[operator.file].version}",
            f"{_PUBLISHER}, {operator.file} of {system}",
        )
        for operator in OPERATORS
        if operator.file in found
    }
    return _imported(read, gpu, backend, found["gemm_perf"], all_versions(root, system, backend, _ALL_REDUCE))


def _imported(read: dict[str, Read], gpu: GPU, backend: str, products: Found, all_reduces: list[Found]) -> Imported:
    engine = f"{BACKENDS[backend]} {products.version}"
    source = f"{_PUBLISHER}, {engine}"
    tables = {
        name: replace(
            one.table,
            errors={
                what: errors.to_json()
                for what, errors in held_out_errors(one.table, gpu, sum(one.left_out.values())).items()
            },
        )
        for name, one in read.items()
    }
    content, texts = packed(tables)
    elementwise, elementwise_source = hopper_elementwise() if gpu.name in _HOPPER else (ELEMENTWISE, ELEMENTWISE_SOURCE)
    kernel, kernels = attention_kernels(tables, gpu, source)
    stored = StoredTables(
        hashlib.sha256(content).hexdigest(),
        {
            name: StoredTable(
                texts[name],
                tuple(table.sizes),
                {axis: tuple(points.tolist()) for axis, points in table.axes.items()},
                read[name].rows,
                read[name].left_out,
                table.source,
                table.engine,
                read[name].device,
                table.errors,
            )
            for name, table in tables.items()
        },
    )
    profile = {
        "name": f"{gpu.name}-{backend}",
        "measured": True,
        "gpu": asdict(gpu),
        "provenance": provenance_json(source, _LICENCE, kernels=engine),
        "default_kernel": kernel,
        "kernels": {**kernels, **assumed_kernels(gpu)},
        "linear": {
            "coefficients": asdict(ROOFLINE_GEMM),
            "errors": {},
            "source": "none: products are looked up in the table",
        },
        "elementwise": {"coefficients": asdict(elementwise), "source": elementwise_source},
        "operators": {"models": [], "source": "none"},
        "all_reduce": _all_reduces(all_reduces, gpu, backend, source),
        "host_overhead": host_json(GRAPH_TIMED),
        "tables": to_builtins(stored),
    }
    return Imported(profile, content)


def _all_reduces(found: list[Found], gpu: GPU, backend: str, source: str) -> dict[str, Any]:
    """The engine's own all-reduces in every version that there is; vLLM's have those that are bundled beside."""
    own = [table for one in found for table in read_all_reduces(one.path, gpu, BACKENDS[backend])]
    if backend == "vllm":
        return all_reduces_of(gpu, own, source)
    return all_reduce_json(own, source if own else "none: from the link, not measured")
