from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_traces() -> Path:
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("L4SIM_SHARED", root.parent / "shared")) / "traces"
    if not folder.is_dir():
        pytest.skip(f"no shared traces at {folder} (set L4SIM_SHARED)")
    return folder
