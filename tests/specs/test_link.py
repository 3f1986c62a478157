"""Links by name, or by bandwidth and latency."""

import pytest

from l4sim.errors import InputError
from l4sim.specs.link import LINKS, load_link


@pytest.mark.parametrize(
    ("text", "bytes_per_s", "latency_s"),
    [("28GB/s,10us", 28e9, 10e-6), ("1.5 TB/s, 0.5 µs", 1.5e12, 0.5e-6), ("900MB/s,1ms", 900e6, 1e-3)],
)
def test_a_link_is_given_by_its_bandwidth_and_latency(text: str, bytes_per_s: float, latency_s: float) -> None:
    link = load_link(text)
    assert (link.bytes_per_s, link.latency_s) == pytest.approx((bytes_per_s, latency_s))
    assert load_link(str(link)) == link, "and is called as it was given"


@pytest.mark.parametrize("text", ["carrier-pigeon", "28GB/s", "10us,28GB/s", "28Gb/s,10us", "0GB/s,10us", "-1GB/s,1us"])
def test_what_is_no_link_is_answered_with_what_is(text: str) -> None:
    with pytest.raises(
        InputError, match=r"no link '.*': accepted are nvlink, .*, or bandwidth and latency as 28GB/s,10us"
    ):
        load_link(text)


def test_a_named_link_says_what_it_is_and_where_its_figures_come_from() -> None:
    assert str(LINKS["pcie"]) == "pcie (14.4 GB/s, 5.88 us)"
    assert all(link.source != "as given" for link in LINKS.values())
