"""Keeping what every recording told: fitted constants in ``profiles/hosts.json``, and how far off predictions were."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from l4sim.bundled import folder
from l4sim.calibration.datasheet import host_json
from l4sim.calibration.profile_json import write_profile
from l4sim.cost.profile import PROFILE, list_profiles
from l4sim.json_files import read_plain
from l4sim.recordings.every import Everything, Held
from l4sim.results.held import HELD_FILE
from l4sim.specs.fitted import HOSTS_FILE, load_fitted


def keep(found: Everything) -> tuple[Path, ...]:
    """Write the constants, put them into the bundled profiles that use them, and the errors; returns the files."""
    profiles = folder("profiles")
    hosts = profiles / HOSTS_FILE
    hosts.write_text(json.dumps(asdict(found.fitted), indent=1) + "\n", encoding="utf-8")
    load_fitted.cache_clear()
    written = [hosts, _keep_errors(found, profiles / HELD_FILE)]
    for name in list_profiles():
        values = read_plain(profiles / name / PROFILE)
        kind = values["host_overhead"].get("kind")
        if kind is not None:
            written.append(write_profile(values | {"host_overhead": host_json(kind)}, profiles / name))
    return tuple(written)


def _keep_errors(found: Everything, path: Path) -> Path:
    """Write every run's errors with the constants of the others; what else the file holds stays."""
    new = [held_run(each) for each in found.held]
    known = {run["run"] for run in new}
    kept = [run for run in read_plain(path)["runs"] if run["run"] not in known]
    path.write_text(json.dumps({"runs": kept + new}, indent=1) + "\n", encoding="utf-8")
    return path


def held_run(held: Held) -> dict[str, Any]:
    """What is kept of one run: its errors with constants of the others."""
    setup, version = held.replayed.setup, held.replayed.recording.engine.version
    return {
        "run": held.name,
        "engine": "vLLM" if version is None else f"vLLM {version}",
        "profile": setup.profile.name,
        "tensor_parallel": setup.options.tensor_parallel,
        "model": setup.model.name,
        "errors_pct": {figure.metric: round(figure.error_pct, 2) for figure in held.left_out.found.all_figures},
        "kind": setup.profile.host_kind,
    }
