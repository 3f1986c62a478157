from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from l4sim.workload.load import load_trace
from l4sim.workload.statistics import TraceStatistics, describe, reused_tokens
from l4sim.workload.trace import PrefixBlocks, Trace
from tests.workload.trace_strategies import alike, traces


def requests(arrival_s: list[float], prompt_tokens: list[int], prefix: PrefixBlocks | None = None) -> Trace:
    rows = len(arrival_s)
    return Trace(
        name="t",
        request_id=tuple(map(str, range(rows))),
        arrival_s=np.array(arrival_s),
        prompt_tokens=np.array(prompt_tokens),
        output_tokens=np.full(rows, 10),
        session=np.full(rows, -1),
        after=np.full(rows, -1),
        delay_s=np.full(rows, np.nan),
        prefix=prefix,
    )


def test_rate_and_spread_of_arrivals() -> None:
    statistics = describe(requests([0, 1, 4], [1, 1, 1]))
    assert statistics.duration_s == 4
    assert statistics.rate_per_s == 0.5
    # Gaps 1 and 3: mean 2, standard deviation 1.
    assert statistics.cv_interarrival == 0.5


def test_lengths() -> None:
    lengths = describe(requests([0.0] * 101, list(range(100, 201)))).prompt_tokens
    assert lengths.percentiles == {"p1": 101, "p10": 110, "p50": 150, "p90": 190, "p95": 195, "p99": 199, "max": 200}
    assert lengths.mean == 150
    assert describe(requests([0, 1], [1, 8])).prompt_tokens.lognormal_mu == pytest.approx(1.5 * np.log(2))


def test_shares_of_long_requests_count_prompt_and_output() -> None:
    # 32,758 + 10 tokens are 32K, not beyond.
    statistics = describe(requests([0, 1, 2, 3], [32_758, 32_759, 99_990, 199_990]))
    total = 32_768 + 32_769 + 100_000 + 200_000
    assert statistics.long_request_share == {"32K": 0.75, "64K": 0.5, "128K": 0.25}
    assert statistics.long_token_share == {
        "32K": pytest.approx(332_769 / total),
        "64K": pytest.approx(300_000 / total),
        "128K": pytest.approx(200_000 / total),
    }


def test_fano_factors_count_empty_windows_and_leave_the_last_incomplete_one_out() -> None:
    # Ten windows of 1 s: four arrivals in the first, one in the sixth, then the arrival that ends them.
    statistics = describe(requests([0, 0.1, 0.2, 0.3, 5, 10], [1] * 6))
    mean, square_mean = 5 / 10, (4**2 + 1**2) / 10
    assert statistics.fano == {"1s": pytest.approx((square_mean - mean**2) / mean), "10s": None, "60s": None}
    # A trace may span more windows than fit in memory.
    assert describe(requests([0, 1e15], [1, 1])).fano["1s"] == pytest.approx(1)


def test_what_a_trace_does_not_determine_is_none() -> None:
    statistics = describe(requests([0, 0], [5, 5]))
    assert statistics.rate_per_s is None
    assert statistics.cv_interarrival is None
    assert statistics.fano == {"1s": None, "10s": None, "60s": None}
    assert statistics.spearman_prompt_output is None
    assert statistics.prefix_reuse is None


def test_reuse_counts_leading_blocks_seen_before_and_no_more_tokens_than_the_prompt_has() -> None:
    ids = [[1, 2, 3], [1, 2, 9], [7, 2], [1, 2, 3]]
    prefix = PrefixBlocks(np.concatenate(ids), np.array([0, 3, 6, 8, 11]), 16)
    # Row 1 finds two blocks, row 2 none (its second follows another first), row 3 all its 40 tokens.
    assert reused_tokens(np.array([48, 48, 32, 40]), prefix).tolist() == [0, 32, 0, 40]


@pytest.mark.slow
@settings(deadline=None)  # a busy machine is no failure
@given(traces())
def test_reuse_agrees_with_walking_the_blocks_one_by_one(trace: Trace) -> None:
    if trace.prefix is None:
        return
    rows = [part.tolist() for part in np.split(trace.prefix.ids, trace.prefix.offsets[1:-1])]
    prompts = trace.prompt_tokens.tolist()
    found = []
    for row, (ids, prompt) in enumerate(zip(rows, prompts, strict=True)):
        blocks = [alike(ids, earlier) for earlier in rows[:row]]
        tokens = [count * trace.prefix.block_tokens for count in blocks]
        found.append(max((min(*each, prompt) for each in zip(tokens, prompts, strict=False)), default=0))
    assert reused_tokens(trace.prompt_tokens, trace.prefix).tolist() == found
    assert describe(trace).prefix_reuse == pytest.approx(sum(found) / trace.prompt_tokens.sum())


@pytest.mark.slow
@settings(deadline=None)  # a busy machine is no failure
@given(traces())
def test_statistics_of_any_trace_are_json(trace: Trace) -> None:
    assert json.loads(json.dumps(describe(trace).to_dict(), allow_nan=False))["requests"] == len(trace)


def test_sessions_and_closed_loop_requests_are_counted() -> None:
    trace = replace(
        requests([0, 1, 2], [1, 1, 1]),
        arrival_s=np.array([0.0, 1.0, np.nan]),
        session=np.array([3, 5, 3]),
        after=np.array([-1, -1, 0]),
        delay_s=np.array([np.nan, np.nan, 1.0]),
    )
    statistics = describe(trace)
    assert (statistics.sessions, statistics.closed_loop_requests) == (2, 1)
    assert statistics.duration_s == 1


def test_a_coarse_clock_is_a_trap_with_the_tick_to_dejitter() -> None:
    (trap,) = describe(requests([0, 0, 3, 3, 3, 6], [1] * 6)).traps
    assert trap.startswith("3 of 5 arrivals have the time stamp of the one before")
    assert trap.endswith("--dejitter 3")
    assert describe(requests([0, 1, 2, 3, 3, 4, 5, 6], [1] * 8)).traps == ()


def test_arrivals_all_at_once_are_a_trap() -> None:
    assert describe(requests([0, 0, 0], [1, 1, 1])).traps == (
        "all 3 open-loop requests arrive at once: give a rate with --rate",
    )


def test_full_prompts_that_repeat_a_prefix_are_a_trap() -> None:
    prefix = PrefixBlocks(np.array([1, 2, 1, 2, 1, 2, 1, 2]), np.array([0, 2, 4, 6, 8]), 16)
    assert describe(requests([0, 1, 2, 3], [32] * 4, prefix)).traps == (
        "75.0% of prompt tokens repeat a prefix seen before: "
        "without prefix caching the prefill load is 4 times too much",
    )


# From the descriptions that the data came with, computed independently of this project: duration, rate, CV, Fano
# factors, percentiles and means of prompt and output, shares beyond 32K, 64K, 128K, Spearman, and log-normal fits.
PUBLISHED = {
    "mooncake_synthetic.jsonl.gz": (
        (1022.0, 3.906, 1.01, (1.09, 1.18, 1.19)),
        ((16, 30, 11587, 38611, 48904, 66456, 191378), 15325.5, (7.98, 2.7)),
        ((2, 4, 69, 389, 519, 768, 893), 149.1, (3.92, 1.77)),
        ((48.93, 7.41, 3.01), (16.18, 1.18, 0.25), -0.517),
    ),
    "azure_2023_code.csv.gz": (
        (3435.9, 2.566, 13.15, (13.19, 71.64, 163.96)),
        ((17, 147, 1469, 5187, 7303, 7436, 7437), 2047.8, (7.0, 1.36)),
        ((6, 7, 13, 55, 90, 251, 1899), 27.9, (2.79, 0.85)),
        ((0, 0, 0), (0, 0, 0), -0.021),
    ),
    "azure_2023_conv.csv.gz": (
        (3501.7, 5.53, 1.09, (1.39, 3.86, 16.13)),
        ((29, 207, 1020, 2734, 4083, 4142, 14050), 1154.7, (6.63, 0.99)),
        ((16, 54, 129, 424, 451, 601, 1000), 211.1, (5.02, 0.86)),
        ((0, 0, 0), (0, 0, 0), 0.073),
    ),
    "apex_llama_lmsys_05.jsonl.gz": (
        (2023.5, 0.506, 1.0, (1.01, 0.88, 0.79)),
        ((2, 5, 17, 176, 307, 586, 1037), 61.7, (3.1, 1.33)),
        ((2, 12, 117, 389, 435, 532, 761), 162.1, (4.47, 1.35)),
        ((0, 0, 0), (0, 0, 0), 0.138),
    ),
    "sharegpt_llama31_300.jsonl.gz": (
        (29.1, 10.262, 0.94, (0.79, None, None)),
        ((264, 363, 731, 1460, 1748, 2765, 3998), 857.5, (6.6, 0.55)),
        ((515, 530, 632, 770, 773, 784, 1021), 652.5, (6.47, 0.15)),
        ((0, 0, 0), (0, 0, 0), 0.189),
    ),
    "servegen_deepseek_r1_peak20min_sampled.csv.gz": (
        (1200.0, 41.767, 1.2, (2.19, 3.34, 6.41)),
        ((10, 27, 329, 920, 1822, 10435, 54997), 658.3, (5.48, 1.37)),
        ((149, 279, 542, 1492, 1640, 4355, 24855), 812.5, (6.4, 0.68)),
        ((1.01, 0, 0), (0.04, 0, 0), -0.311),
    ),
    "weka_agentic_mooncake512_dev.jsonl.gz": (
        (13108.8, 0.636, 1.55, (1.14, 2.5, 11.53)),
        ((18318, 44256, 107442, 237716, 280045, 386900, 878882), 122704.2, (11.53, 0.63)),
        ((59, 104, 212, 976, 1668, 4262, 18195), 466.8, (5.57, 0.94)),
        ((98.98, 92.33, 55.86), (94.88, 78.65, 33.37), 0.07),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("file", PUBLISHED)
def test_published_descriptions_are_reproduced(file: str, shared_traces: Path) -> None:
    statistics = describe(load_trace(shared_traces / file))
    (duration_s, rate_per_s, cv, fano), prompt, output, (token_share, request_share, spearman) = PUBLISHED[file]
    assert statistics.duration_s == pytest.approx(duration_s, abs=0.06)
    assert statistics.rate_per_s == pytest.approx(rate_per_s, abs=6e-4)
    assert statistics.cv_interarrival == pytest.approx(cv, abs=6e-3)
    for measured, published in zip(statistics.fano.values(), fano, strict=True):
        # Whether the last, incomplete window counts is not said; it changes the second decimal at most.
        assert measured == (None if published is None else pytest.approx(published, rel=0.01, abs=6e-3))
    for lengths, (percentiles, mean, lognormal) in (
        (statistics.prompt_tokens, prompt),
        (statistics.output_tokens, output),
    ):
        # The descriptions cut percentiles to whole tokens.
        assert [int(value) for value in lengths.percentiles.values()] == list(percentiles)
        assert lengths.mean == pytest.approx(mean, abs=0.06)
        assert (lengths.lognormal_mu, lengths.lognormal_sigma) == pytest.approx(lognormal, abs=6e-3)
    assert _percent(statistics.long_token_share) == pytest.approx(token_share, abs=6e-3)
    assert _percent(statistics.long_request_share) == pytest.approx(request_share, abs=6e-3)
    assert statistics.spearman_prompt_output == pytest.approx(spearman, abs=6e-4)


def _percent(shares: object) -> list[float]:
    assert isinstance(shares, dict)
    return [100 * share for share in shares.values()]


@pytest.mark.slow
def test_the_agentic_trace_is_named_a_trap(shared_traces: Path) -> None:
    statistics: TraceStatistics = describe(load_trace(shared_traces / "weka_agentic_mooncake512_dev.jsonl.gz"))
    # Published as 0.9573, counted in blocks instead of tokens, and without what turns share inside blocks.
    assert statistics.prefix_reuse == pytest.approx(0.9637, abs=1e-4)
    assert any("without prefix caching the prefill load is 27.5 times too much" in trap for trap in statistics.traps)
