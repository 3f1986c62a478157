"""Named links held against the all-reduces that they were fitted to, and against others over such links."""

from __future__ import annotations

from typing import NamedTuple

from l4sim.calibration.all_reduces import bundled_all_reduces
from l4sim.calibration.fits.all_reduce import fit_link, link_errors
from l4sim.calibration.fits.errors import Errors
from l4sim.cost.communication import AllReduceTable
from l4sim.specs.gpu import GPUS
from l4sim.specs.link import LINKS, Link

FITTED = {
    "nvlink-4": ("h100-sxm", "vLLM 0.24.0", ("h100-sxm", "h200-sxm")),
    "pcie": ("rtx-pro-6000", "vLLM 0.19.0", ("rtx-pro-6000",)),
    "pcie-4-p2p": ("l40-48gb", "vLLM 0.14.0", ("l40-48gb",)),
    "pcie-5-p2p": ("rtx-pro-6000", "vLLM 0.24.0", ("rtx-pro-6000",)),
}
"""By link the GPU and engine whose captured all-reduce between two it was fitted to, and the GPUs with such links."""


class Held(NamedTuple):
    """A named link against one measured all-reduce."""

    link: str
    table: AllReduceTable
    fitted: bool
    """Whether the link was fitted to this one."""
    errors: Errors


def held_links() -> list[Held]:
    """All fitted links, each against every captured all-reduce over such a link in the same version of the engine."""
    return [
        Held(
            name,
            table,
            table == _fitted_table(name),
            link_errors(LINKS[name], table),
        )
        for name, (_, engine, gpus) in FITTED.items()
        for gpu in gpus
        for table in bundled_all_reduces(GPUS[gpu]).tables
        if table.engine == engine and table.regime == "captured"
    ]


def refitted_link(name: str) -> Link:
    """A fitted link, fitted again: what `LINKS` has, rounded."""
    return fit_link(name, _fitted_table(name))


def _fitted_table(name: str) -> AllReduceTable:
    gpu, engine, _ = FITTED[name]
    tables = bundled_all_reduces(GPUS[gpu]).tables
    return next(table for table in tables if (table.gpus, table.regime, table.engine) == (2, "captured", engine))
