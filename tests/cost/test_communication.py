"""All-reduces: measured tables by number of GPUs, regime and engine version, else a link's latency and bandwidth."""

import pytest

from l4sim.cost.communication import AllReduce, AllReduceTable, Regime, all_reduce_among, over_link
from l4sim.cost.curve import OverBytes
from l4sim.cost.profile import load_profile
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS
from l4sim.specs.link import LINKS, Link, load_link

H100, CARD = GPUS["h100-sxm"], GPUS["rtx-4090"]
MIB = float(1 << 20)


def table(engine: str, seconds: float, *, gpus: int = 2, regime: Regime = "captured") -> AllReduceTable:
    curve = OverBytes((1.0, MIB), (seconds, seconds))
    return AllReduceTable(gpus, regime, engine, "NVIDIA H100", True, curve, {})


def among_two(*tables: AllReduceTable, engine: str = "", link: Link | None = None) -> AllReduce:
    return all_reduce_among(2, H100, tables, engine=engine, link=link)


TABLES = (table("vLLM 0.19.0", 19e-6), table("vLLM 0.24.0", 24e-6), table("vLLM 0.24.0", 48e-6, regime="eager"))


@pytest.mark.parametrize(
    ("engine", "seconds", "source"),
    [
        ("", 24e-6, "vLLM 0.24.0"),
        ("vllm-0.32", 24e-6, "vLLM 0.24.0"),
        ("vllm-0.19", 19e-6, "vLLM 0.19.0"),
        ("vllm-0.15", 19e-6, "vLLM 0.19.0"),
        ("mine0.1:rules", 24e-6, "vLLM 0.24.0"),
    ],
)
def test_tables_are_of_the_version_nearest_to_the_engines(engine: str, seconds: float, source: str) -> None:
    found = among_two(*TABLES, engine=engine)
    assert (found.captured.at(100.0), found.measured, found.source) == (seconds, True, source)


def test_each_regime_has_its_own_table_and_one_alone_serves_both() -> None:
    both, alone = among_two(*TABLES, engine="vllm-0.24"), among_two(*TABLES, engine="vllm-0.19")
    assert (both.captured.at(100.0), both.eager.at(100.0)) == (24e-6, 48e-6)
    assert alone.eager == alone.captured


def test_a_version_that_lacks_the_number_of_gpus_leaves_it_to_the_next() -> None:
    four = table("vLLM 0.24.0", 4e-6, gpus=4)
    found = all_reduce_among(4, H100, (*TABLES, four), engine="vllm-0.19")
    assert found.source == "vLLM 0.24.0"


def test_another_gpus_table_is_an_estimate() -> None:
    found = load_profile("l40-48gb").all_reduce
    taken = all_reduce_among(2, GPUS["l40-48gb"], found)
    assert not taken.measured
    assert taken.source == "as NVIDIA L40S in vLLM 0.14.0"


def test_a_given_link_decides_unless_it_is_the_gpus_own() -> None:
    given = among_two(*TABLES, link=load_link("28GB/s,10us"))
    assert (given.measured, given.source) == (False, "from link 28GB/s,10us")
    assert given.captured.at(28e3) == pytest.approx(2 * 10e-6 + 1e-6)
    assert among_two(*TABLES, link=LINKS["nvlink"]).measured, "a table of an H100 is one of NVLink"


def test_without_a_table_a_gpu_reaches_what_others_do_over_such_a_link() -> None:
    """Two RTX 4090 without peer access as two RTX PRO 6000 without; an H800 what half an H100's NVLink would do."""
    card = all_reduce_among(2, CARD, ())
    assert card.source == f"from link {LINKS['pcie']}"
    assert 2**30 / float(card.captured.at(2**30)) == pytest.approx(14.4e9, rel=0.01)
    nvlink = all_reduce_among(8, GPUS["h800"], ())
    assert not nvlink.measured
    assert 2**30 / float(nvlink.captured.at(2**30)) == pytest.approx(263e9 * 200 / 450 / 1.75, rel=0.01)


def test_a_ring_waits_longer_the_more_gpus_there_are_but_nvlink_reaches_all_at_once() -> None:
    slow, fast = Link("slow", 10e9, 1e-6), Link("fast", 300e9, 1e-6)
    assert [float(over_link(gpus, slow).captured.at(0.0)) for gpus in (2, 4, 8)] == pytest.approx([2e-6, 6e-6, 14e-6])
    assert [float(over_link(gpus, fast).captured.at(0.0)) for gpus in (2, 4, 8)] == pytest.approx([2e-6] * 3)


def test_every_gpu_sends_all_but_its_own_part_twice() -> None:
    """Among 4 GPUs 3/2 of the message passes each link, among 2 GPUs once."""
    link = Link("ideal", 100e9, 0.0)
    assert float(over_link(2, link).captured.at(2**30)) == pytest.approx(2**30 / 100e9)
    assert float(over_link(4, link).captured.at(2**30)) == pytest.approx(1.5 * 2**30 / 100e9)


def test_vllm_0_19_between_two_cards_on_pcie_reaches_15_gb_s_and_0_24_with_peer_access_39() -> None:
    cards = load_profile("rtx-pro-6000")
    rates = [
        2**26 / float(all_reduce_among(2, cards.gpu, cards.all_reduce, engine=engine).captured.at(2**26)) / 1e9
        for engine in ("vllm-0.19", "vllm-0.32")
    ]
    assert rates == pytest.approx([15, 37], rel=0.05)


def test_one_gpu_has_nobody_to_add_up_with() -> None:
    with pytest.raises(InputError, match="no all-reduce among 1 GPUs: accepted are 2 or more"):
        all_reduce_among(1, H100, TABLES)
