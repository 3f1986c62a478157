"""``l4sim profile show --penalty``: what unequal lengths cost, predicted and, where there are points, measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import click

from l4sim.calibration.penalties.measured import MeasuredPenalty, within
from l4sim.calibration.penalties.predicted import BATCHES, MEAN_TOKENS, SKEWS, Penalty
from l4sim.cli.profile_report import print_table
from l4sim.cost.profile import Profile
from l4sim.specs.model import Model

# Around 33 requests on tensor cores and 132 (148 in groups of 3) on CUDA cores, where 8 KV heads stop being split.
_RANGES = ((2, 32), (33, 64), (65, 131), (132, 512))
_PATTERNS = {"bimodal": "1 in 8 is long", "lognormal": "lognormal", "one-long": "one has half"}


def print_penalty(cells: Sequence[Penalty], shown: Profile, model: Model) -> None:
    """Ratios by kernel, lengths and batch, and what each kernel's rest on."""
    click.echo(
        f"Attention of {model.name} on {shown.name}: a decode batch's time over that of as many requests of equal\n"
        f"lengths with the same tokens in all, {MEAN_TOKENS:,} each on average; by requests in the batch\n"
    )
    kinds = dict.fromkeys(cell.layers for cell in cells)
    for kind in kinds:
        own = [cell for cell in cells if cell.layers == kind]
        if len(kinds) > 1:
            click.echo(f"\nLayers of {kind}:")
        ratios: dict[tuple[str, str], list[str]] = {}
        for cell in own:
            ratios.setdefault((cell.kernel, cell.skew), []).append(f"{cell.ratio:.2f}")
        print_table(("kernel", "lengths", *map(str, BATCHES)), [(*names, *row) for names, row in ratios.items()])
        for kernel, basis in {cell.kernel: cell.basis for cell in own}.items():
            click.echo(f"{kernel}: {basis}")
    absent = [kernel for kernel in shown.kernels if kernel not in {cell.kernel for cell in cells}]
    if absent:
        click.echo(f"not shown, as they do not run such layers: {', '.join(absent)}")


def print_measured(penalties: Sequence[MeasuredPenalty], shown: Profile) -> None:
    """Medians of measured and predicted ratios by kernel, pattern and requests, and how far single ones are apart."""
    tokens = [penalty.total_tokens for penalty in penalties]
    click.echo(
        f"\nMeasured on {shown.name}: {len(penalties):,} pairs of batches, {min(tokens):,} to {max(tokens):,} tokens; "
        "median ratio measured\nand predicted, by requests; one in eight 16 times as long, lognormal with sigma 1, one "
        "with half\nof all tokens\n"
    )
    rows = []
    for kernel, own in _by_kernel(penalties).items():
        rows.append((kernel, *[""] * (len(_RANGES) + 1)))
        for pattern, name in _PATTERNS.items():
            chosen = [penalty for penalty in own if penalty.pattern == pattern]
            if not chosen:
                continue
            error = statistics.fmean(abs(penalty.predicted / penalty.measured - 1) for penalty in chosen)
            cells = [_medians(within(chosen, *bounds)) for bounds in _RANGES]
            rows.append((f"  {name}", *cells, f"{100 * error:.1f} %"))
    print_table(("lengths", *(f"{least}-{most}" for least, most in _RANGES), "MAPE"), rows)


def _medians(penalties: Sequence[MeasuredPenalty]) -> str:
    if not penalties:
        return ""
    measured, predicted = (
        statistics.median(getattr(penalty, side) for penalty in penalties) for side in ("measured", "predicted")
    )
    return f"{measured:.2f} {predicted:.2f}"


def _by_kernel(penalties: Sequence[MeasuredPenalty]) -> dict[str, list[MeasuredPenalty]]:
    kernels = dict.fromkeys(penalty.kernel for penalty in penalties)
    return {kernel: [penalty for penalty in penalties if penalty.kernel == kernel] for kernel in kernels}


def draw_penalty(cells: Sequence[Penalty], shown: Profile, model: Model, out: Path) -> Path:
    """The ratios over requests in the batch: a panel for each way to share out tokens, a line for each kernel."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from l4sim.results.plots.style import PALETTE, RC, log_scale, save

    out.mkdir(parents=True, exist_ok=True)
    lines = list(dict.fromkeys((cell.layers, cell.kernel) for cell in cells))
    several = len({layers for layers, _ in lines}) > 1
    with mpl.rc_context(RC):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        panels = figure.subplots(1, len(SKEWS), sharey=True)
        for axes, skew in zip(panels, SKEWS, strict=True):
            for (layers, kernel), colour in zip(lines, cycle(PALETTE)):
                own = [cell for cell in cells if (cell.layers, cell.kernel, cell.skew) == (layers, kernel, skew.name)]
                label = f"{kernel}, {layers}" if several else kernel
                axes.plot(BATCHES, [cell.ratio for cell in own], marker="o", color=colour, label=label)
            log_scale(axes, "x")
            log_scale(axes, "y")
            axes.set(title=skew.name, xlabel="decoding requests")
        panels[0].set_ylabel("time over that of equal lengths")
        panels[0].legend()
        figure.suptitle(f"Attention of {model.name} on {shown.name}: what unequal lengths cost at equal tokens")
        return save(figure, out / "penalty.png")


def draw_measured(penalties: Sequence[MeasuredPenalty], shown: Profile, out: Path) -> Path:
    """Every measured ratio over its batch's requests, coloured by its tokens, and a cross where it is predicted."""
    import matplotlib as mpl
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    from l4sim.results.plots.style import RC, log_scale, save

    out.mkdir(parents=True, exist_ok=True)
    kernels = _by_kernel(penalties)
    with mpl.rc_context(RC):
        figure = Figure(figsize=(10, 7), layout="constrained")
        grid = figure.subplots(len(_PATTERNS), len(kernels), sharex=True, sharey=True, squeeze=False)
        tokens = [penalty.total_tokens for penalty in penalties]
        norm = LogNorm(min(tokens), max(tokens))
        for column, (kernel, own) in enumerate(kernels.items()):
            for row, (pattern, name) in enumerate(_PATTERNS.items()):
                axes = grid[row][column]
                chosen = [penalty for penalty in own if penalty.pattern == pattern]
                requests = [penalty.requests for penalty in chosen]
                points = axes.scatter(
                    requests,
                    [penalty.measured for penalty in chosen],
                    c=[penalty.total_tokens for penalty in chosen],
                    norm=norm,
                    cmap="viridis",
                    s=22,
                )
                predicted = [penalty.predicted for penalty in chosen]
                axes.scatter(requests, predicted, marker="x", color="black", s=16, linewidths=0.8)
                log_scale(axes, "x")
                log_scale(axes, "y")
                if row == 0:
                    axes.set_title(kernel)
                if column == 0:
                    axes.set_ylabel(name)
                if row == len(_PATTERNS) - 1:
                    axes.set_xlabel("decoding requests")
        figure.supylabel("time over that of equal lengths")
        bar = figure.colorbar(points, ax=grid, shrink=0.6)
        bar.set_label("tokens in the batch")
        figure.suptitle(f"What unequal lengths cost on {shown.name}: dots measured, crosses predicted from the split")
        return save(figure, out / "penalty-measured.png")
