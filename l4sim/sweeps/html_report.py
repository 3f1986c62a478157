"""A sweep as one HTML file: the question, the answer, and how far it can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from l4sim.cost.basis import basis_of
from l4sim.cost.communication import AllReduce
from l4sim.cost.profile import Profile, load_profile
from l4sim.errors import InputError
from l4sim.experiment import Options
from l4sim.experiment.resolving import all_reduce_for, profiles_of
from l4sim.results.html import (
    Cell,
    Section,
    folded,
    paragraph,
    picture,
    profile_parts,
    remark,
    table,
    write_page,
)
from l4sim.specs.model import load_model
from l4sim.sweeps.caveats import failures, short_runs, unfinished
from l4sim.sweeps.columns import COLUMNS, figure_text, setting_text
from l4sim.sweeps.pictures import SweepPlots
from l4sim.sweeps.points import Value
from l4sim.sweeps.tables import SweepTables

_CAPTIONS = {
    "latency": "Latency against what was varied; intervals are 95 % over seeds",
    "goodput": "Requests per second within the SLO",
    "slo_attainment": "Share of requests within a multiple of the SLO",
    "capacity": "What each policy carries within the SLO",
}
_QUESTIONS = {
    None: "How do {policies} compare{varied}?",
    "rate": "What is the highest arrival rate at which {policies} meet {slo}{varied}?",
    "instances": "With how few instances do {policies} meet {slo}{varied}?",
}
# What the best policy has, the column that says so, and whether more of it is better.
_ANSWERS = {
    None: ("Lowest mean normalized latency", "normalized_latency_mean_s", False),
    "rate": ("Highest arrival rate", "rate_per_s", True),
    "instances": ("Fewest instances", "instances", False),
}
_MOST_VALUES = 6


def write_report(path: Path, tables: SweepTables) -> Path:
    """Write the sweep as one self-contained HTML file, images included. The same tables give the same bytes.

    Raises:
        InputError: it cannot be written.
    """
    policies = [str(policy) for policy in tables.axes["policy"]]
    kind = "Sweep" if tables.search is None else "Capacity"
    lead = [
        paragraph(_question(tables)),
        paragraph(_answer(tables), "answer") if len(policies) > 1 else "",
        *(paragraph(line, "warning") for line in (*failures(tables), *unfinished(tables), *short_runs(tables))),
    ]
    sections = [
        Section("Figures", tuple(_figures(tables))),
        Section("Pictures", tuple(_pictures(tables))),
        Section("How far the figures can be trusted", tuple(_trust(tables))),
        Section("Configuration", tuple(_configuration(tables))),
    ]
    return write_page(path, f"{kind}: {_listed(policies)}, {len(tables.points):,} simulations", lead, sections)


def _question(tables: SweepTables) -> str:
    varied = [
        f"{name} ({_values(values)})"
        for name, values in tables.axes.items()
        if name not in ("policy", "seed") and len(values) > 1
    ]
    return _QUESTIONS[tables.search].format(
        policies=_listed([str(policy) for policy in tables.axes["policy"]]),
        slo="" if tables.slo is None else tables.slo.description,
        varied=f" over {_listed(varied)}" if varied else "",
    )


def _answer(tables: SweepTables) -> str:
    """Which policy is best in how many combinations of the settings that were varied."""
    name, figure, most = _ANSWERS[tables.search]
    found = tables.answers[tables.found]
    rows = found.dropna(subset=[figure]) if len(found) else found
    others = [setting for setting in tables.varied() if setting not in ("policy", figure)]
    parts = [part for _, part in rows.groupby(others, sort=False, dropna=False)] if others else [rows]
    compared = [part for part in parts if len(part) > 1]
    if not compared:
        return "Nothing to compare: no combination has figures of two policies."
    best = Counter(
        policy
        for part in compared
        for policy in part.loc[part[figure] == (part[figure].max() if most else part[figure].min()), "policy"]
    )
    shares = [f"{policy} in {count:,} of {len(compared):,}" for policy, count in best.most_common()]
    return f"{name}: {', '.join(shares)} combinations." if len(parts) > 1 else f"{name}: {_listed(list(best))}."


def _figures(tables: SweepTables) -> Iterator[str]:
    settings, rows = tables.varied(), tables.answers
    columns = [column for column in COLUMNS if column.figure in rows]
    body: list[list[Cell]] = [
        [*(setting_text(row[name]) for name in settings), *(figure_text(row, column) for column in columns)]
        for row in rows.to_dict("records")
    ]
    yield table((*settings, *(column.name for column in columns)), body, "stacked")
    yield remark("norm.: E2E / output tokens. USD: for the output tokens, over the makespan.")
    seeds = len(tables.axes.get("seed", ("one",)))
    if tables.search is not None:
        which = f", of the first of {seeds} seeds; the SLO is met with each of them" if seeds > 1 else ""
        yield remark(f"Figures at the capacity{which}.")
    elif seeds > 1:
        yield remark(f"±: half the 95 % confidence interval of the mean over {seeds} seeds.")
    else:
        yield remark("One seed: nothing here tells how much of a difference is chance.")


def _pictures(tables: SweepTables) -> Iterator[str]:
    try:
        for name, figure in SweepPlots(tables).figures():
            if figure is not None:
                yield picture(figure, _CAPTIONS[name])
    except InputError as error:
        yield paragraph(f"No pictures: {error}")


def _trust(tables: SweepTables) -> Iterator[str]:
    default = Options()
    for name, kernel in product(_profiles(tables), tables.axes.get("kernel", [default.kernel])):
        # What does not exist has made its points fail, which the warnings above say.
        try:
            profile = load_profile(str(name))
        except InputError:
            continue
        chosen = str(kernel or profile.default_kernel)
        if chosen in profile.kernels:
            used = dict(_bases(tables, profile, chosen))
            yield from profile_parts(profile, chosen, "; or ".join(used), [one for one in used.values() if one])
    yield remark(
        "A trace ends: figures at rates beyond what a cluster can sustain depend on how long it is, and so does a "
        "capacity if queues have no time to grow."
    )


def _bases(tables: SweepTables, profile: Profile, kernel: str) -> Iterator[tuple[str, AllReduce | None]]:
    """What the seconds of every model and number of GPUs per instance rest on, and the all-reduces among them."""
    default = Options()
    axes = ("model", "tensor_parallel", "engine_rules", "intra_link")
    for name, gpus, rules, link in product(*(tables.axes.get(axis, [getattr(default, axis)]) for axis in axes)):
        options = replace(default, tensor_parallel=int(gpus), engine_rules=str(rules), intra_link=link)
        # What does not exist has made its points fail here too.
        with suppress(InputError):
            all_reduce = all_reduce_for(options, profile)
            yield basis_of(profile, load_model(str(name)), kernel, int(gpus), all_reduce), all_reduce


def _profiles(tables: SweepTables) -> Iterator[str]:
    """The names of the profiles that points ran with, those of fleets included."""
    default = Options()
    fleets = tables.axes.get("fleet", [None])
    if None in fleets:
        yield from map(str, tables.axes.get("profile", [default.profile]))
    for fleet in fleets:
        if fleet is not None:
            yield from profiles_of(replace(default, fleet=str(fleet)))


def _configuration(tables: SweepTables) -> Iterator[str]:
    given = [(name, _values(values)) for name, values in tables.axes.items()]
    asked = (
        ("SLO", None if tables.slo is None else tables.slo.text),
        ("search", tables.search),
        ("price per GPU-hour (USD)", tables.price_usd_per_gpu_hour),
    )
    given += [(name, _text(value)) for name, value in asked if value is not None]
    yield table(("setting", "values"), given, "plain")
    left = [
        (field.name, str(field.default))
        for field in fields(Options)
        if field.name not in tables.axes and field.name != tables.searched
    ]
    yield folded("Every other setting, at its default", table(("setting", "value"), left, "plain"))


def _values(values: Sequence[Value]) -> str:
    if len(values) <= _MOST_VALUES:
        return ", ".join(map(_text, values))
    return f"{', '.join(map(_text, values[:2]))}, … {_text(values[-1])}: {len(values)} values"


def _text(value: Any) -> str:
    return f"{value:,.10g}" if isinstance(value, float) else str(value)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
