import pytest
import torch
from torch.nn.functional import linear, silu

from tests.validate_gpu.live.small import ATTENTION, CPU, MLP, MODEL, page_table, transformer
from validate_gpu.live.attention import TorchAttention
from validate_gpu.live.kv import KvMemory
from validate_gpu.live.model import Transformer

TOKENS = torch.tensor([5, 90, 17, 17, 3, 61, 44, 8, 29, 71, 2])


def dense_logits(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    """The last token's logits, with neither pages nor chunks, rotation by complex numbers, in float64."""
    count = len(tokens)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)

    def rotate(x: torch.Tensor) -> torch.Tensor:
        half = ATTENTION.head_dim // 2
        turns = torch.polar(
            torch.ones(count, half, dtype=torch.float64),
            torch.arange(count, dtype=torch.float64)[:, None] / 10_000 ** (torch.arange(half) / half).double(),
        )
        turned = torch.complex(x[..., :half], x[..., half:]) * turns[:, None]
        return torch.cat([turned.real, turned.imag], -1)

    hidden = model._embedding.double()[tokens]
    for layer in model._layers:
        heads = linear(norm(hidden), layer.qkv.double()).reshape(count, 8, ATTENTION.head_dim)
        queries, keys, values = rotate(heads[:, :4]), rotate(heads[:, 4:6]), heads[:, 6:]
        keys, values = keys.repeat_interleave(2, 1), values.repeat_interleave(2, 1)
        scores = torch.einsum("qhd,khd->hqk", queries, keys) / ATTENTION.head_dim**0.5
        scores += torch.full((count, count), -torch.inf, dtype=torch.float64).triu(1)
        attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).reshape(count, -1)
        hidden = hidden + linear(attended, layer.attention_out.double())
        gate_up = linear(norm(hidden), layer.gate_up.double())
        gate, up = gate_up[:, : MLP.intermediate], gate_up[:, MLP.intermediate :]
        hidden = hidden + linear(silu(gate) * up, layer.down.double())
    return linear(norm(hidden[-1]), model._head.double())


def run(model: Transformer, kv: KvMemory, pages: list[int], start: int, end: int) -> torch.Tensor:
    """The last row's logits of one pass over tokens ``[start, end)`` of a request with these pages."""
    attention = TorchAttention()
    attention.plan(page_table([pages], [end], [end - start], page_tokens=4))
    positions = torch.arange(start, end)
    slots = torch.tensor(pages)[positions // 4] * 4 + positions % 4
    return model.forward(TOKENS[start:end], positions, slots, torch.tensor([end - start - 1]), kv, attention)[0]


@pytest.mark.slow
def test_a_prompt_in_chunks_then_a_decode_give_the_dense_models_logits():
    model = transformer()
    kv = KvMemory(MODEL, 8, 4, CPU, torch.float32)
    pages = [6, 0, 3]
    for start, end in ((0, 3), (3, 9), (9, 10)):
        logits = run(model, kv, pages, start, end)
        expected = dense_logits(model, TOKENS[:end])
        torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)
    decoded = run(model, kv, pages, 10, 11)
    torch.testing.assert_close(decoded.double(), dense_logits(model, TOKENS), rtol=1e-4, atol=1e-4)


def test_weights_come_from_the_seed():
    assert torch.equal(transformer(seed=3)._head, transformer(seed=3)._head)
    assert not torch.equal(transformer(seed=3)._head, transformer(seed=4)._head)


def test_activations_keep_their_size_through_the_layers():
    model = transformer()
    kv = KvMemory(MODEL, 8, 4, CPU, torch.float32)
    assert 0.1 < run(model, kv, [0, 1, 2], 0, 11).std() < 10
