"""The report of a sweep as one file."""

from __future__ import annotations

import re
from base64 import b64decode

import pytest

from l4sim.errors import InputError
from l4sim.sweeps.sweep import run_sweep

pytestmark = pytest.mark.slow

SLO = "ttft=1s,tpot=100ms"


def text_of(result, tmp_path):
    return result.to_html(tmp_path / "report.html").read_text().replace("&nbsp;", " ")


@pytest.fixture(scope="module")
def swept(tiny, tmp_path_factory):
    grid = {
        **tiny,
        "policies": ["round-robin", "least-harm"],
        "rate": [2, 8],
        "seed": [0, 1, 2],
        "kernel": [None, "fa9"],
    }
    return run_sweep(grid, tmp_path_factory.mktemp("sweep"), slo=SLO, price_usd_per_gpu_hour=2.0)


@pytest.fixture(scope="module")
def report(swept, tmp_path_factory):
    return text_of(swept, tmp_path_factory.mktemp("report"))


def test_it_asks_what_was_varied_and_answers_by_combinations(report):
    assert "How do round-robin and least-harm compare over rate_per_s (2, 8) and kernel (None, fa9)?" in report
    assert re.search(r"Lowest mean normalized latency: [\w-]+ in [12] of 2", report)


def test_it_needs_no_other_file_and_has_every_picture(report):
    assert re.findall(r'(?:src|href)="(?!data:|#)', report) == []
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', report)
    assert len(images) == 3
    assert all(b64decode(image).startswith(b"\x89PNG") for image in images)


def test_figures_have_their_intervals_and_failures_their_reason(report, swept):
    [row] = swept.means[(swept.means["policy"] == "least-harm") & (swept.means["rate_per_s"] == 2)].to_dict("records")
    assert f"{row['ttft_p99_s']:.3g} <small>±" in report
    assert "over 3 seeds" in report
    assert "12 of 24 points failed: " in report


def test_it_says_what_the_profile_is_and_what_every_setting_was(report):
    assert "Seconds come from the profile <b>h200-flashinfer</b>, attention kernel flashinfer-tensor" in report
    assert "<td>instances</td><td>2</td>" in report
    assert "<td>SLO</td><td>ttft=1s,tpot=100ms</td>" in report
    assert "<td>block_size</td><td>16</td>" in report


def test_it_says_what_the_profiles_of_a_fleet_are(tiny, tmp_path):
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("groups: [{name: a, count: 1, profile: h200-sxm}, {name: b, count: 1, profile: h100-sxm}]")
    grid = {name: values for name, values in tiny.items() if name != "instances"}
    swept = run_sweep({**grid, "policies": ["round-robin"], "fleet": str(fleet)}, tmp_path / "out")
    assert swept.points["status"].tolist() == ["done"]
    report = text_of(swept, tmp_path)
    for profile in ("h200-sxm", "h100-sxm"):
        assert f"Seconds come from the profile <b>{profile}</b>" in report
    assert "<b>h200-flashinfer</b>" not in report


def test_a_search_is_asked_and_answered_as_one(tiny, tmp_path):
    found = run_sweep(
        {**tiny, "policies": ["round-robin", "least-harm"]}, tmp_path, slo="ttft_p99=0.8ms", search="rate"
    )
    report = text_of(found, tmp_path)
    assert "What is the highest arrival rate at which round-robin and least-harm meet P99 TTFT ≤ 0.8 ms?" in report
    assert re.search(r"Highest arrival rate: [\w ,-]+\.", report)
    assert report.count("<img") == 1


def test_a_single_seed_is_told(tiny, tmp_path):
    assert "One seed: nothing here tells how much of a difference is chance" in text_of(
        run_sweep(tiny, tmp_path), tmp_path
    )


def test_without_room_for_pictures_the_rest_is_there(tiny, tmp_path):
    grid = {**tiny, "instances": [1, 2], "block_size": [8, 16], "max_num_seqs": [8, 16], "rate": [2, 8]}
    report = text_of(run_sweep(grid, tmp_path), tmp_path)
    assert "No pictures: 8 combinations" in report
    assert "<h2" in report


def test_the_same_sweep_gives_the_same_bytes(swept, tmp_path):
    first, again = swept.to_html(tmp_path / "a.html"), swept.to_html(tmp_path / "b.html")
    assert first.read_bytes() == again.read_bytes()


def test_a_file_that_cannot_be_written_is_told(swept, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        swept.to_html(tmp_path / "missing" / "report.html")


@pytest.mark.parametrize(
    "grid", [{"kernel": "fa9"}, {"synth": {"prompt_lengths": "fixed:tokens=99999", "output_lengths": "fixed:tokens=2"}}]
)
def test_where_nothing_ran_or_finished_the_report_says_so(tiny, tmp_path, grid):
    grid = {**tiny, "policies": ["round-robin", "least-harm"], **grid}
    grid["synth"] = {**grid["synth"], "requests": 5, "rate": 5}
    report = text_of(run_sweep(grid, tmp_path), tmp_path)
    assert "Nothing to compare: no combination has figures of two policies." in report
    assert "2 of 2 points failed" in report or "0 of 5" in report
