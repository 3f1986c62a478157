"""What all tests share: where the shared data lie, and how hypothesis searches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run of continuous integration, new ones on every run at a desk.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Every simulation of every test checks its invariants (docs/invariants.md), also those in other processes.
os.environ.setdefault("L4SIM_VALIDATE", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("L4SIM_SHARED", ROOT.parent / "shared"))
_NO_SHARED = "no shared data"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what went untested: a dot less among thousands is seen by nobody."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(_NO_SHARED in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(f"{count} tests skipped: {_NO_SHARED} at {SHARED} (set L4SIM_SHARED)", yellow=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{_NO_SHARED} at {SHARED} (set L4SIM_SHARED)")
    return SHARED
