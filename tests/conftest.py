"""What all tests share: where the shared data lie, and how hypothesis searches."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from l4sim.batch import Batch, Prefill
from l4sim.specs.gpu import GPUS
from l4sim.specs.model import load_model

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share a module's fixture in one worker: else each worker would make it anew."""
    for item in items:
        made = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
        if any(fixtures[-1].scope == "module" for fixtures in made):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{_NO_SHARED} at {SHARED} (set L4SIM_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def recorded_folder(shared: Path) -> Path:
    """A run of vLLM on an RTX PRO 6000, with the points of its profile."""
    return shared / "validation" / "vllm0.19_rtxpro6000_llama3.1-8b"


@pytest.fixture(scope="session")
def imported_profile(recorded_folder: Path) -> dict[str, Any]:
    """What ``profile.json`` holds, made of that folder's points: a fit of ten seconds, for all tests of one worker."""
    from l4sim.calibration.importers.llmservingsim import import_llmservingsim

    return import_llmservingsim(recorded_folder / "profile", GPUS["rtx-pro-6000"], load_model("llama-3.1-8b"))


@pytest.fixture(scope="session")
def measurements(shared: Path) -> Path:
    """The folder of aiconfigurator tables."""
    return shared / "measurements"


@pytest.fixture(scope="session")
def batch() -> Callable[..., Batch]:
    """Make a batch of decode contexts and (chunk, cached) prefills."""

    def make(contexts: list[int] | None = None, prefills: list[tuple[int, int]] | None = None) -> Batch:
        lengths = np.array(contexts or [], dtype=np.int64)
        chunks = tuple(Prefill(chunk, cached) for chunk, cached in prefills or [])
        return Batch(lengths, int(lengths.sum()), chunks)

    return make
