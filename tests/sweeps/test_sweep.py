"""A whole sweep: its files, its frames, its pictures."""

from __future__ import annotations

import json

import matplotlib as mpl
import pandas as pd
import pytest

from l4sim.errors import InputError
from l4sim.sweeps.sweep import run_sweep

SLO = "ttft=1s,tpot=100ms"


@pytest.fixture(scope="module")
def swept(tiny, tmp_path_factory):
    """A sweep over two rates and two seeds, and its folder."""
    out = tmp_path_factory.mktemp("sweep")
    grid = {**tiny, "policies": ["round-robin", "least-harm"], "rate": [2, 8], "seed": [0, 1]}
    return run_sweep(grid, out, slo=SLO, price_usd_per_gpu_hour=2.0), out


@pytest.mark.slow
def test_the_folder_has_every_point_the_tables_and_the_configuration(swept):
    result, out = swept
    assert len(list((out / "points").glob("*.parquet"))) == 8
    pd.testing.assert_frame_equal(pd.read_parquet(out / "sweep.parquet"), result.points, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "means.parquet"), result.means, check_dtype=False)
    config = json.loads((out / "config.json").read_text())
    assert config["axes"]["rate_per_s"] == [2.0, 8.0]
    assert config["slo"] == SLO


@pytest.mark.slow
def test_the_same_sweep_gives_the_same_bytes(swept, tiny, tmp_path):
    _, out = swept
    grid = {**tiny, "policies": ["round-robin", "least-harm"], "rate": [2, 8], "seed": [0, 1]}
    run_sweep(grid, tmp_path, slo=SLO, price_usd_per_gpu_hour=2.0)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for name in files:
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes(), name


@pytest.mark.slow
def test_means_are_over_seeds(swept):
    result, _ = swept
    assert len(result.means) == 4
    chosen = result.points[(result.points["policy"] == "least-harm") & (result.points["rate_per_s"] == 2)]
    [row] = result.means[(result.means["policy"] == "least-harm") & (result.means["rate_per_s"] == 2)].to_dict(
        "records"
    )
    assert row["ttft_mean_s"] == pytest.approx(chosen["ttft_mean_s"].mean())


@pytest.mark.slow
def test_a_notebook_shows_what_varied_and_the_main_figures(swept):
    result, _ = swept
    assert list(result.brief().columns[:3]) == ["policy", "rate_per_s", "seeds"]
    html = result._repr_html_()
    assert html.count("<tr") == 1 + 4
    assert "instances" not in html
    assert repr(result).splitlines()[0].split()[:3] == ["policy", "rate_per_s", "seeds"]
    assert len(repr(result).splitlines()) == 1 + 4


@pytest.mark.slow
def test_pictures_are_axes(swept):
    with mpl.rc_context({"backend": "Agg"}):
        from matplotlib import pyplot

        result, _ = swept
        assert [axes.get_xlabel() for axes in result.plot.latency()] == ["arrival rate (requests/s)"] * 2
        assert result.plot.goodput()[0].get_ylabel() == "goodput (requests/s)"
        assert [axes.get_title(loc="left") for axes in result.plot.attainment()] == ["2 requests/s", "8 requests/s"]
        pyplot.close("all")


@pytest.mark.slow
def test_failures_are_a_table_of_their_own(tiny, tmp_path):
    result = run_sweep({**tiny, "kernel": ["fa9", None]}, tmp_path)
    [failure] = result.failures.to_dict("records")
    assert failure["kernel"] == "fa9"
    assert "no kernel 'fa9'" in failure["error"]


@pytest.mark.slow
def test_a_search_stores_its_points_and_its_capacity(tiny, tmp_path):
    result = run_sweep(tiny, tmp_path, slo="ttft_p99=0.8ms", search="rate")
    assert result.capacity is not None
    [row] = result.capacity.to_dict("records")
    assert row["ttft_p99_s"] <= 0.0008
    assert row["search_points"] == len(result.points) == len(list((tmp_path / "points").iterdir()))
    assert (tmp_path / "capacity.parquet").exists()


@pytest.mark.slow
def test_a_search_tells_of_all_its_rounds(tiny, tmp_path):
    reported = []
    result = run_sweep(tiny, tmp_path, slo="ttft_p99=0.8ms", search="rate", report=reported.append)
    ended = [progress.ended for progress in reported]
    assert ended == sorted(ended)
    assert reported[-1].points == reported[-1].ended == len(result.points)


@pytest.mark.slow
def test_a_search_has_a_picture_of_its_own_and_no_other(tiny, tmp_path):
    result = run_sweep(tiny, tmp_path, slo="ttft_p99=0.8ms", search="rate")
    assert [name for name, figure in result.plot.figures() if figure is not None] == ["capacity"]
    with mpl.rc_context({"backend": "Agg"}):
        from matplotlib import pyplot

        [axes] = result.plot.capacity()
        assert axes.get_xlabel() == "highest arrival rate (requests/s) with P99 TTFT ≤ 0.8 ms"
        with pytest.raises(InputError, match="nothing to draw: no number was varied, or a search chose them"):
            result.plot.latency()
        pyplot.close("all")


def test_without_a_search_there_is_no_capacity_to_draw(swept):
    result, _ = swept
    with pytest.raises(InputError, match="nothing to draw: no capacity was searched for"):
        result.plot.capacity()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"search": "rate"}, "a search for rate needs an SLO"),
        ({"slo": "ttft"}, "no NAME=LIMIT"),
        ({"price_usd_per_gpu_hour": 0}, "the price per GPU-hour must be above 0 USD, not 0"),
        ({"executor": "ray"}, "no executor 'ray'"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(tiny, tmp_path, options, complaint):
    with pytest.raises(InputError, match=complaint):
        run_sweep(tiny, tmp_path / "out", **options)
    assert not list(tmp_path.rglob("*.parquet"))
