"""SLOs: what they say, and when a run meets them."""

from __future__ import annotations

import pytest

from l4sim.errors import InputError
from l4sim.results.metrics import summarise
from l4sim.results.slo import Limit, parse_slo


@pytest.fixture
def judged(make_tiny):
    """What an SLO says of requests with the given TTFTs in seconds, and TPOTs of 10 ms."""

    def judge(text, ttfts_s, **request):
        rows = [{"request_id": str(i), "ttft_s": t, "tpot_s": 0.01} | request for i, t in enumerate(ttfts_s)]
        run = make_tiny(requests=rows)
        return parse_slo(text).judge(run, summarise(run))

    return judge


def test_limits_on_percentiles():
    slo = parse_slo("ttft_p99=2s, tpot_mean=50ms,normalized_latency_max=1e-1 s")
    assert slo.limits == (
        Limit("ttft_s", "p99", 2.0),
        Limit("tpot_s", "mean", 0.05),
        Limit("normalized_latency_s", "max", 0.1),
    )


def test_limits_on_requests_for_ninety_percent_of_them_unless_said():
    assert parse_slo("ttft=500us").attainment == 0.9
    slo = parse_slo("ttft=2s,tpot=50ms,attainment=99.5%")
    assert (slo.ttft_s, slo.tpot_s, slo.attainment) == (2.0, 0.05, 0.995)
    assert parse_slo("ttft=2s,attainment=0.8").attainment == 0.8


def test_a_percentile_at_its_limit_meets_it(judged):
    assert judged("ttft_max=2s", [1.0, 2.0])["meets_slo"]
    assert not judged("ttft_max=1.99s", [1.0, 2.0])["meets_slo"]


def test_percentiles_of_the_finished_do_not_excuse_a_failed_request(judged):
    assert not judged("ttft_max=2s", [1.0], status="failed")["meets_slo"]


def test_attainment_and_goodput_and_the_same_at_multiples_of_the_limits(judged):
    figures = judged("ttft=1s,attainment=50%", [0.2, 0.9, 1.4, 5.0])
    assert figures["meets_slo"]
    assert figures["slo_attainment"] == 0.5
    assert figures["goodput_requests_per_s"] == pytest.approx(2 / 2.0)  # every request's E2E is 2 s
    assert [figures[f"slo_attainment_at_{scale}"] for scale in ("0.25", "1", "1.5", "4")] == [0.25, 0.5, 0.75, 0.75]
    assert not judged("ttft=1s,attainment=51%", [0.2, 0.9, 1.4, 5.0])["meets_slo"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no NAME=LIMIT"),
        ("ttft", "'ttft' is no NAME=LIMIT"),
        ("ttft=1s,ttft=2s", "'ttft=2s' is given twice"),
        ("ttft_p98=1s", "no figure 'ttft_p98'"),
        ("speed_p99=1s", "no figure 'speed_p99'"),
        ("ttft=1", "'1' is no positive time"),
        ("ttft=1..2s", "'1..2s' is no positive time"),
        ("ttft=0s", "'0s' is no positive time"),
        ("attainment=90%", "attainment is a share of requests within"),
        ("ttft=1s,attainment=110%", "attainment '110%' must be above 0"),
    ],
)
def test_what_is_no_slo_is_refused_with_what_is(text, complaint):
    with pytest.raises(InputError, match=complaint):
        parse_slo(text)


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("ttft=3s,tpot=50ms", "TTFT ≤ 3 s and TPOT ≤ 50 ms for 90 % of requests"),
        ("tpot=50ms,attainment=99.5%,ttft_p99=2min", "P99 TTFT ≤ 120 s, TPOT ≤ 50 ms for 99.5 % of requests"),
        ("normalized_latency_mean=30ms,max_itl_max=1s", "mean normalized latency ≤ 30 ms, max longest ITL ≤ 1 s"),
    ],
)
def test_an_slo_in_words(text, description):
    assert parse_slo(text).description == description
