"""The messages that move a request from one process to another.

The source asks for room (`Reserve`), copies what there is (`Kv`, once per stage), lets the request leave its batch, and
hands over the rest with the request itself (`Handoff`). The destination may refuse each of these; until the handoff the
source may call it off (`Cancel`). Messages between two processes keep their order.
"""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import numpy as np
import torch.multiprocessing  # noqa: F401  lets a tensor on a GPU be sent as a handle to its memory
from torch import Tensor

from l4sim.engine.request import Request

Payload = Tensor | np.ndarray[Any, np.dtype[Any]]
"""KV of some tokens, ``[2, layers, n, kv_heads, head_dim]``: on a GPU a handle, which the destination copies from peer
memory; on a CPU the bytes themselves."""


class Reserve(NamedTuple):
    """Source to destination: may a request with so many blocks come?"""

    request: int
    blocks: int


class Reserved(NamedTuple):
    """Destination to source: it may, unless there is a reason against it."""

    request: int
    objection: str


class Kv(NamedTuple):
    """Source to destination: the KV of tokens ``[start, end)``, with room to be made for ``grow_to`` tokens."""

    request: int
    start: int
    end: int
    grow_to: int
    payload: Payload


class Copied(NamedTuple):
    """Destination to source: a stage's KV is there; not ``ok``: there is no more room."""

    request: int
    ok: bool


class Handoff(NamedTuple):
    """Source to destination: the request, which has left the source's batch, and what is left of its KV."""

    request: Request
    sampled: array[int]
    start: int
    end: int
    payload: Payload


class Arrived(NamedTuple):
    """Destination to source: the request decodes there; not ``ok``: there is no more room."""

    request: int
    ok: bool


class Cancel(NamedTuple):
    """Source to destination: the request has ended or was preempted, or the stages did not converge."""

    request: int


class Cancelled(NamedTuple):
    """Destination to source: nothing of the request is left there, and no earlier answer is on its way."""

    request: int


class Forward(NamedTuple):
    """Source to destination: a request that has not begun, and has no KV."""

    request: Request
