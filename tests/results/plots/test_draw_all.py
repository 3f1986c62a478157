"""The set of pictures as files."""

from __future__ import annotations

import shutil

import matplotlib.image
import pytest

from l4sim.errors import InputError
from l4sim.results.plots import draw_all

NAMES = ["latency_cdf.png", "latency_by_length.png", "instances.png", "queue.png", "heterogeneity.png", "plan.png"]


@pytest.fixture(scope="module")
def pair(make_run):
    return [make_run("round-robin"), make_run("l4", stages=3, refined=True)]


@pytest.fixture(scope="module")
def drawn(pair, tmp_path_factory):
    """The pictures of two runs."""
    return draw_all(pair, tmp_path_factory.mktemp("drawn"))


@pytest.mark.slow
def test_all_pictures_are_drawn_at_readme_width_with_something_on_them(drawn):
    assert [path.name for path in drawn] == NAMES
    for path in drawn:
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[1] == 900
        assert pixels[..., :3].std() > 0.05


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes(tmp_path, drawn, make_run):
    again = draw_all([make_run("round-robin"), make_run("l4", stages=3, refined=True)], tmp_path)
    for first, second in zip(drawn, again, strict=True):
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_a_picture_with_nothing_to_show_is_not_drawn_and_an_old_one_goes(tmp_path, drawn, pair):
    for path in drawn:
        shutil.copy(path, tmp_path)
    written = draw_all(pair[:1], tmp_path)
    assert [path.name for path in written] == NAMES[:-1]
    assert not (tmp_path / "plan.png").exists()


def test_a_run_without_anything_leaves_no_picture(tmp_path, make_tiny):
    assert draw_all([make_tiny()], tmp_path) == []


def test_a_file_in_the_way_is_told_in_one_line(tmp_path, runs):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="out: cannot be written"):
        draw_all(runs, tmp_path / "out")
