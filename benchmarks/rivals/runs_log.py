"""Which runs of the test set there were: who looks at a test set often enough chooses by it."""

from __future__ import annotations

import csv
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rivals.cases import Case

LOG = Path(__file__).with_name("test_runs.csv")
_COLUMNS = ("commit", "settings", "policy", "rivals", "cases", "traces", "simulated")


def log_run(
    cases: Sequence[Case], policies: Sequence[str], policy: str, traces: int, simulated: int, path: Path = LOG
) -> None:
    """Append a line: the commit (``+`` if files have changed since), a hash of cases and policies, and what was run."""
    settings = hashlib.sha256(repr((cases, tuple(policies))).encode()).hexdigest()[:12]
    rivals = " ".join(name for name in policies if name != policy)
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(_COLUMNS)
        writer.writerow((_commit(), settings, policy, rivals, len(cases), traces, simulated))


def _commit() -> str:
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../../l4sim", ".", f":!{LOG.name}")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")
