"""The wheel holds everything that base needs, and nothing of torch."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment_and_compares_from_another_directory(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", ROOT], check=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")

    environment = tmp_path / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-compile", wheel], check=True)
    has_torch = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert has_torch.returncode != 0, "base pulls in torch"

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [environment / "bin" / "l4sim", "compare", "--limit", "60", "--out", "out"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=True)
    assert "60 requests of long-context-mix" in done.stdout
    assert (elsewhere / "out" / "plan.png").stat().st_size > 10_000
