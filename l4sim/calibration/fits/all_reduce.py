"""All-reduces as curves over bytes, and links as latency and bandwidth, fitted to measured messages."""

from __future__ import annotations

import numpy as np

from l4sim.calibration.fits.curves import thinned_curve
from l4sim.calibration.fits.errors import Errors, FloatArray, errors
from l4sim.cost.communication import AllReduceTable, latencies, over_link, sent_share
from l4sim.cost.curve import OverBytes
from l4sim.specs.link import Link

_TOLERANCE = 0.03


def fit_all_reduce(size_bytes: FloatArray, seconds: FloatArray, flagged: int = 0) -> tuple[OverBytes, Errors]:
    """A curve through few of the messages, within 3 % of all, and errors of each, predicted from the others.

    Both are of shape ``[messages]``, three or more, sizes ascending; ``flagged`` ones were left out.
    """
    curve = thinned_curve(OverBytes, size_bytes, seconds, _TOLERANCE)
    between = np.arange(1, len(size_bytes) - 1)
    predicted = [
        thinned_curve(OverBytes, np.delete(size_bytes, row), np.delete(seconds, row), _TOLERANCE).at(size_bytes[row])
        for row in between
    ]
    return curve, errors(np.array(predicted), seconds[between], flagged)


def fit_link(name: str, table: AllReduceTable) -> Link:
    """The link over which `over_link`'s all-reduce comes nearest to a measured one, by relative least squares."""
    from scipy.optimize import nnls

    size_bytes, seconds = _messages(table)
    scale = size_bytes.max()
    terms = np.stack([np.ones_like(size_bytes), sent_share(table.gpus) * size_bytes / scale], axis=1)
    (latency_s, scaled_s), _ = nnls(terms / seconds[:, None], np.ones(len(seconds)))
    bytes_per_s = float(scale / scaled_s)
    return Link(name, bytes_per_s, float(latency_s) / latencies(table.gpus, Link(name, bytes_per_s, 0.0)))


def link_errors(link: Link, table: AllReduceTable) -> Errors:
    """Errors of `over_link` against a measured all-reduce."""
    size_bytes, seconds = _messages(table)
    return errors(over_link(table.gpus, link).captured.at(size_bytes), seconds, flagged=0)


def _messages(table: AllReduceTable) -> tuple[FloatArray, FloatArray]:
    """Bytes and seconds of messages of every power of two that a table reaches: its knots alone are unevenly spread."""
    first, last = np.ceil(np.log2(table.curve.sizes[0])), np.floor(np.log2(table.curve.sizes[-1]))
    size_bytes = 2.0 ** np.arange(first, last + 1)
    return size_bytes, table.curve.at(size_bytes)
