"""Showing a picture in a notebook, or by `pyplot.show`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from l4sim.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def shown_axes(draw: Callable[[], Figure | None], nothing: str) -> list[Axes]:
    """The axes of a figure, which pyplot shows at the end of a notebook's cell, or at ``pyplot.show()``.

    Raises:
        InputError: there is no figure; ``nothing`` says why.
    """
    import matplotlib as mpl
    from matplotlib import pyplot

    from l4sim.results.plots.style import RC

    with mpl.rc_context(RC):
        figure = draw()
        if figure is None:
            raise InputError(f"nothing to draw: {nothing}")
    # Outside the context, which would end a notebook's interactive mode: that begins with the first figure. (Handing an
    # existing figure to pyplot is new in matplotlib 3.11.)
    pyplot.figure(figure)
    return figure.axes
