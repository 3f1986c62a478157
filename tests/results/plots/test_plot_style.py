"""Colours and labels that all pictures share."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from l4sim.policies.registry import POLICIES
from l4sim.results.plots.style import KNOWN, PALETTE, colours, labels, legend, log_scale


def test_a_known_policy_keeps_its_colour_whatever_it_is_compared_with():
    assert colours(["l4", "mine"])["l4"] == colours(["mine", "round-robin", "l4"])["l4"] == KNOWN["l4"]


def test_other_policies_take_what_is_left_in_order():
    chosen = colours(["first", "l4", "second"])
    assert len(set(chosen.values())) == 3
    left = [colour for colour in PALETTE if colour != KNOWN["l4"]]
    assert (chosen["first"], chosen["second"]) == (left[0], left[1])


def test_l4s_colour_is_the_last_that_another_policy_takes():
    chosen = colours([f"policy {number}" for number in range(len(PALETTE))])
    assert list(chosen.values()).index(KNOWN["l4"]) == len(PALETTE) - 1


def test_more_policies_than_colours_start_over():
    names = [f"policy {number}" for number in range(len(PALETTE) + 1)]
    chosen = colours(names)
    assert chosen[names[0]] == chosen[names[-1]]


def test_a_label_tells_of_unfinished_requests(make_tiny, no_latencies):
    whole = make_tiny("a", requests=[{}])
    partly = make_tiny("b", requests=[{}, {"status": "rejected"} | no_latencies])
    assert labels([whole, partly]) == {"a": "a", "b": "b (1 unfinished)"}


def test_log_axes_have_plain_numbers_and_two_and_five_only_where_decades_are_few():
    ax = Figure().subplots()
    ax.set(xlim=(50, 200_000), ylim=(1, 30))
    log_scale(ax, "x")
    log_scale(ax, "y")
    assert ax.xaxis.get_major_formatter()(100_000, 0) == "100,000"
    assert set(ax.get_xticks()) >= {100, 1_000, 10_000, 100_000}
    assert 200 not in ax.get_xticks()
    assert set(ax.get_yticks()) >= {1, 2, 5, 10, 20}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.2, 9, [0.2, 0.5, 1, 2, 5]),
        (0.03, 20, [0.1, 1, 10]),
        (12, 40, [20, 30, 40]),
        (50, 200_000, [100, 1_000, 10_000, 100_000]),
    ],
)
def test_a_log_axis_has_three_numbers_or_more_however_little_it_spans(low, high, expected):
    ax = Figure().subplots()
    ax.set(xlim=(low, high))
    log_scale(ax, "x")
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == pytest.approx(expected)


def test_a_log_axis_of_many_decades_leaves_some_out():
    ax = Figure().subplots()
    ax.set(xlim=(1, 1e9))
    log_scale(ax, "x")
    assert len([tick for tick in ax.get_xticks() if 1 <= tick <= 1e9]) <= 10


def test_a_legend_is_read_row_by_row():
    figure = Figure()
    handles = [Line2D([], [], label=name) for name in "abcd"]
    legend(figure, handles)
    # matplotlib fills column by column: of four entries in three columns, the first column has two.
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "d", "b", "c"]


def test_colours_are_known_of_policies_that_exist():
    assert set(KNOWN) <= set(POLICIES)
    assert len(set(KNOWN.values())) == len(KNOWN)
