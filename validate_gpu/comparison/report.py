"""A validation as one Markdown file, with its pictures and tables beside it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from l4sim import __version__
from l4sim.results.numbers import precise
from validate_gpu.comparison.compare import Comparison, trace_summary
from validate_gpu.comparison.migrations import MigrationFigures

_METRICS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
_STATISTICS = {"mean": "mean", "p50": "P50", "p90": "P90", "p99": "P99"}


def report(
    comparison: Comparison, pictures: Mapping[str, Path], *, tolerance_pct: float, command: str, date: str
) -> str:
    """The report's text; pictures by caption, named relative to the report."""
    options = comparison.setup.options
    return "\n".join(
        [
            f"# {options.instances} live instances of {comparison.setup.model.name} against the simulator",
            "",
            *summary(comparison, tolerance_pct),
            "",
            "## Latencies",
            "",
            *_latencies(comparison),
            "",
            "## Ranking",
            "",
            *_ranking(comparison),
            "",
            "## Iterations",
            "",
            *_iterations(comparison),
            "",
            "## Decisions",
            "",
            *_decisions(comparison),
            "",
            "## Migrations",
            "",
            *_migrations(comparison),
            "",
            "## Pictures",
            "",
            *[line for caption, path in pictures.items() for line in (f"![{caption}]({path.name})", "", caption, "")],
            "## Provenance",
            "",
            *_provenance(comparison, command, date),
            "",
        ]
    )


def summary(comparison: Comparison, tolerance_pct: float) -> Iterator[str]:
    """The answers, one line each."""
    setup = comparison.setup
    repeats = len(next(iter(comparison.live.runs.values())))
    yield (
        f"{len(comparison.trace):,} requests of {comparison.trace.name}, {comparison.driver} on "
        f"{comparison.live.device['name']} ({comparison.live.device['device']}), {repeats} "
        f"{'run' if repeats == 1 else 'runs'} of each policy; predicted from profile {setup.profile.name} "
        f"({setup.groups[0].basis}). Errors are (predicted - measured) / measured."
    )
    yield ""
    beyond = comparison.beyond(tolerance_pct)
    errors = ", ".join(f"{policy} {_signed(comparison.error_pct(policy))}" for policy in comparison.figures)
    yield f"- Mean E2E latency: {errors}. {_within(beyond, tolerance_pct)}"
    if comparison.driver == "realtime" and setup.profile.reference_s is not None:
        yield "- Speed: the profile's seconds are at its reference speed; a realtime run's are as the device took them."
    if comparison.slowness is not None:
        low, mean, high = comparison.slowness
        yield (
            "- Speed: seconds are told at the profile's reference speed. A reference iteration, timed after every "
            f"10 ms of work, took {low:.2f} to {high:.2f} times as long as then (P5 to P95), {mean:.2f} times on "
            "average; measured seconds are divided by that."
        )
    yield f"- {_ranked(comparison)}"
    decisions = sum(found.decisions for found in comparison.replays.values())
    differing = sum(found.differing for found in comparison.replays.values())
    if decisions:
        yield f"- Decisions: {decisions - differing:,} of {decisions:,} are the same when replayed."
    if comparison.schedules_equal:
        unequal = [policy for policy, equal in comparison.schedules_equal.items() if not equal]
        yield "- With the live runs' own seconds, the simulator gives " + (
            f"other tables under {', '.join(unequal)}: the simulator is wrong, or a run failed."
            if unequal
            else "their tables row for row: what error there is comes from the seconds of iterations."
        )
    for policy, runs in comparison.live.runs.items():
        for number, one in enumerate(runs):
            if one.failed:
                reason = one.run.requests["reason"][one.run.requests["status"] == "failed"].iloc[0]
                yield f"- **{policy}, run {number + 1}: {one.failed:,} requests failed: {reason}**"


def _within(beyond: Sequence[str], tolerance_pct: float) -> str:
    if beyond:
        return f"**Beyond the tolerance of {tolerance_pct:g} %: {', '.join(beyond)}.**"
    return f"All within the tolerance of {tolerance_pct:g} %."


def _ranked(comparison: Comparison) -> str:
    alike, apart = comparison.rankings_alike
    if not apart:
        return "Ranking: no two policies differ by more than the noise of the measurement, or it was not repeated."
    return f"Ranking: {alike} of {apart} pairs that differ by more than the noise are predicted in the measured order."


def _latencies(comparison: Comparison) -> Iterator[str]:
    yield (
        "Milliseconds; *measured* is the mean over the runs, *noise* their spread (largest less smallest) in percent "
        "of it."
    )
    yield ""
    rows = [
        (
            policy,
            f"{_METRICS[figure.metric]} {_STATISTICS[figure.statistic]}",
            precise(1e3 * figure.mean),
            precise(1e3 * figure.predicted),
            _signed(figure.error_pct),
            _percent(figure.noise_pct),
        )
        for policy, figures in comparison.figures.items()
        for figure in figures
    ]
    yield from _table(("policy", "figure", "measured", "predicted", "error", "noise"), rows)


def _ranking(comparison: Comparison) -> Iterator[str]:
    yield (
        "How much larger a figure is under the second policy than under the first. Two policies are told apart where "
        "all runs of one lie below all of the other."
    )
    yield ""
    rows = [
        (
            f"{_METRICS[ranking.metric]} {_STATISTICS[ranking.statistic]}",
            f"{ranking.first}, {ranking.second}",
            _signed(ranking.measured_pct),
            _signed(ranking.predicted_pct),
            ("alike" if ranking.alike else "**not alike**") if ranking.told_apart else "within the noise",
        )
        for ranking in comparison.rankings
    ]
    yield from _table(("figure", "policies", "measured", "predicted", "order"), rows)


def _iterations(comparison: Comparison) -> Iterator[str]:
    yield (
        "Seconds of single iterations against the cost model's for the very same batch, from `iterations.parquet`; "
        "*error* is that of their sum, *median* and *mean abs.* are of single ones: where the median is right and the "
        "sum is not, a few iterations were held up. Shapes with too few iterations for a mean are left out here."
    )
    yield ""
    rows = [
        (
            f"{shape.kind}: {shape.shape}" if shape.shape else f"**{shape.kind}**",
            f"{shape.iterations:,}",
            f"{shape.share_pct:.1f} %",
            precise(1e3 * shape.measured_s),
            precise(1e3 * shape.predicted_s),
            _signed(shape.bias_pct),
            _signed(shape.median_pct),
            _percent(shape.mape_pct),
        )
        for shape in comparison.shapes
    ]
    header = ("batch", "iterations", "share of time", "measured, ms", "predicted, ms", "error", "median", "mean abs.")
    yield from _table(header, rows)


def _decisions(comparison: Comparison) -> Iterator[str]:
    yield (
        "What each policy read of its views, and what it decided, was recorded and asked of a fresh policy again: the "
        "instance for every request; what agents and coordinators returned to every stimulus."
    )
    yield ""
    rows = [
        (
            policy,
            f"{found.routed:,}",
            f"{found.stimuli:,}",
            f"{found.instructions:,}",
            f"{found.equal_pct:.10g} %",
        )
        for policy, found in comparison.replays.items()
    ]
    yield from _table(("policy", "requests routed", "stimuli answered", "instructions", "equal"), rows)
    for policy, found in comparison.replays.items():
        if found.first_difference:
            yield f"\n{policy} first differs at {found.first_difference}."


def _migrations(comparison: Comparison) -> Iterator[str]:
    if comparison.driver == "lockstep":
        yield (
            "KV is copied for real; on the clock a copy takes what it would over "
            f"{comparison.setup.cluster.intra.name}. Counts are means per run, times milliseconds."
        )
    else:
        yield "Copies take the time that they take. Counts are means per run, times milliseconds."
    yield ""
    rows = [
        (policy, side, *_migration_cells(figures))
        for policy, sides in comparison.migrations.items()
        for side, figures in zip(("measured", "predicted"), sides, strict=True)
    ]
    header = ("policy", "", "done", "refused", "aborted", "blocks", "duration", "pause", "pause P99")
    yield from _table(header, rows)
    if comparison.copies:
        yield ""
        yield (
            "Copies on the device, alone, from one instance's pages to another's; *equal* are those that arrived bit "
            "for bit, so that the request's next logits are those of one never moved:"
        )
        yield ""
        copies = [
            (
                bucket.blocks,
                f"{bucket.copies:,}",
                f"{bucket.equal:,}",
                precise(bucket.mean_bytes / 1e6),
                precise(1e3 * bucket.median_s),
                precise(bucket.bytes_per_s / 1e9),
            )
            for bucket in comparison.copies
        ]
        yield from _table(("KV blocks", "copies", "equal", "mean MB", "median ms", "GB/s"), copies)


def _migration_cells(figures: MigrationFigures) -> tuple[str, ...]:
    counts = (figures.done, figures.refused, figures.aborted, figures.blocks)
    seconds = (figures.mean_s, figures.pause_mean_s, figures.pause_p99_s)
    return (*map(precise, counts), *(precise(1e3 * value) for value in seconds))


def _provenance(comparison: Comparison, command: str, date: str) -> Iterator[str]:
    setup, trace = comparison.setup, trace_summary(comparison.trace)
    provenance = {name: value for name, value in asdict(setup.profile.provenance).items() if value is not None}
    rows = [
        ("command", f"`{command}`"),
        ("date", date),
        *((f"device: {name}", str(value)) for name, value in comparison.live.device.items()),
        ("versions", f"l4sim {__version__}, Python {platform.python_version()}, NumPy {np.__version__}"),
        ("trace", f"{trace['name']}, {trace['requests']:,} requests, sha256 {trace['sha256']}"),
        ("profile", f"{setup.profile.name}, sha256 {setup.profile.content_hash}"),
        *((f"profile: {name}", str(value)) for name, value in provenance.items()),
        *((f"engine: {name}", str(value)) for name, value in asdict(setup.engine).items()),
        *((f"option: {name}", str(value)) for name, value in asdict(setup.options).items() if value is not None),
    ]
    yield from _table(("", ""), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |"


def _signed(percent: float) -> str:
    return "–" if percent != percent else f"{percent:+.1f} %"


def _percent(percent: float) -> str:
    return "–" if percent != percent else f"{percent:.1f} %"
