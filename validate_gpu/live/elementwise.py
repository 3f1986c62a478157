"""The operators between matrix products: PyTorch's own, or compiled into few kernels, as serving engines have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

# Changes no time; the value is Llama 2's.
_NORM_EPS = 1e-5


def norm(rows: Tensor, weight: Tensor) -> Tensor:
    """Root mean square norm of ``[t, hidden]``."""
    return rms_norm(rows, rows.shape[-1:], weight, _NORM_EPS)


def add_norm(residual: Tensor, update: Tensor, weight: Tensor) -> Tensor:
    """Add to the residual, in place, and norm the sum; ``[t, hidden]``."""
    residual.add_(update)
    return norm(residual, weight)


def gate(gate_up: Tensor) -> Tensor:
    """SwiGLU of ``[t, 2 * intermediate]``, shape ``[t, intermediate]``."""
    gated, up = gate_up.chunk(2, dim=-1)
    return silu(gated) * up


def rotate_and_store(
    heads: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, keys: Tensor, values: Tensor, queries: Tensor
) -> None:
    """Rotate queries and keys; put queries into ``queries``, keys and values into their slots.

    ``heads`` ``[t, heads + 2 * kv_heads, head_dim]``, ``cos`` and ``sin`` ``[t, 1, head_dim / 2]``, ``keys`` and
    ``values`` ``[slots, kv_heads, head_dim]``.
    """
    kv_heads = keys.shape[1]
    count = heads.shape[1] - 2 * kv_heads
    queries.copy_(_rotate(heads[:, :count], cos, sin))
    keys.index_copy_(0, slots, _rotate(heads[:, count : count + kv_heads], cos, sin))
    values.index_copy_(0, slots, heads[:, count + kv_heads :])


@dataclass(frozen=True, slots=True)
class Elementwise:
    """One implementation of each."""

    add_norm: Callable[[Tensor, Tensor, Tensor], Tensor] = add_norm
    gate: Callable[[Tensor], Tensor] = gate
    rotate_and_store: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], None] = rotate_and_store


def elementwise_on(device: torch.device) -> Elementwise:
    """On a GPU, compiled: a kernel or two each, where PyTorch launches up to ten."""
    if device.type != "cuda":
        return Elementwise()
    return Elementwise(torch.compile(add_norm), torch.compile(gate), torch.compile(rotate_and_store))


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``[t, n, head_dim]``, halves paired as Llama's checkpoints have them."""
    first, second = heads.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(heads.dtype)
