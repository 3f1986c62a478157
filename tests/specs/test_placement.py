"""Clusters and links: which instances share a node, and how long a transfer takes."""

from dataclasses import replace

import pytest

from l4sim.errors import InputError
from l4sim.specs.link import LINKS, load_link
from l4sim.specs.placement import Placement


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
