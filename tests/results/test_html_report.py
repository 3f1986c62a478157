"""The report of a comparison as one file."""

from __future__ import annotations

import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest

import l4sim
from l4sim.errors import InputError

VOID = {"meta", "img"}


class Balanced(HTMLParser):
    """Raises unless every element that opens is closed in turn."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def result():
    trace = l4sim.synthesize("chat", rate_per_s=4, requests=100, max_model_len=16_384)
    return l4sim.compare(trace, ["round-robin", "l4"], l4sim.Cluster(instances=3, max_model_len=8192))


@pytest.fixture(scope="module")
def report(result, tmp_path_factory):
    return result.to_html(tmp_path_factory.mktemp("report") / "report.html").read_text()


@pytest.mark.slow
def test_it_is_well_formed_and_needs_no_other_file(report):
    parser = Balanced()
    parser.feed(report)
    assert parser.open == []
    assert re.findall(r'(?:src|href)="(?!data:|#)', report) == []
    assert "url(" not in report


@pytest.mark.slow
def test_images_are_inside(report):
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', report)
    assert len(images) == 6
    assert all(b64decode(image).startswith(b"\x89PNG") for image in images)


def test_it_tells_question_answer_and_what_did_not_finish(report, result):
    assert "100 requests of chat on 3 instances of llama-3.1-8b" in report
    assert "Which of round-robin and l4 serves this traffic best, and by how much?" in report
    assert result.verdict in report.replace("&nbsp;", " ")
    rejected = result.summaries[0]["requests"]["rejected"]
    assert f"{rejected} rejected" in report


@pytest.mark.slow
def test_figures_and_the_plan_are_in_tables(report, result):
    assert f"<td>{result.summaries[0]['requests']['finished']} of 100</td>" in report
    assert "Stages of l4 at the start" in report
    assert f"<td>0 to {result.runs[1].plan[0].hi_tokens:,}</td>" in report


def test_it_says_what_the_profile_is_and_how_well_it_fits(report, result):
    profile = result.setup.profile
    assert profile.content_hash in report
    assert profile.provenance.source in report
    errors = profile.kernels[profile.default_kernel].errors["uniform"]
    assert f"<td>{errors['mape_pct']:g}</td>" in report


@pytest.mark.slow
def test_a_kernel_that_was_not_measured_is_called_that(tmp_path):
    trace = l4sim.synthesize("chat", rate_per_s=4, requests=5, max_model_len=8192)
    cluster = l4sim.Cluster(instances=1, profile="h200-sxm", kernel="flashinfer-cuda")
    assumed = l4sim.replay(trace, "round-robin", cluster)
    assert (
        "measured, but for flashinfer-cuda, element-wise kernels and host time: estimated"
        in assumed.to_html(tmp_path / "r.html").read_text()
    )


def test_every_section_is_linked_from_the_top(report):
    headings = re.findall(r'<h2 id="(\w+)">([^<]+)</h2>', report)
    assert re.findall(r'<a href="#(\w+)">([^<]+)</a>', report) == headings
    assert [heading for _, heading in headings][:3] == ["Figures", "Pictures", "Plan"]


@pytest.mark.slow
def test_the_configuration_is_complete(report):
    assert "<td>instances</td><td>3</td>" in report
    assert "<td>engine: max_model_len</td><td>8192</td>" in report


@pytest.mark.slow
def test_the_same_result_gives_the_same_bytes(result, report, tmp_path):
    assert result.to_html(tmp_path / "again.html").read_text() == report


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_told(result, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        result.to_html(tmp_path / "missing" / "report.html")


def test_it_says_how_sure_it_is_and_who_loses(report, result):
    assert result.comparison is not None
    assert "95&nbsp;% interval, paired by request" in report or "95 % interval, paired by request" in report
    assert f"Changes in&nbsp;% against {result.comparison.against}" in report
    assert "No length class is more than" in report or "Who loses:" in report
