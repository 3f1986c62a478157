"""A comparison in words: verdict, certainty, who loses."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from l4sim.results.changes import HEADLINE, METRICS, Change, Comparison, PolicyChange, change_of, compare_runs
from l4sim.results.changes_text import cautions, changes_table, in_words, short, verdict, who_loses
from l4sim.results.metrics import summarise

TOO_SHORT = " Too short to tell: 1 request."


@pytest.fixture
def run(make_tiny):
    """A policy's run of one request, with the given normalized and E2E latency."""

    def build(policy: str, normalized_s: float, e2e_s: float = 2.0, **request: object):
        return make_tiny(policy, requests=[{"normalized_latency_s": normalized_s, "e2e_s": e2e_s} | request])

    return build


def told(runs) -> str:
    return verdict(compare_runs(runs))


def change(percent: float, half: float) -> Change:
    """A change whose interval is so many percent to either side."""
    middle = math.log1p(percent / 100)
    return change_of(middle, math.asinh(half / 100 / math.exp(middle)) / 1.96, 100_000, higher_is_better=False)


def judged(headline: Change, losers: tuple[PolicyChange, ...] = ()) -> Comparison:
    """l4 held against least-harm, all figures changed alike."""
    changes = tuple(
        PolicyChange("l4", "least-harm", metric.name, metric.statistic, "all", 900, headline) for metric in METRICS
    )
    return Comparison("l4", "least-harm", True, True, 900, 30, 30, changes, losers)


@pytest.mark.slow
def test_neither_an_oracle_nor_an_ablation_is_a_rival(run):
    text = told([run("oracle-length", 0.010), run("l4:within", 0.012), run("vllm", 0.060), run("l4", 0.030)])
    assert text.startswith("l4 lowers mean normalized latency by 50 % against the best other policy (vllm)")


def test_l4_pays_against_the_best_other_policy_not_the_first(run):
    text = told([run("round-robin", 0.080), run("llumnix", 0.050, 2.0), run("l4", 0.044, 2.06)])
    expected = "l4 lowers mean normalized latency by 12 % against the best other policy (llumnix), P99 E2E +3.0 %."
    assert text == expected + TOO_SHORT


@pytest.mark.slow
@pytest.mark.parametrize("no_rival", ["oracle-length", "l4:plan", "l4:replan"])
def test_neither_an_oracle_nor_l4_s_own_kind_is_a_rival(run, no_rival):
    text = told([run("llumnix", 0.050), run(no_rival, 0.001), run("l4", 0.040)])
    assert text.startswith("l4 lowers mean normalized latency by 20 % against the best other policy (llumnix)")


def test_with_an_oracle_alone_beside_it_l4_has_no_rival(run):
    assert "against the best other policy" not in told([run("oracle-length", 0.050), run("l4", 0.040)])


def test_l4_does_not_pay_where_it_is_slower(run):
    text = told([run("l4", 0.060), run("llumnix", 0.050)])
    assert text.startswith("l4 does not pay here: it raises mean normalized latency by 20 %")


def test_l4_does_not_pay_where_the_difference_is_noise(run):
    text = told([run("llumnix", 0.1000), run("l4", 0.0997)])
    assert text.startswith("l4 does not pay here: mean normalized latency is within 2.0%")


@pytest.mark.slow
def test_without_l4_the_best_policy_is_held_against_the_first(run):
    text = told([run("round-robin", 0.08), run("bucket", 0.06), run("llumnix", 0.04, 1.0)])
    expected = "llumnix lowers mean normalized latency the most: by 50 % against round-robin, P99 E2E -50 %."
    assert text == expected + TOO_SHORT
    assert told([run("round-robin", 0.04), run("bucket", 0.06)]).startswith("No policy lowers")


def test_the_verdict_warns_of_different_finished_requests(run, make_tiny, no_latencies):
    rejected = {"request_id": "b", "status": "rejected", "reason": "longer than 8,192 tokens"}
    short_of_one = make_tiny("l4", requests=[{}, rejected | no_latencies])
    whole = make_tiny("llumnix", requests=[{"normalized_latency_s": 2.0}, {"request_id": "b"}])
    assert told([whole, short_of_one]).endswith("But the policies finished different requests.")


def test_a_policy_that_finished_nothing_is_not_compared(run, make_tiny, no_latencies):
    nothing = make_tiny("l4", requests=[{"status": "failed", "reason": "crash"} | no_latencies])
    assert told([run("llumnix", 1.0), nothing]).startswith("Nothing to compare")


def test_a_sure_gain_is_told_with_its_interval():
    text = verdict(judged(change(-5.8, 5.2)))
    assert "lowers mean normalized latency by 5.8 ± 5.2 % against the best other policy (least-harm)" in text


@pytest.mark.parametrize("unsure", [change(-5.8, 7.0), change(+1.0, 4.0)])
def test_a_gain_that_may_be_none_is_not_claimed(unsure):
    assert verdict(judged(unsure)).startswith("Cannot tell whether l4 pays here: mean normalized latency ")


def test_a_change_that_is_surely_small_is_no_open_question():
    assert "is within 2.0%" in verdict(judged(change(0.1, 0.5)))


def test_changes_in_words():
    assert in_words(change(-5.8, 5.2)) == "-5.8 ± 5.2 %"
    assert in_words(change(20, 12)) == "+20 ± 12 %"
    assert in_words(change(80, 92)) == "+80 % (+10 to +194 %)"
    assert in_words(Change(-0.058, math.nan, math.nan, "cannot tell", "too short to tell: 93 requests")) == "-5.8 %"


def test_changes_in_a_cell_say_where_it_cannot_be_told():
    assert short(change(-5.8, 5.2)) == "-5.8±5.2"
    assert short(change(-5.8, 7.2)) == "-5.8±7.2?"
    assert short(Change(-0.11, math.nan, math.nan, "cannot tell", "too short")) == "-11?"
    assert short(Change(math.nan, math.nan, math.nan, "cannot tell", "nothing")) == "–"


def test_who_loses_is_named_with_the_rival_under_which_it_would_not():
    lost = PolicyChange("l4", "vllm", HEADLINE.name, "mean", "32K to 64K", 213, change(9.2, 4.1))
    assert who_loses(judged(change(-20, 5), (lost,))) == [
        "Who loses: 213 requests of 32K to 64K tokens, mean normalized latency under l4 +9.2 ± 4.1 % against vllm."
    ]


def test_a_loss_that_may_be_none_says_so():
    lost = PolicyChange("l4", "vllm", HEADLINE.name, "mean", "above 64K", 25, change(9.2, 14))
    assert who_loses(judged(change(-20, 5), (lost,)))[0].endswith("+9 ± 14 % against vllm (cannot tell).")


def test_that_nobody_loses_is_told_too():
    assert who_loses(judged(change(-20, 5))) == [
        "No length class is more than 5 % slower under l4 than under another policy."
    ]


def test_p99s_of_few_requests_and_short_runs_are_cautioned(make_tiny):
    requests = [{"request_id": str(number), "arrival_s": float(number), "e2e_s": 2.0} for number in range(4)]
    few, brief = cautions([summarise(make_tiny("l4", requests=requests))])
    assert few == "P99s rest on the slowest 1 of 4 requests: other runs would move them."
    assert brief.startswith("The run takes less than 3 times its P99 E2E under l4")


def test_the_table_of_changes_fits_eighty_columns(make_run):
    names = ("round-robin", "llumnix", "sglang-cache-aware", "least-harm", "l4")
    comparison = compare_runs([make_run(name, slowness=1 + 0.1 * len(name)) for name in names])
    console = Console(file=io.StringIO(), width=80)
    console.print(changes_table(comparison))
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "paired by request" in " ".join(text.split())
