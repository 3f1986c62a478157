"""A real engine's run, recorded by `l4sim.record`: with its own seconds, every iteration is decided as vLLM did.

Run by the project's Python, with vLLM's in ``L4SIM_VLLM_PYTHON``.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("simpy", reason="run by the project's own Python")

from l4sim.calibration.profile_json import write_profile
from l4sim.recordings.fit import fit_recording
from l4sim.recordings.own import read_requests
from l4sim.recordings.own_seconds import validate_own_seconds
from l4sim.recordings.replay import validate_vllm

_ROOT = Path(__file__).resolve().parents[2]
_PYTHON = os.environ.get("L4SIM_VLLM_PYTHON")

pytestmark = pytest.mark.skipif(_PYTHON is None, reason="no vLLM: L4SIM_VLLM_PYTHON names its Python")


def in_vllm(module: str, *arguments: object) -> None:
    """Run a module beside this one in vLLM's environment."""
    command = [str(_PYTHON), "-m", f"tests_vllm.recorded.{module}", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=_ROOT, env={**os.environ, "PYTHONPATH": str(_ROOT)}, timeout=300)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of AsyncLLM with KV blocks so few that requests are preempted."""
    folder = tmp_path_factory.mktemp("served") / "recording"
    in_vllm("serve", folder, 2, 50)
    return folder


def test_a_served_run_is_decided_alike(served: Path) -> None:
    """Preemptions and prefix hits among it."""
    found = validate_own_seconds(served)
    assert found.difference is None, found.in_words()
    assert len(found.ttft_off_s) == len(found.e2e_off_s) == len(read_requests(served))
    assert not found.ttft_off_s.any()
    assert not found.e2e_off_s.any()


def test_another_run_of_the_engine_is_predicted(served: Path, tmp_path: Path) -> None:
    """Seconds of a machine that others use say little: that there is a prediction is what is tested."""
    ample = _ROOT / "tests" / "recordings" / "samples" / "vllm_cpu"
    write_profile(fit_recording(ample), tmp_path)
    found = validate_vllm(served, profile=str(tmp_path))
    assert len(found.figures) == 6
    assert all(figure.predicted > 0 for figure in found.figures)


def test_schedulers_without_a_model_are_decided_alike(tmp_path: Path) -> None:
    """Asynchronous ones too."""
    in_vllm("drive", tmp_path, 0, 2)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 2 * 16
    for folder in folders:
        found = validate_own_seconds(folder)
        assert found.difference is None, f"{folder.name}: {found.in_words()}"
        assert not found.ttft_off_s.any()
