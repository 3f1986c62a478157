"""From a profile and a model to the cost model that a simulation runs on."""

from __future__ import annotations

from collections import Counter

import numpy as np

from l4sim.cost.affine import fit_affine
from l4sim.cost.attention import MODELS, build_attention
from l4sim.cost.captured import Captured, largest_captured
from l4sim.cost.communication import AllReduce, all_reduce_among
from l4sim.cost.curve import FloatArray
from l4sim.cost.elementwise import embedding_s, layer_elementwise_s
from l4sim.cost.iteration import IterationCost, LayersAttention
from l4sim.cost.linear import IntArray, layer_linear_table_s, lm_head_s
from l4sim.cost.model import AttentionModel, CostModel
from l4sim.cost.operators import MeasuredOperators
from l4sim.cost.outside import outside_cost
from l4sim.cost.profile import Profile
from l4sim.cost.whole_iterations import whole_iterations_cost
from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery
from l4sim.specs.dtypes import size_bytes
from l4sim.specs.layers import LayerGroup
from l4sim.specs.memory import check_tensor_parallel
from l4sim.specs.model import Model
from l4sim.specs.options import DEFAULTS

COST_MODELS = (*MODELS, "affine")


def build_cost(
    profile: Profile,
    model: Model,
    *,
    tensor_parallel: int = 1,
    kernel: str | None = None,
    cost_model: str = DEFAULTS.cost_model,
    max_num_batched_tokens: int = 8192,
    max_num_seqs: int = 1024,
    all_reduce: AllReduce | None = None,
) -> CostModel:
    """Build the cost model of one instance.

    ``kernel`` is one of the profile's, its default if None. ``cost_model`` is how attention sees a batch: ``tile``
    (the kernel's own split), ``mean``, ``sum`` or ``skew``; or ``affine``, a least-squares fit to ``tile`` of the
    whole iteration; or another package's (see `l4sim.cost.outside`). Batches may have up to ``max_num_batched_tokens``
    tokens and ``max_num_seqs`` sequences. ``all_reduce`` is the profile's newest for so many GPUs if None.

    Raises:
        InputError: an unknown kernel or cost model, a tensor-parallel size that model or profile do not have, or a kind
            of layer or number format whose seconds are not known.
    """
    kernel = profile.default_kernel if kernel is None else kernel
    if kernel not in profile.kernels:
        raise InputError(f"profile {profile.name}: no kernel '{kernel}', accepted are {', '.join(profile.kernels)}")
    check_tensor_parallel(model, tensor_parallel)
    if cost_model not in COST_MODELS:
        return outside_cost(
            cost_model,
            COST_MODELS,
            profile,
            model,
            tensor_parallel=tensor_parallel,
            kernel=kernel,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
        )
    if profile.iterations:
        if cost_model != DEFAULTS.cost_model:
            raise InputError(
                f"profile {profile.name}: cost model {cost_model} needs attention alone, and whole iterations were "
                f"recorded: accepted is {DEFAULTS.cost_model}"
            )
        return whole_iterations_cost(
            profile.iterations,
            model,
            tensor_parallel=tensor_parallel,
            most_tokens=max(max_num_batched_tokens, max_num_seqs),
            where=f"profile {profile.name}",
        )
    if model.beyond_dense is not None:
        raise InputError(
            f"{model.name}: profile {profile.name} has no seconds of {model.beyond_dense}, accepted are models of full "
            "grouped-query attention and dense MLPs in 16 bits (`l4sim models` shows others)"
        )
    captured, host = profile.captured.within(max_num_seqs, max_num_batched_tokens), profile.host
    tokens_s = _tokens_s(
        profile, model, tensor_parallel, _most(max_num_batched_tokens, max_num_seqs, captured=captured)
    )
    sampled_s = _sampled_s(profile, model, tensor_parallel, _most(max_num_seqs, captured=captured))
    if tensor_parallel > 1:
        all_reduce = all_reduce or all_reduce_among(tensor_parallel, profile.gpu, profile.all_reduce)
        in_graphs = largest_captured(captured, max_num_seqs, max_num_batched_tokens)
        tokens_s[1:] += _all_reduces_s(all_reduce, model, np.arange(1, len(tokens_s)), in_graphs)
        sampled_s[1:] += _gather_s(all_reduce, model, np.arange(1, len(sampled_s)))
    # The rows that pad a captured decode batch are computed and sampled as the others are.
    decodes = np.arange(max_num_seqs + 1)
    rows = captured.decoding_rows(decodes)
    steps = captured.step_tokens(np.arange(max(max_num_batched_tokens, max_num_seqs) + 1))
    attention, repeats = _attention(
        profile, model, tensor_parallel, kernel, "tile" if cost_model == "affine" else cost_model
    )
    cost = IterationCost(
        attention=attention,
        repeats=repeats,
        decodes_s=(host.decode_s + host.sequence_s * decodes + tokens_s[rows] + sampled_s[rows]).tolist(),
        tokens_s=(host.prompt_s + tokens_s[steps]).tolist(),
        sampled_s=(sampled_s[: max_num_seqs + 1] + host.sequence_s * decodes).tolist(),
    )
    if cost_model != "affine":
        return cost
    return fit_affine(
        cost,
        max_sequences=max_num_seqs,
        max_tokens=max_num_batched_tokens,
        max_context_tokens=model.max_model_len,
    )


def _attention(
    profile: Profile, model: Model, tensor_parallel: int, kernel: str, attention_model: str
) -> tuple[AttentionModel, int]:
    """The attention of one rank, and how many times an iteration runs it (``IterationCost.repeats``)."""
    layers: Counter[GroupedQuery] = Counter()
    for group in model.groups:
        layers[group.dense().attention.of_rank(tensor_parallel)] += group.count
    kinds = tuple(
        (
            count,
            build_attention(
                kernel,
                profile.kernels[kernel].coefficients,
                heads=attention.heads,
                kv_heads=attention.kv_heads,
                head_dim=attention.head_dim,
                sms=profile.gpu.sms,
                model=attention_model,
            ),
        )
        for attention, count in layers.items()
    )
    if len(kinds) > 1:
        return LayersAttention(kinds), 1
    count, attention = kinds[0]
    return attention, count


def _most(*counts: int, captured: Captured) -> int:
    """The largest size that is looked up: a batch may be padded to more than it may have."""
    return max((*counts, *captured.decodes, *captured.steps))


def _tokens_s(profile: Profile, model: Model, tensor_parallel: int, max_tokens: int) -> FloatArray:
    """Seconds by tokens in the batch, attention left out; shape ``[max_tokens + 1]``."""
    tokens = np.arange(1, max_tokens + 1)
    measured = _measured(profile, model, tensor_parallel)
    layers_s = [group.count * _layer_s(profile, model, group, tensor_parallel, tokens) for group in model.groups]
    once_s = measured.once.at(tokens) if measured else embedding_s(model, profile.gpu, profile.elementwise, tokens)
    return np.concatenate([[0.0], np.sum(layers_s, axis=0) + once_s])


def _sampled_s(profile: Profile, model: Model, tensor_parallel: int, max_sequences: int) -> FloatArray:
    """Seconds by sampled sequences; shape ``[max_sequences + 1]``."""
    measured = _measured(profile, model, tensor_parallel)
    sequences = np.arange(1, max_sequences + 1)
    if measured is not None:
        seconds = measured.sampled.at(sequences)
    else:
        seconds = lm_head_s(model, tensor_parallel, profile.gpu, profile.linear, sequences)
    return np.concatenate([[0.0], seconds])


def _all_reduces_s(all_reduce: AllReduce, model: Model, tokens: IntArray, in_graphs: int) -> FloatArray:
    """Seconds of a step's all-reduces by its tokens, of their shape; steps of up to ``in_graphs`` tokens are captured.

    There is one after attention and one after the MLP of each layer, and one for the embedding, whose rows are split
    too. Captured steps with prompts run in pieces around attention, and the pieces hold the all-reduces.
    """
    message_bytes = tokens * size_bytes(model.hidden, model.dtype)
    once_s = np.where(tokens <= in_graphs, all_reduce.captured.at(message_bytes), all_reduce.eager.at(message_bytes))
    return (2 * model.layers + 1) * once_s


def _gather_s(all_reduce: AllReduce, model: Model, sequences: IntArray) -> FloatArray:
    """Seconds of gathering the logits by sampled sequences, of their shape: half of what an all-reduce moves.

    No graph holds it, but its launch is hidden behind the step's kernels, so that it takes what a captured one does.
    """
    return all_reduce.captured.at(sequences * (size_bytes(model.vocab, model.dtype) / 2))


def _layer_s(profile: Profile, model: Model, group: LayerGroup, tensor_parallel: int, tokens: IntArray) -> FloatArray:
    """Seconds of one of a group's layers by tokens in the batch (1, 2, ...), attention left out; of their shape."""
    measured = measured_layer(profile, model, group, tensor_parallel)
    if measured is not None:
        return measured.layer.at(tokens)
    layer = group.of_rank(tensor_parallel)
    seconds = layer_linear_table_s(model.hidden, layer, profile.gpu, profile.linear, len(tokens))
    return seconds + layer_elementwise_s(model.hidden, layer, profile.gpu, profile.elementwise, tokens)


def _measured(profile: Profile, model: Model, tensor_parallel: int) -> MeasuredOperators | None:
    """Measured operators of a model's ends: embedding and head are the same, whichever layers stand between."""
    found = (measured_layer(profile, model, group, tensor_parallel) for group in model.groups)
    return next((entry for entry in found if entry is not None), None)


def measured_layer(profile: Profile, model: Model, group: LayerGroup, tensor_parallel: int) -> MeasuredOperators | None:
    """Measured operators of one of a group's layers."""
    return next((entry for entry in profile.operators if entry.fits(model, group, tensor_parallel)), None)
