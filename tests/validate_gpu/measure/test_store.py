"""Finished points on disk, whatever happens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from l4sim.calibration.measured.folder import Measured, read_columns, read_measured
from l4sim.cost.profile import Provenance
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS
from validate_gpu.measure.points import ProductPoint, Sample
from validate_gpu.measure.store import Store

PROVENANCE = Provenance("2026-01-01", "a test", "Apache-2.0", None, "580.1", "13.0", "2.11", "FlashInfer 0.6.8")
MEASURED = Measured("folder", GPUS["h200-sxm"], PROVENANCE, "flashinfer-tensor")
SAMPLE = Sample(1.25e-5, 2e-7, 20, "graph", 0.004)
POINTS = [ProductPoint(m, 4096, 4096) for m in (1, 8, 64)]


def test_a_point_is_on_disk_once_it_is_added(tmp_path: Path) -> None:
    store = Store(tmp_path / "new", MEASURED)
    store.add(POINTS[0], SAMPLE, clock_mhz=1979.6)
    assert (tmp_path / "new" / "linear.csv").read_text() == (
        "m,n,k,median_s,spread_s,repeats,timed,reference_error,clock_mhz\n1,4096,4096,1.25e-05,2e-07,20,graph,0.004,1980\n"
    )
    assert read_columns(tmp_path / "new", "linear", ("m",))["median_s"].tolist() == [1.25e-5]
    assert read_measured(tmp_path / "new") == MEASURED


def test_finished_points_are_known_again(tmp_path: Path) -> None:
    Store(tmp_path, MEASURED).add(POINTS[0], SAMPLE, 0.0)
    again = Store(tmp_path, MEASURED)
    assert [again.has(point) for point in POINTS] == [True, False, False]


def test_a_point_may_be_asked_for_several_times(tmp_path: Path) -> None:
    store = Store(tmp_path, MEASURED)
    for _ in range(2):
        store.add(POINTS[0], SAMPLE, 0.0)
    again = Store(tmp_path, MEASURED)
    assert [again.has(POINTS[0], times) for times in (1, 2, 3)] == [True, True, False]
    again.fail(POINTS[1], "no kernel")
    assert again.has(POINTS[1], 3)


def test_a_sample_at_the_reference_speed_says_how_slow_the_device_was(tmp_path: Path) -> None:
    Store(tmp_path, MEASURED).add(POINTS[0], replace(SAMPLE, slowness=1.25), 0.0)
    assert (tmp_path / "linear.csv").read_text() == (
        "m,n,k,median_s,spread_s,repeats,timed,reference_error,slowness,clock_mhz\n"
        "1,4096,4096,1.25e-05,2e-07,20,graph,0.004,1.25,0\n"
    )
    assert Store(tmp_path, MEASURED).has(POINTS[0])


def test_a_row_is_never_added_to_a_table_of_other_columns(tmp_path: Path) -> None:
    Store(tmp_path, MEASURED).add(POINTS[0], SAMPLE, 0.0)
    with pytest.raises(
        InputError, match=r"linear\.csv has the columns m, n, .*: accepted is a folder that this version"
    ):
        Store(tmp_path, MEASURED).add(POINTS[1], replace(SAMPLE, slowness=1.0), 0.0)


def test_a_torn_last_line_is_measured_again(tmp_path: Path) -> None:
    store = Store(tmp_path, MEASURED)
    for point in POINTS[:2]:
        store.add(point, SAMPLE, 0.0)
    path = tmp_path / "linear.csv"
    path.write_text(path.read_text()[:-20])
    again = Store(tmp_path, MEASURED)
    assert [again.has(point) for point in POINTS[:2]] == [True, False]
    again.add(POINTS[1], SAMPLE, 0.0)
    assert read_columns(tmp_path, "linear", ("m",))["m"].tolist() == [1, 8]


def test_a_torn_header_costs_no_point(tmp_path: Path) -> None:
    Store(tmp_path, MEASURED)
    (tmp_path / "linear.csv").write_text("m,n,k,med")
    again = Store(tmp_path, MEASURED)
    again.add(POINTS[0], SAMPLE, 0.0)
    assert read_columns(tmp_path, "linear", ("m",))["m"].tolist() == [1]


def test_failed_points_are_not_tried_again_until_their_list_is_deleted(tmp_path: Path) -> None:
    Store(tmp_path, MEASURED).fail(POINTS[0], 'out of memory, "all" of it')
    assert Store(tmp_path, MEASURED).has(POINTS[0])
    (tmp_path / "failures.csv").unlink()
    assert not Store(tmp_path, MEASURED).has(POINTS[0])


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (replace(MEASURED, gpu=GPUS["h100-sxm"]), "holds points of GPU h200-sxm, and this is h100-sxm"),
        (
            replace(MEASURED, provenance=replace(PROVENANCE, driver="590.2")),
            "points of driver 580.1, and this is 590.2",
        ),
        (replace(MEASURED, served_kernel="torch-cpu"), "of kernel flashinfer-tensor, and this is torch-cpu"),
    ],
)
def test_points_of_another_device_or_driver_are_refused(tmp_path: Path, now: Measured, message: str) -> None:
    Store(tmp_path, MEASURED)
    with pytest.raises(InputError, match=message):
        Store(tmp_path, now)


def test_another_day_is_no_other_device(tmp_path: Path) -> None:
    Store(tmp_path, MEASURED)
    Store(tmp_path, replace(MEASURED, provenance=replace(PROVENANCE, date="2026-01-02")))
    assert read_measured(tmp_path).provenance.date == "2026-01-01"
