"""Clusters and links: which instances share a node, and how long a transfer takes."""

from dataclasses import replace

import pytest

from l4sim.errors import InputError
from l4sim.specs.link import LINKS, Link, load_link
from l4sim.specs.placement import Placement, Slot, place


def test_eight_single_gpu_instances_share_a_node() -> None:
    cluster = Placement(instances=16)
    assert cluster.link(0, 7) is cluster.intra
    assert cluster.link(7, 8) is cluster.inter
    assert cluster.link(8, 15) is cluster.intra


def test_tensor_parallel_instances_take_their_gpus_in_order() -> None:
    cluster = Placement(instances=4, tensor_parallel=4)
    assert [cluster.node(instance) for instance in range(4)] == [0, 0, 1, 1]


def test_a_transfer_takes_latency_and_bytes_over_bandwidth() -> None:
    # 16,384 tokens of Llama-3.1-8B are 2 GiB: 42.9 ms at 50 GB/s, and 20 us.
    assert load_link("network-400g").transfer_s(16384 * 131072) == pytest.approx(0.04297, abs=1e-5)


def test_links_from_slow_to_fast() -> None:
    assert LINKS["pcie"].bytes_per_s < LINKS["network-400g"].bytes_per_s < LINKS["nvlink"].bytes_per_s


def test_an_instance_may_not_span_nodes() -> None:
    with pytest.raises(InputError, match="tensor_parallel 3 does not divide gpus_per_node 8"):
        Placement(instances=2, tensor_parallel=3)


@pytest.mark.parametrize("field", ["instances", "tensor_parallel", "gpus_per_node"])
def test_counts_below_one_are_refused_by_name(field: str) -> None:
    with pytest.raises(InputError, match=f"{field} is 0"):
        replace(Placement(instances=1), **{field: 0})  # type: ignore[arg-type]


def test_an_instance_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no instance 2, accepted are 0 to 1"):
        Placement(instances=2).link(0, 2)


def test_an_unknown_link_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no link 'carrier-pigeon'.*nvlink"):
        load_link("carrier-pigeon")


NVLINK, NETWORK = LINKS["nvlink"], LINKS["network-400g"]


@pytest.mark.parametrize(("instances", "tensor_parallel"), [(16, 1), (20, 2), (5, 4), (3, 8)])
def test_a_fleet_of_equal_instances_is_placed_as_equal_instances_are(instances: int, tensor_parallel: int) -> None:
    equal = Placement(instances, tensor_parallel)
    placed = place([Slot("h200-sxm", tensor_parallel, NVLINK)] * instances, 8, NETWORK)
    assert list(placed.nodes) == [equal.node(instance) for instance in range(instances)]
    for other in range(instances):
        assert placed.link(1, other) is equal.link(1, other)
        assert placed.lanes(1, other) == tensor_parallel


def test_instances_of_one_kind_of_gpu_fill_one_anothers_nodes() -> None:
    one, four = Slot("h200-sxm", 1, NVLINK), Slot("h200-sxm", 4, NVLINK)
    placed = place([one, four, four, one, one], 8, NETWORK)
    assert placed.nodes == (0, 0, 1, 0, 0)
    assert placed.link(0, 1) is NVLINK
    assert placed.link(1, 2) is NETWORK
    assert (placed.lanes(0, 1), placed.lanes(1, 2)) == (1, 4)


def test_a_node_has_one_kind_of_gpu_and_the_link_of_that_kind() -> None:
    slow = Link("slow", 1e9, 1e-5)
    h200, l40 = Slot("h200-sxm", 1, NVLINK), Slot("l40-48gb", 1, slow)
    # The last joins later: its node has room.
    placed = place([h200, h200, l40, l40, h200], 8, NETWORK)
    assert placed.nodes == (0, 0, 1, 1, 0)
    assert (placed.link(0, 1), placed.link(1, 2), placed.link(2, 3)) == (NVLINK, NETWORK, slow)


def test_of_two_links_within_a_node_the_slower_counts() -> None:
    fast, slow = Slot("h200-sxm", 1, NVLINK), Slot("h200-sxm", 1, LINKS["pcie"])
    assert place([fast, slow], 8, NETWORK).link(0, 1) is LINKS["pcie"]


def test_an_instance_of_a_fleet_may_not_span_nodes_and_must_be_there() -> None:
    with pytest.raises(InputError, match="tensor_parallel 3 does not divide gpus_per_node 8"):
        place([Slot("h200-sxm", 3, NVLINK)], 8, NETWORK)
    with pytest.raises(InputError, match="no instance 1, accepted are 0 to 0"):
        place([Slot("h200-sxm", 1, NVLINK)], 8, NETWORK).link(0, 1)
