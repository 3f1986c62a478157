import math

import pytest
import torch

from tests.validate_gpu.live.small import page_table
from validate_gpu.live.attention import TorchAttention


def one_query(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, group: int) -> torch.Tensor:
    """Softmax attention of one query token written out: ``[heads, d]`` over ``[n, kv_heads, d]``, in float64."""
    out = torch.empty_like(query, dtype=torch.float64)
    for head in range(query.shape[0]):
        own_keys, own_values = keys[:, head // group].double(), values[:, head // group].double()
        weights = torch.exp(own_keys @ query[head].double() / math.sqrt(query.shape[1]))
        out[head] = (weights[:, None] * own_values).sum(0) / weights.sum()
    return out


@pytest.mark.slow
def test_decodes_and_a_chunk_attend_causally_to_their_own_pages():
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(7, 4, 2, 16, generator=generator) for _ in range(2))
    queries = torch.randn(1 + 1 + 3, 4, 16, generator=generator)
    pages, contexts = [[6, 1], [0], [2, 5, 3]], [7, 2, 10]
    attention = TorchAttention()
    attention.plan(page_table(pages, contexts, [1, 1, 3], page_tokens=4))
    got = attention.run(queries, keys, values)

    # The chunk's three queries are tokens 8, 9 and 10 of its request.
    seen = [(0, 7), (1, 2), (2, 8), (2, 9), (2, 10)]
    for row, (request, context) in enumerate(seen):
        own_keys, own_values = (part[pages[request]].flatten(0, 1)[:context] for part in (keys, values))
        expected = one_query(queries[row], own_keys, own_values, group=2)
        torch.testing.assert_close(got[row].double(), expected, rtol=1e-5, atol=1e-6)
