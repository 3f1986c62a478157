"""Every recording under a folder: each is predicted by constants of the others, and what cannot be is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from l4sim.cli import cli
from l4sim.errors import InputError
from l4sim.recordings.every import Everything, recordings_under, validate_all
from l4sim.recordings.kept import held_run
from l4sim.results.held import E2E

from .test_client_csv import META, recorded

ROWS = [f"{row},{row * 0.5:.1f},100,40,{row % 3},0.03,0.4,ok" for row in range(24)]
MIXTURE = META["model_config"] | {"num_local_experts": 8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in {"one": {}, "deep/two": {"max_num_seqs": 8}, "mixture": {"model_config": MIXTURE}}.items():
        (folder / name).mkdir(parents=True)
        recorded(folder / name, *ROWS, **changes)
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> Everything:
    return validate_all(runs)


def test_recordings_are_found_at_any_depth(runs: Path) -> None:
    assert [path.name for path in recordings_under(runs)] == ["two", "mixture", "one"]
    assert list(recordings_under(runs / "one")) == [runs / "one"]


def test_each_run_is_predicted_by_what_was_fitted_to_the_others(found: Everything) -> None:
    assert [each.name for each in found.held] == ["two", "one"]
    for each, other in zip(found.held, reversed(found.held), strict=True):
        assert each.left_out.host is not None
        assert each.left_out.front_end is not None
        assert f"of 1 runs by `l4sim validate all`: {other.name}" in each.left_out.host.source
        assert each.name not in each.left_out.front_end.source.rpartition(":")[2]


def test_what_cannot_be_predicted_is_told_with_its_reason(found: Everything) -> None:
    (refused,) = found.refused
    assert refused.name == "mixture"
    assert "mixture of experts" in refused.reason


def test_what_is_kept_are_the_errors_of_runs_left_out(found: Everything) -> None:
    kept = held_run(found.held[0])
    assert (kept["profile"], kept["tensor_parallel"], kept["engine"]) == ("h100-sxm", 1, "vLLM 0.15.1")
    left_out = {figure.metric: figure.error_pct for figure in found.held[0].left_out.found.all_figures}
    assert kept["errors_pct"][E2E] == pytest.approx(left_out[E2E], abs=0.01)


def test_a_folder_without_any_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recording that can be predicted: none is there"):
        validate_all(tmp_path)


@pytest.mark.slow
def test_the_command_prints_measured_predicted_and_left_out(runs: Path) -> None:
    told = CliRunner().invoke(cli, ["validate", "all", str(runs / "one")])
    assert told.exit_code == 0, told.output
    for words in ("Measured and predicted", "left out of the fit", "of the others", "finished_per_s"):
        assert words in told.stdout
