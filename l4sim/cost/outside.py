"""Cost models from outside the package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from l4sim.cost.model import CostModel
from l4sim.cost.profile import Profile
from l4sim.errors import InputError
from l4sim.plugins import find
from l4sim.specs.model import Model

GROUP = "l4sim.costs"
"""Where other packages offer cost models of theirs, as entry points."""


def outside_cost(
    name: str,
    bundled: Iterable[str],
    profile: Profile,
    model: Model,
    *,
    tensor_parallel: int,
    kernel: str,
    max_num_batched_tokens: int,
    max_num_seqs: int,
) -> CostModel:
    """The cost model that another package's builder makes, which takes the arguments from ``profile`` on.

    Raises:
        InputError: there is no such builder beside the ``bundled`` ones (see `l4sim.plugins.find`), or it makes
            something else.
    """
    build: Any = find(GROUP, name, dict.fromkeys(bundled))
    if not callable(build):
        raise InputError(f"cost model '{name}' is a {type(build).__name__}: accepted is a function that builds one")
    made: CostModel = build(
        profile,
        model,
        tensor_parallel=tensor_parallel,
        kernel=kernel,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
    )
    for method in ("iteration_s", "decode_segment_s"):
        if not callable(getattr(made, method, None)):
            raise InputError(f"cost model '{name}': its builder made a {type(made).__name__}, which has no {method}")
    return made
