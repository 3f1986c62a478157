"""Every recording under a folder: predicted with the bundled constants, and with constants fitted to all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l4sim.errors import InputError
from l4sim.recordings.comparison import Validation
from l4sim.recordings.fitting import (
    FrontEndResponse,
    HostResponse,
    fit_front_end,
    fit_host,
    front_end_response,
    host,
    host_response,
)
from l4sim.recordings.formats import recognise
from l4sim.recordings.replay import Replayable, predict, replayable
from l4sim.specs.fitted import Fitted, FittedFrontEnd, FittedHost, load_fitted

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run predicted with constants that it had no part in."""

    host: FittedHost | None
    """None: no other run's host is of its kind, and its profile's own constants were kept."""
    front_end: FittedFrontEnd | None
    """None: measured at the engine, or no other run was measured at a client."""
    found: Validation


@dataclass(frozen=True, slots=True)
class Held:
    """One run, held against its prediction."""

    replayed: Replayable
    bundled: Validation
    """With the constants that are bundled, to which the run itself may have been fitted."""
    left_out: LeftOut
    e2e_per_tpot: float | None
    """By how many percent mean E2E latency moves with 1 % of mean TPOT; None where the host was not changed."""

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.replayed.name


@dataclass(frozen=True, slots=True)
class Refused:
    """A recording that cannot be predicted."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Everything:
    """All recordings under a folder."""

    held: tuple[Held, ...]
    refused: tuple[Refused, ...]
    fitted: Fitted
    """Constants fitted to all of them."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "runs": [_run_json(each) for each in self.held],
            "refused": [asdict(each) for each in self.refused],
            "fitted": asdict(self.fitted),
        }


def validate_all(folder: Path, say: Say = lambda _: None) -> Everything:
    """Predict every recording under a folder; ``say`` is told of each.

    Host constants are fitted by kind of host (`l4sim.specs.fitted`), those of the front end to all runs that clients
    measured. Each run is also predicted with constants fitted to the others alone, which is what counts.

    Raises:
        InputError: there is no recording under it that can be predicted.
    """
    runs: list[Replayable] = []
    refused: list[Refused] = []
    for path in recordings_under(folder):
        try:
            runs.append(replayable(path))
        except InputError as error:
            refused.append(Refused(path.name, str(error)))
    if not runs:
        reasons = "; ".join(each.reason for each in refused) or "none is there"
        raise InputError(f"{folder}: no recording that can be predicted: {reasons}")
    hosts = _HostFits(runs, say)
    fitted_runs = [hosts.settled(run, None) for run in runs]
    front_ends = _FrontEndFits([run for run in fitted_runs if _at_client(run)], say)
    held = []
    for run in runs:
        say(f"{run.name}: predicted")
        held.append(Held(run, predict(run), _left_out(run, hosts, front_ends), hosts.e2e_per_tpot(run)))
    known = load_fitted()
    fitted = Fitted(front_ends.fit(None) or known.front_end, {**known.hosts, **hosts.all_kinds()})
    return Everything(tuple(held), tuple(refused), fitted)


def _run_json(held: Held) -> dict[str, Any]:
    setup, left_out = held.replayed.setup, held.left_out
    return {
        "run": held.name,
        "requests": held.bundled.requests,
        "measured_at": held.replayed.recording.measured_at,
        "model": setup.model.name,
        "profile": setup.profile.name,
        "tensor_parallel": setup.options.tensor_parallel,
        "engine": held.replayed.recording.engine.version,
        "figures": [asdict(figure) for figure in held.bundled.all_figures],
        "e2e_per_tpot": held.e2e_per_tpot,
        "left_out": {
            "host": None if left_out.host is None else asdict(left_out.host),
            "front_end": None if left_out.front_end is None else asdict(left_out.front_end),
            "figures": [asdict(figure) for figure in left_out.found.all_figures],
        },
    }


def recordings_under(folder: Path) -> Iterator[Path]:
    """The folders that hold a recording, by name: the folder itself, or those in it at any depth.

    Raises:
        InputError: no such folder.
    """
    if recognise(folder) is not None:
        yield folder
        return
    for path in sorted(each for each in folder.iterdir() if each.is_dir()):
        yield from recordings_under(path)


def _left_out(run: Replayable, hosts: _HostFits, front_ends: _FrontEndFits) -> LeftOut:
    constants = hosts.fit(_kind(run), without=run.name)
    predicted = hosts.settled(run, run.name)
    front_end = front_ends.fit(run.name) if _at_client(run) else None
    if front_end is not None:
        parts = front_end.request_s, front_end.prompt_token_s, front_end.streamed_token_s
        predicted = predicted.with_front_end(",".join(f"{seconds:.9g}s" for seconds in parts))
    return LeftOut(constants, front_end, predict(predicted))


class _HostFits:
    """Host constants by kind, with and without any one run; every run is replayed once for all of them."""

    def __init__(self, runs: Sequence[Replayable], say: Say) -> None:
        self._responses: dict[str, dict[str, HostResponse]] = {}
        for run in runs:
            kind = _kind(run)
            if kind is not None:
                say(f"{run.name}: replayed with other host constants")
                self._responses.setdefault(kind, {})[run.name] = host_response(run)

    def fit(self, kind: str | None, without: str | None) -> FittedHost | None:
        """Constants of all runs of a kind but one; None if there are none."""
        if kind is None:
            return None
        names = [name for name in self._responses[kind] if name != without]
        if not names:
            return None
        return fit_host([self._responses[kind][name] for name in names], _source("TPOT", names))

    def settled(self, run: Replayable, without: str | None) -> Replayable:
        """A run with these constants in its profile, or its own where there are none."""
        constants = self.fit(_kind(run), without)
        return run if constants is None else run.with_host(host(constants.iteration_s))

    def e2e_per_tpot(self, run: Replayable) -> float | None:
        """How a run's E2E latency moves with its TPOT."""
        kind = _kind(run)
        return None if kind is None else self._responses[kind][run.name].e2e_per_tpot

    def all_kinds(self) -> dict[str, FittedHost]:
        """Constants fitted to all runs, by kind."""
        found = {kind: self.fit(kind, None) for kind in self._responses}
        return {kind: constants for kind, constants in found.items() if constants is not None}


class _FrontEndFits:
    """The same of the front end."""

    def __init__(self, runs: Sequence[Replayable], say: Say) -> None:
        self._responses: dict[str, FrontEndResponse] = {}
        for run in runs:
            say(f"{run.name}: replayed without a front end")
            response = front_end_response(run)
            if response is not None:
                self._responses[run.name] = response

    def fit(self, without: str | None) -> FittedFrontEnd | None:
        names = [name for name in self._responses if name != without]
        if not names:
            return None
        return fit_front_end([self._responses[name] for name in names], _source("clients' TTFT", names))


def _kind(run: Replayable) -> str | None:
    return run.setup.profile.host_kind


def _at_client(run: Replayable) -> bool:
    return run.recording.measured_at == "client"


def _source(what: str, names: Sequence[str]) -> str:
    return f"fitted to {what} of {len(names)} runs by `l4sim validate all`: {', '.join(names)}"
