"""Keeping what every recording told: fitted constants in ``profiles/hosts.json``, and how far off predictions were."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from l4sim.bundled import folder
from l4sim.calibration.datasheet import host_json
from l4sim.calibration.profile_json import write_profile
from l4sim.cost.profile import PROFILE, list_profiles
from l4sim.json_files import read_plain
from l4sim.recordings.every import Everything
from l4sim.specs.fitted import HOSTS_FILE, load_fitted


def keep(found: Everything) -> tuple[Path, ...]:
    """Write the constants and put them into the bundled profiles that use them; returns the files written."""
    profiles = folder("profiles")
    hosts = profiles / HOSTS_FILE
    hosts.write_text(json.dumps(asdict(found.fitted), indent=1) + "\n", encoding="utf-8")
    load_fitted.cache_clear()
    written = [hosts]
    for name in list_profiles():
        values = read_plain(profiles / name / PROFILE)
        kind = values["host_overhead"].get("kind")
        if kind is not None:
            written.append(write_profile(values | {"host_overhead": host_json(kind)}, profiles / name))
    return tuple(written)
