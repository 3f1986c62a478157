from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_traces(shared: Path) -> Path:
    return shared / "traces"
