"""What is assumed of a GPU that was not measured."""

from l4sim.calibration.datasheet import roofline_profile
from l4sim.specs.gpu import GPUS


def test_a_gpu_takes_the_measured_all_reduces_of_its_kind_and_else_none() -> None:
    """An A100's own, an L40 those of an L40S, which has the same link; nobody measured an RTX 4090's."""
    tables = {name: roofline_profile(GPUS[name])["all_reduce"]["tables"] for name in ("a100-80gb-sxm", "l40-48gb")}
    assert {table["measured"] for table in tables["a100-80gb-sxm"]} == {True}
    assert {(table["measured"], table["device"]) for table in tables["l40-48gb"]} == {(False, "NVIDIA L40S")}
    assert roofline_profile(GPUS["rtx-4090"])["all_reduce"] == {
        "tables": [],
        "source": "none: from the link, not measured",
    }
