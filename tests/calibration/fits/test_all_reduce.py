"""All-reduces are fitted to few knots, in bytes rather than elements."""

from pathlib import Path

from l4sim.calibration.fits.all_reduce import fit_all_reduce
from l4sim.calibration.importers.aiconfigurator import read_all_reduce_points


def test_few_knots_hold_the_measured_table(measurements: Path) -> None:
    tables, errors = fit_all_reduce(read_all_reduce_points(measurements / "aic_h200_sxm_vllm0.24_allreduce.csv.gz"))
    assert set(tables) == {2, 4, 8}
    assert errors.worst_pct <= 3
    assert all(len(table.sizes) <= 12 for table in tables.values())


def test_message_sizes_are_bf16_elements(measurements: Path) -> None:
    """The custom all-reduce ends below 8 MiB, where time doubles: at 4 Mi elements, not at 8 Mi.

    And NVLink's 450 GB/s bound the ring: 1 GiB among 2 GPUs cannot take less than 2.4 ms.
    """
    tables, _ = fit_all_reduce(read_all_reduce_points(measurements / "aic_h200_sxm_vllm0.24_allreduce.csv.gz"))
    below, at = tables[2].at([4 * 2**20, 8 * 2**20])
    assert at > 1.9 * below
    rate = 2**30 / float(tables[2].at(2**30))
    assert 300e9 < rate < 450e9
