"""Named links: as they were fitted, and held against all-reduces that they were not fitted to."""

import pytest

from l4sim.calibration.links import FITTED, held_links, refitted_link
from l4sim.specs.link import LINKS


@pytest.mark.parametrize("name", FITTED)
def test_a_named_link_is_what_its_measurement_makes(name: str) -> None:
    again = refitted_link(name)
    assert (again.bytes_per_s, again.latency_s) == pytest.approx(
        (LINKS[name].bytes_per_s, LINKS[name].latency_s), rel=0.01
    )


def test_links_are_held_against_other_numbers_of_gpus_too() -> None:
    errors = {(held.link, held.table.device[:11], held.table.gpus): held.errors.mape_pct for held in held_links()}
    assert errors["nvlink-4", "NVIDIA H100", 2] < 7
    assert errors["nvlink-4", "NVIDIA H200", 4] < 15, "of cards and a number that the link was not fitted to"
    assert errors["pcie-4-p2p", "NVIDIA L40S", 4] > 50, "four cards sit behind two processors"
    assert [held.table.gpus for held in held_links() if held.fitted] == [2] * len(FITTED)
