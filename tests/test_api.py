"""The Python API as a notebook meets it."""

from __future__ import annotations

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest

import l4sim
import l4sim.experiment
from l4sim.errors import InputError
from l4sim.specs.option import described

NAMES = {"Cluster", "compare", "load_profile", "load_trace", "plan", "record", "replay", "sweep", "synthesize"}


@pytest.fixture(scope="module")
def trace():
    return l4sim.synthesize("chat", rate_per_s=4, requests=40, seed=1, max_model_len=32_768)


@pytest.fixture(scope="module")
def cluster():
    return l4sim.Cluster(instances=3)


@pytest.fixture(scope="module")
def result(trace, cluster):
    return l4sim.compare(trace, ["round-robin", "l4"], cluster)


@pytest.fixture
def pyplot():
    with mpl.rc_context({"backend": "Agg"}):
        from matplotlib import pyplot

        yield pyplot
        pyplot.close("all")


@pytest.mark.slow
def test_nine_names_and_nothing_heavy_is_imported_before_one_is_used():
    script = (
        "import sys, l4sim\n"
        "print(sorted({'numpy', 'pandas', 'scipy', 'matplotlib', 'pyarrow', 'simpy', 'yaml'} & set(sys.modules)))\n"
        "print(sorted(l4sim.__all__))\n"
        "print(callable(l4sim.replay), callable(l4sim.sweep))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["[]", str(sorted(NAMES)), "True True"]


def test_no_module_hides_a_name_of_the_api():
    assert all(callable(getattr(l4sim, name)) for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'simulate'"):
        _ = l4sim.simulate


@pytest.mark.slow
def test_the_table_agrees_with_the_requests(result):
    finished = result.requests[result.requests["status"] == "finished"].groupby("policy")
    assert list(result.table.index) == ["round-robin", "l4"]
    for policy, requests in finished:
        row = result.table.loc[policy]
        assert row["requests_finished"] == len(requests) == 40
        assert row["ttft_mean_s"] == pytest.approx(requests["ttft_s"].mean())
        assert row["tpot_p99_s"] == pytest.approx(np.nanpercentile(requests["tpot_s"], 99))


@pytest.mark.slow
def test_frames_hold_all_policies(result):
    assert set(result.iterations["policy"]) == {"round-robin", "l4"}
    assert set(result.migrations["policy"]) <= {"l4"}


def test_replay_is_a_comparison_of_one(trace, cluster, result):
    alone = l4sim.replay(trace, "round-robin", cluster)
    assert alone.table.loc["round-robin"].equals(result.table.loc["round-robin"])


def test_a_result_reads_as_a_table(result):
    assert repr(result).startswith("40 requests of chat on 3 instances of llama-3.1-8b, h200-sxm")
    html = result._repr_html_()
    assert "<table" in html
    assert "ttft_p99_s" in html
    assert result.verdict in html


@pytest.mark.slow
@pytest.mark.parametrize("picture", ["cdf", "by_length", "instances", "queue", "heterogeneity", "plan"])
def test_pictures_are_axes_that_pyplot_shows(result, pyplot, picture):
    axes = getattr(result.plot, picture)()
    assert axes
    assert all(isinstance(one, mpl.axes.Axes) for one in axes)
    assert axes[0].figure is pyplot.gcf()


def test_a_picture_of_nothing_is_refused(trace, cluster, pyplot):
    with pytest.raises(InputError, match="nothing to draw: no policy has a plan or migrations"):
        l4sim.replay(trace, "round-robin", cluster).plot.plan()


def test_a_trace_at_another_rate_keeps_its_lengths(trace, tmp_path):
    from l4sim.workload.save import save_trace

    save_trace(trace, tmp_path / "trace.parquet")
    paced = l4sim.load_trace(tmp_path / "trace.parquet", rate_per_s=8, limit=20)
    np.testing.assert_array_equal(paced.prompt_tokens, trace.prompt_tokens[:20])
    assert (len(paced) - 1) / np.ptp(paced.arrival_s) == pytest.approx(8)
    with pytest.raises(InputError, match="a rate and a rate scale exclude one another"):
        l4sim.load_trace(tmp_path / "trace.parquet", rate_per_s=8, rate_scale=2)


def test_a_closed_loop_needs_no_arrivals_and_is_planned_for_by_littles_law(cluster):
    loop = l4sim.synthesize(
        prompt_lengths="uniform:low=80,high=100", output_lengths="fixed:tokens=30", requests=60, concurrency=4
    )
    assert (loop.concurrency, set(loop.arrival_s.tolist())) == (4, {0.0})
    assert (loop.prompt_tokens.min(), loop.prompt_tokens.max()) >= (80, 95)
    run = l4sim.replay(loop, "round-robin", cluster).runs[0].requests
    rate_per_s = len(run) / (run["arrival_s"] + run["e2e_s"]).max()
    planned = l4sim.experiment.planned_loop(loop, l4sim.experiment.resolve(cluster))
    assert planned.requests_per_s == pytest.approx(rate_per_s, rel=0.15)
    assert "4 at a time, each predicted to take" in planned.in_words()
    assert not l4sim.plan(loop, cluster).stages.empty
    with pytest.raises(InputError, match="rate_per_s and concurrency exclude one another"):
        l4sim.synthesize("chat", requests=5, rate_per_s=2, concurrency=3)


def test_synthesis_takes_lengths_by_name_by_distribution_or_from_a_trace(trace):
    fixed = l4sim.synthesize(
        prompt_lengths="fixed:tokens=7", output_lengths="fixed:tokens=3", arrivals="constant", rate_per_s=2, requests=4
    )
    assert fixed.prompt_tokens.tolist() == [7] * 4
    assert np.diff(fixed.arrival_s).tolist() == [0.5] * 3
    drawn = l4sim.synthesize(lengths_from=trace, rate_per_s=1, requests=100)
    assert set(drawn.prompt_tokens.tolist()) <= set(trace.prompt_tokens.tolist())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "give either requests or duration_s"),
        ({"requests": 5}, r"give lengths \(chat, .*\), or both prompt_lengths and output_lengths, or lengths_from"),
        ({"lengths": "chat", "requests": 5}, "poisson arrivals need rate_per_s; they take rate_per_s"),
        ({"lengths": "chat", "requests": 5, "rate_per_s": 1, "cv": 2}, "cv does not apply to poisson arrivals"),
        (
            {"lengths": "chat", "requests": 5, "rate": 1},
            "no parameter 'rate' of a synthetic trace: accepted are rate_per",
        ),
        ({"lengths": "chat", "requests": 5, "arrivals": "tidal"}, "no arrival process 'tidal': accepted are poisson"),
    ],
)
def test_synthesis_refuses_by_its_arguments_own_names(arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        l4sim.synthesize(**arguments)


def test_the_stages_of_a_plan_tile_the_context_and_share_the_instances(trace, cluster):
    made = l4sim.plan(trace, cluster)
    stages = made.stages
    assert stages["lo_tokens"].tolist() == [0, *stages["hi_tokens"].tolist()[:-1]]
    assert sorted(instance for group in stages["instances"] for instance in group) == [0, 1, 2]
    assert made.feasible
    assert made.planning_s > 0
    assert "<table" in made._repr_html_()


def test_an_overloaded_plan_says_so(cluster):
    heavy = l4sim.synthesize("agentic-coding", rate_per_s=100, requests=60, max_model_len=131_072)
    assert repr(l4sim.plan(heavy, cluster)).startswith("infeasible: the fullest stage gets ")


@pytest.mark.slow
def test_a_sweep_over_a_trace_at_hand_agrees_with_replays(trace, cluster, result, tmp_path):
    swept = l4sim.sweep({"policies": ["round-robin", "l4"], "instances": 3}, tmp_path, trace=trace)
    table = swept.points.set_index("policy")
    for policy in ("round-robin", "l4"):
        assert table.loc[policy, "e2e_p99_s"] == pytest.approx(result.table.loc[policy, "e2e_p99_s"])


def test_a_profile_says_what_it_rests_on():
    assert l4sim.load_profile("h200-sxm").basis == "measured"


@pytest.mark.slow
def test_a_cluster_may_be_a_fleet_of_unlike_groups(trace, tmp_path):
    from l4sim.specs.fleet import Fleet, FleetGroup

    groups = (FleetGroup("fast", 1, profile="h200-flashinfer"), FleetGroup("slow", 2, profile="h100-sxm"))
    path = tmp_path / "fleet.yaml"
    path.write_text(
        "groups: [{name: fast, count: 1, profile: h200-flashinfer}, {name: slow, count: 2, profile: h100-sxm}]"
    )
    given, read = (
        l4sim.replay(trace, "round-robin", l4sim.Cluster(fleet=fleet)) for fleet in (Fleet(groups), str(path))
    )
    assert given.requests.equals(read.requests)
    assert repr(given).startswith("40 requests of chat on 3 instances of llama-3.1-8b, 1 on h200-sxm")
    assert given.to_html(tmp_path / "report.html").exists()


def test_help_tells_every_field_of_a_cluster():
    told = " ".join(l4sim.Cluster.__doc__.split())
    for option in described(l4sim.Cluster):
        assert f"{option.name}" in told
        assert option.option.text in told
    assert "kv_blocks (blocks): KV blocks of one instance. [default: what fits the GPU]" in told


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"instances": 0}, "instances must be a whole number of at least 1, not 0"),
        ({"instances": 2.5}, "instances must be a whole number of at least 1, not 2.5"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization must be a number above 0 and of at most 1, not 1.5"),
        ({"message_latency_s": float("nan")}, "message_latency_s must be a number of at least 0, not nan"),
        ({"prefix_caching": 1}, "prefix_caching must be True or False, not 1"),
        ({"model": None}, "model must be a text, not None"),
        ({"block_size": None}, "block_size must be a whole number of at least 1, not None"),
    ],
)
def test_a_cluster_refuses_values_by_the_options_own_names(trace, options, complaint):
    with pytest.raises(InputError, match=f"^{complaint}$"):
        l4sim.replay(trace, "round-robin", l4sim.Cluster(**options))


def test_wrong_names_are_refused(trace):
    with pytest.raises(InputError, match="no policy 'l5'"):
        l4sim.replay(trace, "l5")
    with pytest.raises(InputError, match="no objective 'fun'"):
        l4sim.plan(trace, objective="fun")
