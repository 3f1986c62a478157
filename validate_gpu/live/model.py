"""A Llama-like transformer with random weights: the shape of a real model, and the time that it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear

from l4sim.specs.model import Model, uniform_layers
from validate_gpu.live.attention import Attention
from validate_gpu.live.elementwise import Elementwise, norm
from validate_gpu.live.kv import KvMemory

# Changes no time; the value is Llama 2's.
_ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Tensor
    qkv: Tensor
    attention_out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """A step's state between its pieces, one row per token: every piece reads and overwrites it."""

    residual: Tensor
    """Shape ``[t, hidden]``."""
    cos: Tensor
    """Shape ``[t, 1, head_dim / 2]``, float32."""
    sin: Tensor
    """Likewise."""
    queries: Tensor
    """Shape ``[t, heads, head_dim]``: what the next layer's attention is asked."""
    normed: Tensor
    """Shape ``[t, hidden]``: behind the last layer, what the head is given."""

    def first(self, count: int) -> Rows:
        """The first rows, sharing memory."""
        parts = (self.residual, self.cos, self.sin, self.queries, self.normed)
        return Rows(*(part[:count] for part in parts))


class Transformer:
    """Weights on a device, shared by all instances there, and the forward pass over any instance's KV.

    A pass is `enter`, then attention and `leave` for every layer in turn, then `logits`: what lies between two
    attentions is one piece.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_model_len: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        elementwise: Elementwise | None = None,
    ) -> None:
        """``elementwise``: compiled operators, if not PyTorch's own."""
        self.model = model
        self.device = device
        self.dtype = dtype
        self._elementwise = elementwise or Elementwise()
        generator = torch.Generator(device).manual_seed(seed)

        def weights(rows: int, columns: int) -> Tensor:
            # Of a spread that keeps a normalised input's variance, so that no layer over- or underflows.
            matrix = torch.empty(rows, columns, device=device, dtype=dtype)
            return matrix.normal_(0.0, columns**-0.5, generator=generator)

        def ones() -> Tensor:
            return torch.ones(model.hidden, device=device, dtype=dtype)

        layers = uniform_layers(model)
        self._attention = attention = layers.attention
        query_width, kv_width = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
        self._embedding = weights(model.vocab, model.hidden)
        self._layers = [
            _Layer(
                attention_norm=ones(),
                qkv=weights(query_width + 2 * kv_width, model.hidden),
                attention_out=weights(model.hidden, query_width),
                mlp_norm=ones(),
                gate_up=weights(2 * layers.mlp.intermediate, model.hidden),
                down=weights(model.hidden, layers.mlp.intermediate),
            )
            for _ in range(layers.count)
        ]
        self._final_norm = ones()
        self._head = self._embedding if model.tie_embeddings else weights(model.vocab, model.hidden)
        self._cos, self._sin = _rotations(max_model_len, attention.head_dim, device)

    def rows(self, count: int) -> Rows:
        """Memory for a step of so many tokens; what is in it is undefined."""
        model, attention = self.model, self._attention

        def empty(*shape: int, dtype: torch.dtype = self.dtype) -> Tensor:
            return torch.empty(count, *shape, device=self.device, dtype=dtype)

        angle = (1, attention.head_dim // 2)
        return Rows(
            residual=empty(model.hidden),
            cos=empty(*angle, dtype=torch.float32),
            sin=empty(*angle, dtype=torch.float32),
            queries=empty(attention.heads, attention.head_dim),
            normed=empty(model.hidden),
        )

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
        rows = self.rows(len(token_ids))
        self.enter(token_ids, positions, slots, kv, rows)
        for number in range(len(self._layers)):
            attended = attention.run(rows.queries, kv.keys[number], kv.values[number])
            self.leave(number, attended, slots, kv, rows)
        return self.logits(rows.normed if sample_rows is None else rows.normed[sample_rows])

    def enter(self, token_ids: Tensor, positions: Tensor, slots: Tensor, kv: KvMemory, rows: Rows) -> None:
        """Everything before the first layer's attention."""
        rows.cos.copy_(self._cos[positions].unsqueeze(1))
        rows.sin.copy_(self._sin[positions].unsqueeze(1))
        rows.residual.copy_(embedding(token_ids, self._embedding))
        if self._layers:
            self._ask(0, norm(rows.residual, self._layers[0].attention_norm), slots, kv, rows)
        else:
            rows.normed.copy_(norm(rows.residual, self._final_norm))

    def leave(self, number: int, attended: Tensor, slots: Tensor, kv: KvMemory, rows: Rows) -> None:
        """From a layer's attention to the next one's, or to the end; ``attended`` is ``[t, heads, head_dim]``."""
        layer, add_norm = self._layers[number], self._elementwise.add_norm
        normed = add_norm(rows.residual, linear(attended.flatten(1), layer.attention_out), layer.mlp_norm)
        update = linear(self._elementwise.gate(linear(normed, layer.gate_up)), layer.down)
        if number + 1 < len(self._layers):
            normed = add_norm(rows.residual, update, self._layers[number + 1].attention_norm)
            self._ask(number + 1, normed, slots, kv, rows)
        else:
            rows.normed.copy_(add_norm(rows.residual, update, self._final_norm))

    def logits(self, normed: Tensor) -> Tensor:
        """The head's product, shape ``[samples, vocab]``."""
        return linear(normed, self._head)

    def _ask(self, number: int, normed: Tensor, slots: Tensor, kv: KvMemory, rows: Rows) -> None:
        """A layer's queries, and its keys and values stored."""
        of_token = (self._attention.heads + 2 * self._attention.kv_heads, self._attention.head_dim)
        heads = linear(normed, self._layers[number].qkv).view(-1, *of_token)
        keys, values = kv.layer(number)
        self._elementwise.rotate_and_store(heads, rows.cos, rows.sin, slots, keys, values, rows.queries)


def _rotations(max_tokens: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, shape ``[max_tokens, head_dim / 2]``, float32."""
    frequencies = _ROPE_BASE ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim)
    angles = torch.arange(max_tokens, device=device, dtype=torch.float64).outer(frequencies)
    return angles.cos().float(), angles.sin().float()
