"""Seconds of the all-reduces that tensor parallelism needs: measured tables, or a link's latency and bandwidth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from l4sim.cost.curve import OverBytes
from l4sim.errors import InputError
from l4sim.json_files import Count, Text
from l4sim.specs.gpu import GPU
from l4sim.specs.link import LINKS, Link

Regime = Literal["captured", "eager"]
"""Whether a CUDA graph holds the all-reduce, or the host launches it: vLLM's kernel then copies the message first."""

REGIMES: tuple[Regime, ...] = ("captured", "eager")


@dataclass(frozen=True, slots=True)
class AllReduceTable:
    """An all-reduce as one version of an engine does it among so many GPUs."""

    gpus: Count
    regime: Regime
    engine: Text
    """Name and version, as in ``vLLM 0.24.0``."""
    device: Text
    """The GPU that was measured, as CUDA calls it."""
    measured: bool
    """False where that is another GPU than the profile's, taken for it."""
    curve: OverBytes
    errors: Mapping[str, Any]
    """Of each point but the ends, predicted from the others."""

    @property
    def name(self) -> str:
        """What tells this table from a profile's others."""
        return f"all-reduce, {self.gpus} GPUs, {self.regime}, {self.engine}"

    @property
    def version(self) -> tuple[int, int]:
        """The engine's, major and minor; zeros where it has none."""
        return _version(self.engine) or (0, 0)


@dataclass(frozen=True, slots=True)
class AllReduce:
    """What a run takes for its all-reduces."""

    captured: OverBytes
    eager: OverBytes
    measured: bool
    """Whether it was measured on the run's own GPU."""
    source: str
    """Where it comes from, in a few words."""


def all_reduce_among(
    gpus: int, gpu: GPU, tables: Sequence[AllReduceTable], *, engine: str = "", link: Link | None = None
) -> AllReduce:
    """The all-reduce among ``gpus`` of a kind.

    A given ``link`` decides, unless it is as fast as the GPU's own: tables are of that. Else the tables of the version
    that is the nearest to ``engine``'s (``vllm-0.19``; the newest where it names none), and where there are none for so
    many GPUs, the kind of link that the GPU has.

    Raises:
        InputError: fewer than two GPUs.
    """
    if gpus < 2:
        raise InputError(f"no all-reduce among {gpus} GPUs: accepted are 2 or more")
    if link is not None and link.bytes_per_s != gpu.link_bytes_per_s:
        return over_link(gpus, link)
    found = nearest_tables([table for table in tables if table.gpus == gpus], engine)
    if not found:
        return over_link(gpus, node_link(gpu))
    # Where one regime was measured, it has to do for the other.
    either = next(iter(found.values()))
    captured, eager = (found.get(regime, either) for regime in REGIMES)
    source = either.engine if either.measured else f"as {either.device} in {either.engine}"
    return AllReduce(captured.curve, eager.curve, captured.measured and eager.measured, source)


# One direction of PCIe 5.0 x16: what is faster is NVLink.
_PCIE_BYTES_PER_S = 64e9


def latencies(gpus: int, link: Link) -> int:
    """How often an all-reduce waits for a link's latency.

    vLLM's own kernel writes to all GPUs and hears from all of them, once each way; it serves two GPUs, or any number
    that NVLink connects. Between more over PCIe NCCL's ring adds around, then hands around what was added. Source:
    vLLM 0.32, custom_all_reduce.py, `should_custom_ar`; Patarasu and Yuan, "Bandwidth optimal all-reduce algorithms",
    2009.
    """
    return 2 if gpus == 2 or link.bytes_per_s > _PCIE_BYTES_PER_S else 2 * (gpus - 1)


def sent_share(gpus: int) -> float:
    """What every GPU sends, of the message's bytes, at the least (Patarasu and Yuan)."""
    return 2 * (gpus - 1) / gpus


def over_link(gpus: int, link: Link) -> AllReduce:
    """The all-reduce among GPUs of which only the link is known: not measured."""
    latency_s = latencies(gpus, link) * link.latency_s
    size_bytes = float(1 << 30)
    curve = OverBytes((0.0, size_bytes), (latency_s, latency_s + sent_share(gpus) * size_bytes / link.bytes_per_s))
    return AllReduce(curve, curve, measured=False, source=f"from link {link}")


# What NVLink 4 carries in one direction, by the datasheet: LINKS["nvlink-4"] is what an all-reduce reaches of it.
_NVLINK_4_BYTES_PER_S = 450e9


def node_link(gpu: GPU) -> Link:
    """What an all-reduce reaches on the kind of link that a GPU has, by measurements of others of that kind."""
    if gpu.link_bytes_per_s <= _PCIE_BYTES_PER_S:
        return LINKS["pcie"]
    nvlink = LINKS["nvlink-4"]
    share = gpu.link_bytes_per_s / _NVLINK_4_BYTES_PER_S
    return Link("nvlink", nvlink.bytes_per_s * share, nvlink.latency_s, f"{share:.0%} of {nvlink.name}'s bandwidth")


def nearest_tables(tables: Iterable[AllReduceTable], engine: str) -> dict[Regime, AllReduceTable]:
    """By regime the tables of the version nearest to an engine's (``vllm-0.19``); of two as near, the newer.

    All are of one number of GPUs. An engine that is not vLLM's, or names no version, takes the newest.
    """
    wanted = _version(engine) if engine.startswith("vllm-") else None

    def distance(table: AllReduceTable) -> tuple[int, tuple[int, int]]:
        major, minor = table.version
        apart = 0 if wanted is None else abs(1000 * (major - wanted[0]) + minor - wanted[1])
        return apart, (-major, -minor)

    ordered = sorted(tables, key=distance)
    nearest = [table for table in ordered if distance(table) == distance(ordered[0])]
    return {table.regime: table for table in nearest}


def _version(text: str) -> tuple[int, int] | None:
    found = re.search(r"(\d+)\.(\d+)", text)
    return None if found is None else (int(found[1]), int(found[2]))
