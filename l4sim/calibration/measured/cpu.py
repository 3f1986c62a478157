"""Whole iterations on a CPU, where operators take longer than each does alone.

Between other operators, attention finds less of a core's cache to itself than in a loop of attention, and its keys and
values push the layers' weights out of it. So some of attention's coefficients are fitted to whole iterations, together
with the host's part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from l4sim.calibration.fits.errors import BoolArray, FloatArray, errors
from l4sim.calibration.measured.folder import IterationPoint
from l4sim.calibration.measured.operators import InIterations, Iterations, device_s, weighted_median
from l4sim.cost.attention.torch_cpu import CACHED_ELEMENTS, work
from l4sim.cost.host import HostOverhead

_FITTED = ("request_s", "kv_element_s", "displaced_element_s")
_LEAST_DECODES = 2 * (len(_FITTED) + 1)
_LEAST_SIZES = 3


def fit_cpu_iterations(models: Sequence[Iterations], alone: Mapping[str, float]) -> InIterations | None:
    """Fit the coefficients in `_FITTED` and the host's part together, the other ones as attention ``alone`` has them.

    Errors are those of a fit to every other iteration, on those between; the fit itself is to all. None where too few
    decodes tell the parts from one another.
    """
    points = [(point, model) for model in models for point in model.points]
    prompts = np.array([bool(point.batch.prefills) for point, _ in points])
    sizes = np.array([_sizes(point, model) for point, model in points], dtype=np.int64)
    seconds = np.array([point.seconds for point, _ in points])
    known_s = np.array([device_s(*one) for one in points]) - sizes @ np.array([alone[name] for name in _FITTED])
    half = np.arange(len(points)) % 2 == 0
    decodes = sizes[half & ~prompts]
    if len(decodes) < _LEAST_DECODES or min(len(np.unique(column)) for column in decodes.T) < _LEAST_SIZES:
        return None

    def fit(mask: BoolArray) -> tuple[HostOverhead, FloatArray]:
        rest_s = seconds - known_s
        decode_s, *slopes = _relative_nnls(sizes, rest_s, seconds, mask & ~prompts)
        chosen = mask & prompts
        if not chosen.any():
            return HostOverhead(decode_s, decode_s), np.array(slopes)
        prompt_s = weighted_median((rest_s - sizes @ slopes)[chosen], 1 / seconds[chosen])
        return HostOverhead(decode_s, max(0.0, prompt_s)), np.array(slopes)

    def predicted_s(host: HostOverhead, slopes: FloatArray) -> FloatArray:
        return np.asarray(known_s + sizes @ slopes + np.where(prompts, host.prompt_s, host.decode_s))

    held_out = errors(predicted_s(*fit(half))[~half], seconds[~half], flagged=0)
    host, slopes = fit(np.ones_like(half))
    return InIterations(dict(zip(_FITTED, slopes.tolist(), strict=True)), host, held_out)


def _sizes(point: IterationPoint, model: Iterations) -> tuple[int, int, int]:
    """What the coefficients in `_FITTED` are multiplied with, over all layers."""
    requests, elements, *_ = work(point.batch, model.shape)
    return point.layers * requests, point.layers * elements, point.layers * min(elements, CACHED_ELEMENTS)


def _relative_nnls(sizes: NDArray[np.int64], rest_s: FloatArray, seconds: FloatArray, mask: BoolArray) -> list[float]:
    """Seconds of a constant and per unit of each size, none below 0, by least squares of relative errors."""
    from scipy.optimize import nnls

    scale = sizes[mask].max(axis=0)
    terms = np.column_stack([np.ones(mask.sum()), sizes[mask] / scale])
    found, _ = nnls(terms / seconds[mask, None], rest_s[mask] / seconds[mask])
    return [float(found[0]), *(found[1:] / scale).tolist()]
