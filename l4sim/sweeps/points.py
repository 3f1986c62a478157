"""One point of a sweep: a simulation as plain values, its key, and its row of results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from l4sim import __version__
from l4sim.bundled import DEFAULT_TRACE, folder
from l4sim.code_hash import sources_hash
from l4sim.cost import outside as costs
from l4sim.cost.build import COST_MODELS
from l4sim.cost.profile import load_profile
from l4sim.engine import rules as engines
from l4sim.errors import InputError
from l4sim.experiment import Options, compare, resolve
from l4sim.experiment.resolving import fleet_of, profiles_of, refuse_beside
from l4sim.plugins import outside_code
from l4sim.policies import registry as policies
from l4sim.results.metrics import summarise
from l4sim.results.slo import parse_slo
from l4sim.specs.model import load_model
from l4sim.sweeps.own import OwnPolicy
from l4sim.workload import formats, own_parquet
from l4sim.workload.load import load_trace
from l4sim.workload.synth.named import PARAMETERS, synthesize_named
from l4sim.workload.trace import Trace
from l4sim.workload.transform import pace

Value = str | int | float | bool | None
Row = dict[str, Any]

LOADING = ("format", "time_unit", "tokens", "trace_block_size", "dejitter_s", "limit")
"""Keys that say how a trace's file is read."""
PACE = ("rate_per_s", "rate_scale", "concurrency", "duration_s")
"""Keys that say how a trace arrives."""

_READ_FORMATS: Mapping[str, object] = {"auto": None, own_parquet.NAME: None, **formats.FORMATS}
_OPTIONS = {field.name for field in fields(Options)}
_PATHS = ("trace", "synth.lengths_from")
_MILLION = 1e6
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Point:
    """One policy on one cluster with one trace."""

    settings: Mapping[str, Value]
    """What the grid says, by its keys (``synth.`` before those of a synthetic trace); the rest is at its default."""
    slo: str | None = None
    price_usd_per_gpu_hour: float | None = None
    own: OwnPolicy | None = None
    """The policy, where it is not found by its name."""

    @property
    def key(self) -> str:
        """The SHA-256 of everything that the row depends on: settings and defaults, model, profile, files, code.

        Code from outside counts as `l4sim.code_hash` says.

        Raises:
            InputError: a model, profile or file that cannot be read, or a name that stands for nothing.
        """
        options = self.options()
        described = {
            "l4sim": __version__,
            "code": _code_hash(),
            "settings": {
                name: value
                for name, value in self.settings.items()
                if name not in _OPTIONS and name not in _PATHS and value is not None
            },
            "options": {field.name: str(getattr(options, field.name)) for field in fields(Options)},
            "model": repr(load_model(options.model)),
            "profiles": [load_profile(name).content_hash for name in profiles_of(options)],
            "files": [_file_hash(path, _changed_ns(path)) for path in self._files()],
            "slo": self.slo,
            "price_usd_per_gpu_hour": self.price_usd_per_gpu_hour,
        }
        if outside := self._outside_code(options):
            described["outside"] = outside
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def _outside_code(self, options: Options) -> dict[str, str]:
        """The hashes of what comes from outside the package, by what it is."""
        names: dict[str, tuple[str, str, Mapping[str, object]]] = {
            "cost_model": (costs.GROUP, options.cost_model, dict.fromkeys(COST_MODELS)),
            "engine_rules": (engines.GROUP, options.engine_rules, engines.ENGINES),
            "format": (formats.GROUP, str(self.settings.get("format") or "auto"), _READ_FORMATS),
        }
        found: dict[str, str | None] = {
            what: outside_code(group, name, bundled) for what, (group, name, bundled) in names.items()
        }
        if self.own is not None:
            found["policy"] = self.own.code_hash
        else:
            found["policy"] = outside_code(policies.GROUP, str(self.settings["policy"]), policies.POLICIES)
        return {what: code for what, code in found.items() if code is not None}

    def options(self) -> Options:
        """The cluster's options, defaults filled in."""
        given: dict[str, Any] = {name: value for name, value in self.settings.items() if name in _OPTIONS}
        if given.get("plan_histogram") is not None:
            given["plan_histogram"] = Path(given["plan_histogram"])
        return Options(**given)

    def trace(self) -> Trace:
        """The trace, made or loaded, at the point's rate.

        Raises:
            InputError: it cannot be read or made.
        """
        seed = self.options().seed
        synth = {name: value for name, value in self._synth().items() if value is not None}
        trace = _synthetic(synth, seed, self.settings.get("concurrency")) if synth else self._from_file()
        paces: dict[str, Any] = {name: self.settings.get(name) for name in PACE}
        return pace(trace, **paces, seed=seed)

    def _synth(self) -> dict[str, Any]:
        return {
            name.removeprefix("synth."): value for name, value in self.settings.items() if name.startswith("synth.")
        }

    def _trace_path(self) -> str:
        path = self.settings.get("trace")
        return str(folder("traces") / DEFAULT_TRACE if path is None else path)

    def _from_file(self) -> Trace:
        path = self._trace_path()
        options: dict[str, Any] = {name: self.settings[name] for name in LOADING if self.settings.get(name) is not None}
        return _loaded(path, _changed_ns(path), **options)

    def _files(self) -> list[str]:
        synth = self._synth()
        trace = synth.get("lengths_from") if synth else self._trace_path()
        others = (self.settings.get(name) for name in ("fleet", "plan_histogram"))
        return [str(path) for path in (trace, *others) if path is not None]


def is_setting(column: str) -> bool:
    """Whether a column of a row is a setting, and not a figure."""
    return column in _OPTIONS or column in ("policy", "trace", *LOADING, *PACE) or column.startswith("synth.")


def evaluate(point: Point) -> Row:
    """Simulate the point; its row, without the settings.

    ``status`` is ``done``, or ``failed`` with the ``error`` in one line. Figures are `summarise`'s, flat: seconds with
    their statistic (``ttft_p99_s``), counts and throughput; with an SLO what `SLO.judge` says; with a price
    ``usd_per_million_output_tokens``, over the makespan.
    """
    try:
        return {"status": "done", "error": "", **_figures(point)}
    except InputError as error:
        return failed(str(error))
    except Exception as error:  # one failed point must not stop the rest
        return failed(f"{type(error).__name__}: {error}")


def failed(error: str) -> Row:
    """The row of a point without results."""
    return {"status": "failed", "error": " ".join(error.split())}


def _figures(point: Point) -> Row:
    options = point.options()
    if options.fleet is not None:
        refuse_beside(fleet_of(options), point.settings)
    setup = resolve(options)
    name = str(point.settings["policy"])
    [run] = compare(point.trace(), [name if point.own is None else point.own.entry], setup)
    summary = summarise(run)
    figures: Row = {}
    for name, value in summary.items():
        if name.endswith("_s") and isinstance(value, dict):
            figures |= {f"{name.removesuffix('_s')}_{statistic}_s": figure for statistic, figure in value.items()}
        elif name in ("requests", "migrations"):
            figures |= {f"{name}_{status}": count for status, count in value.items()}
        elif isinstance(value, (int, float)):
            figures[name] = value
    if point.slo is not None:
        figures |= parse_slo(point.slo).judge(run, summary)
    if point.price_usd_per_gpu_hour is not None:
        usd_per_s = setup.gpus * point.price_usd_per_gpu_hour / _SECONDS_PER_HOUR
        tokens_per_s = summary["throughput_tokens_per_s"]
        figures["usd_per_million_output_tokens"] = usd_per_s / tokens_per_s * _MILLION if tokens_per_s else float("nan")
    return figures


def _synthetic(given: dict[str, Any], seed: int, concurrency: Any) -> Trace:
    parameters = {name: given.pop(name) for name in PARAMETERS if name in given}
    path = given.pop("lengths_from", None)
    source = None if path is None else lambda: _loaded(path, _changed_ns(path))
    return synthesize_named(**given, lengths_from=source, concurrency=concurrency, seed=seed, parameters=parameters)


def _changed_ns(path: str) -> int:
    """When a file was last written: what is remembered of it is forgotten when it changes."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


@lru_cache(maxsize=4)
def _loaded(path: str, changed_ns: int, **options: Any) -> Trace:
    return load_trace(path, **options)


@lru_cache(maxsize=1)
def _code_hash() -> str:
    """Of the simulator itself: a policy that is being worked on must not be answered with its old results."""
    return sources_hash("l4sim")


@lru_cache(maxsize=64)
def _file_hash(path: str, changed_ns: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
