"""Attention kernels held against the reference before a run relies on them."""

from __future__ import annotations

import torch

from l4sim.runtime.executor import ExecutionError
from l4sim.specs.model import Model, uniform_layers
from validate_gpu.live.attention import Attention, TorchAttention
from validate_gpu.live.inputs import PageTable, indptr

# Decodes of one token to several pages beside one long context, then a whole prompt and a later chunk of one.
_CONTEXTS = (1, 16, 17, 300, 2_500, 40, 700)
_QUERIES = (1, 1, 1, 1, 1, 40, 60)

# bf16 keeps 8 bits; outputs of normal inputs are of order 1 at the shortest contexts.
_TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 5e-3, torch.float32: 1e-4}


def check_attention(
    attention: Attention, model: Model, page_tokens: int, device: torch.device, dtype: torch.dtype
) -> None:
    """Compare one mixed batch with float32 PyTorch attention on the same values.

    Raises:
        ExecutionError: an output differs by more than the type's rounding explains, or is not a number.
    """
    page_counts = [-(-context // page_tokens) for context in _CONTEXTS]
    generator = torch.Generator(device).manual_seed(0)
    pages = torch.randperm(sum(page_counts), generator=torch.Generator().manual_seed(0)).int().numpy()
    table = PageTable(
        decodes=_QUERIES.index(40),
        query_indptr=indptr(_QUERIES),
        page_indptr=indptr(page_counts),
        pages=pages,
        context_tokens=torch.tensor(_CONTEXTS, dtype=torch.int32).numpy(),
        page_tokens=page_tokens,
    )
    layer = uniform_layers(model).attention
    kv_shape = (len(pages), page_tokens, layer.kv_heads, layer.head_dim)
    keys, values = (torch.randn(kv_shape, generator=generator, device=device).to(dtype) for _ in range(2))
    queries = torch.randn(sum(_QUERIES), layer.heads, layer.head_dim, generator=generator, device=device).to(dtype)
    reference = TorchAttention()
    attention.plan(table)
    reference.plan(table)
    got = attention.run(queries, keys, values).float()
    difference = (got - reference.run(queries.float(), keys.float(), values.float())).abs().max().item()
    # Written so that NaN fails too.
    if not difference <= _TOLERANCE[dtype]:
        raise ExecutionError(
            f"{type(attention).__name__} fails its check against float32: outputs differ by up to {difference:.3g}, "
            f"accepted is {_TOLERANCE[dtype]}"
        )
