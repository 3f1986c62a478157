"""A point made runnable on a device: launches to time, and a check of their result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from validate_gpu.measure.timing import Launch

# bf16 keeps 8 bits: a row's largest outputs, some four times its root mean square, are off by 2 % of that.
_TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.02, torch.float32: 2e-3}


class CheckFailedError(Exception):
    """A kernel's result is not what float32 gives."""


@dataclass(frozen=True, slots=True)
class Work:
    """One operator, ready to run on one or more copies of its data."""

    launches: Sequence[Launch]
    """Together they run through more data than caches hold."""
    error: Callable[[Tensor], float]
    """How far the first launch's result is from the reference; NaN where it is not a number."""


def row_error(got: Tensor, reference: Tensor) -> float:
    """The largest difference in a row over the root mean square of the reference's row; both ``[rows, ...]``."""
    got, reference = got.float().flatten(1), reference.float().flatten(1)
    scale = reference.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-12)
    return float(((got - reference).abs() / scale).max())


def finite(got: Tensor) -> float:
    """0 if a result has nothing but numbers in it, NaN otherwise."""
    return 0.0 if bool(torch.isfinite(got).all()) else float("nan")


def check(error: float, dtype: torch.dtype) -> None:
    """Refuse a result that differs by more than its type's rounding explains.

    Raises:
        CheckFailedError: it does, or is not a number.
    """
    # Written so that NaN fails too.
    if not error <= _TOLERANCE[dtype]:
        raise CheckFailedError(
            f"the result differs from float32 by {error:.3g} of its row's root mean square, accepted is "
            f"{_TOLERANCE[dtype]}"
        )


def copies(size_bytes: float, cold_bytes: float, most: int) -> int:
    """How many copies of some data are needed, so that each has left the caches before it is used again."""
    return max(1, min(most, -(-int(cold_bytes) // max(int(size_bytes), 1))))
