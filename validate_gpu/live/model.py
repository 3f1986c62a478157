"""A Llama-like transformer with random weights: the shape of a real model, and the time that it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, silu

from l4sim.specs.model import Model
from validate_gpu.live.attention import Attention
from validate_gpu.live.kv import KvMemory

# Neither changes any time; the values are Llama 2's.
_ROPE_BASE = 10_000.0
_NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Tensor
    qkv: Tensor
    attention_out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Transformer:
    """Weights on a device, shared by all instances there, and the forward pass over any instance's KV."""

    def __init__(
        self, model: Model, *, max_model_len: int, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        generator = torch.Generator(device).manual_seed(seed)

        def weights(rows: int, columns: int) -> Tensor:
            # Of a spread that keeps a normalised input's variance, so that no layer over- or underflows.
            matrix = torch.empty(rows, columns, device=device, dtype=dtype)
            return matrix.normal_(0.0, columns**-0.5, generator=generator)

        def ones() -> Tensor:
            return torch.ones(model.hidden, device=device, dtype=dtype)

        query_width, kv_width = model.heads * model.head_dim, model.kv_heads * model.head_dim
        self._embedding = weights(model.vocab, model.hidden)
        self._layers = [
            _Layer(
                attention_norm=ones(),
                qkv=weights(query_width + 2 * kv_width, model.hidden),
                attention_out=weights(model.hidden, query_width),
                mlp_norm=ones(),
                gate_up=weights(2 * model.intermediate, model.hidden),
                down=weights(model.hidden, model.intermediate),
            )
            for _ in range(model.layers)
        ]
        self._final_norm = ones()
        self._head = self._embedding if model.tie_embeddings else weights(model.vocab, model.hidden)
        self._cos, self._sin = _rotations(max_model_len, model.head_dim, device)

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        sample_rows: Tensor | None,
        kv: KvMemory,
        attention: Attention,
    ) -> Tensor:
        """Logits of the rows to sample, shape ``[samples, vocab]``; None samples every row.

        ``token_ids``, ``positions`` and ``slots`` have the shape ``[t]``; the KV of all ``t`` tokens is stored.
        ``attention`` has been planned for this batch.
        """
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        hidden = embedding(token_ids, self._embedding)
        for number, layer in enumerate(self._layers):
            normed = rms_norm(hidden, hidden.shape[-1:], layer.attention_norm, _NORM_EPS)
            hidden = hidden + self._attend(number, layer, normed, cos, sin, slots, kv, attention)
            normed = rms_norm(hidden, hidden.shape[-1:], layer.mlp_norm, _NORM_EPS)
            gate, up = linear(normed, layer.gate_up).chunk(2, dim=-1)
            hidden = hidden + linear(silu(gate) * up, layer.down)
        if sample_rows is not None:
            hidden = hidden[sample_rows]
        return linear(rms_norm(hidden, hidden.shape[-1:], self._final_norm, _NORM_EPS), self._head)

    def _attend(
        self,
        number: int,
        layer: _Layer,
        normed: Tensor,
        cos: Tensor,
        sin: Tensor,
        slots: Tensor,
        kv: KvMemory,
        attention: Attention,
    ) -> Tensor:
        model = self.model
        heads = linear(normed, layer.qkv).view(-1, model.heads + 2 * model.kv_heads, model.head_dim)
        queries, keys, values = heads.tensor_split([model.heads, model.heads + model.kv_heads], dim=1)
        kv.write(number, slots, _rotate(keys, cos, sin), values)
        attended = attention.run(_rotate(queries, cos, sin), kv.keys[number], kv.values[number])
        return linear(attended.flatten(1), layer.attention_out)


def _rotations(max_tokens: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, shape ``[max_tokens, head_dim / 2]``, float32."""
    frequencies = _ROPE_BASE ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim)
    angles = torch.arange(max_tokens, device=device, dtype=torch.float64).outer(frequencies)
    return angles.cos().float(), angles.sin().float()


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``[t, n, head_dim]``, halves paired as Llama's checkpoints have them."""
    first, second = heads.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(heads.dtype)
