"""What all pictures share: size, fonts, colours, legend, file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from l4sim.results.run import Run
from l4sim.results.write import unwritable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, distinct under all common kinds of colour vision; its yellow is too faint on white for lines.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
# From Tol's muted scheme, which is as safe; and a grey between the palette's lightnesses.
WINE, GREY = "#882255", "#999999"
# What has no colour of its own takes them in this order: first those that are nobody's, l4's last.
PALETTE = (WINE, GREY, ORANGE, GREEN, SKY, PURPLE, BLACK, BLUE, VERMILION)
KNOWN = {
    "l4": VERMILION,
    "least-harm": ORANGE,
    "llumnix": BLUE,
    "round-robin": BLACK,
    "sglang-0.3": GREEN,
    "two-pools": PURPLE,
    "vllm-dp-0.32": SKY,
}

DPI = 110
WIDTH_IN = 900 / DPI
LEGEND_COLUMNS = 3
LEGEND_ROW_IN = 0.24
# Numbers take more room along the x axis.
_MOST_TICKS = {"x": 5, "y": 8}
_FEWEST_TICKS = 3
_SUBS = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))

RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    # Straight segments that a pixel cannot show are merged.
    "path.simplify_threshold": 0.5,
}


def colours(policies: Sequence[str]) -> dict[str, str]:
    """One colour per policy: a fixed one for known names; the others take the rest of the palette, in order."""
    taken = {KNOWN[policy] for policy in policies if policy in KNOWN}
    free = [colour for colour in PALETTE if colour not in taken] or list(PALETTE)
    others = [policy for policy in dict.fromkeys(policies) if policy not in KNOWN]
    chosen = {policy: free[index % len(free)] for index, policy in enumerate(others)}
    return {policy: KNOWN.get(policy) or chosen[policy] for policy in policies}


def labels(runs: Sequence[Run]) -> dict[str, str]:
    """One legend entry per policy; a policy that did not finish every request says so."""
    texts = {}
    for run in runs:
        unfinished = int((run.requests["status"] != "finished").sum())
        texts[run.policy] = f"{run.policy} ({unfinished:,} unfinished)" if unfinished else run.policy
    return texts


def panels(
    rows: int,
    columns: int,
    row_in: float | Sequence[float],
    *,
    entries: int = 0,
    titled: bool = False,
    gap_in: float = 0.75,
    left_in: float = 0.9,
    right_in: float = 0.3,
    **options: Any,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of README width and its panels, each ``row_in`` inches high, with room for a legend above.

    ``row_in`` is one height or one for each row, ``entries`` is the number of legend entries, ``titled`` leaves room
    for panel titles, ``gap_in`` is the room between columns, ``left_in`` and ``right_in`` are margins; further options
    go to ``Figure.subplots``. The margins are fixed because an automatic layout draws every figure twice.
    """
    from matplotlib.figure import Figure

    top_in = 0.1 + 0.2 * titled + LEGEND_ROW_IN * -(-entries // LEGEND_COLUMNS)
    bottom_in, row_gap_in = 0.5, 0.15 + 0.2 * titled
    heights_in = [row_in] * rows if isinstance(row_in, float) else list(row_in)
    height_in = top_in + bottom_in + sum(heights_in) + (rows - 1) * row_gap_in
    panel_in = (WIDTH_IN - left_in - right_in - (columns - 1) * gap_in) / columns
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI)
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left_in / WIDTH_IN,
            "right": 1 - right_in / WIDTH_IN,
            "bottom": bottom_in / height_in,
            "top": 1 - top_in / height_in,
            "wspace": gap_in / panel_in,
            "hspace": row_gap_in / (sum(heights_in) / rows),
            "height_ratios": heights_in,
        },
        **options,
    )
    return figure, [list(row) for row in axes]


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend for the whole figure, above the panels, where it covers nothing; read row by row."""
    by_column = [handle for column in range(LEGEND_COLUMNS) for handle in handles[column::LEGEND_COLUMNS]]
    figure.legend(handles=by_column, loc="upper center", ncols=LEGEND_COLUMNS, borderaxespad=0.2, columnspacing=1.5)


def log_scale(ax: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers on it: as many of 1, 2 and 5 (or 1 and 3, or 1) times a power of ten
    as have room, and equal steps where the data span too little for that.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    ax.set(**{f"{which}scale": "log"})
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = axis.get_view_interval()
    chosen: LogLocator | MaxNLocator = LogLocator()
    for subs in _SUBS:
        locator = LogLocator(subs=subs, numticks=1000)
        ticks = sum(low <= tick <= high for tick in locator.tick_values(low, high))
        if ticks <= _MOST_TICKS[which]:
            chosen = locator if ticks >= _FEWEST_TICKS else MaxNLocator(_MOST_TICKS[which], steps=[1, 2, 5, 10])
            break
    axis.set_major_locator(chosen)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG; see `png`."""
    path.write_bytes(png(figure))
    return path


def save_all(figures: Iterable[tuple[str, Figure | None]], out_dir: Path) -> list[Path]:
    """Write every picture as PNG under its name; return the files, in their order.

    Where there is no picture, one that an earlier call left is removed. The same pictures give the same bytes.

    Raises:
        InputError: ``out_dir`` cannot be made or written to.
    """
    written = []
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for name, figure in figures:
            path = out_dir / f"{name}.png"
            if figure is None:
                path.unlink(missing_ok=True)
            else:
                written.append(save(figure, path))
    except OSError as error:
        raise unwritable(out_dir, error) from error
    return written


def png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes (no version or time in them)."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    return buffer.getvalue()
