"""From a profile and a model to the cost model that a simulation runs on."""

from __future__ import annotations

import numpy as np

from l4sim.cost.affine import fit_affine
from l4sim.cost.attention import KERNELS, MODELS
from l4sim.cost.attention.kinds import attention_part
from l4sim.cost.attention.part import AttentionPart, AttentionSetting
from l4sim.cost.captured import NONE_CAPTURED, Captured, vllm_captured
from l4sim.cost.communication import AllReduce, all_reduce_among
from l4sim.cost.curve import FloatArray
from l4sim.cost.data_parallel import DataParallelCost
from l4sim.cost.elementwise import embedding_s, layer_elementwise_s
from l4sim.cost.iteration import IterationCost, LayersAttention
from l4sim.cost.linear import IntArray, layer_linear_table_s, lm_head_s
from l4sim.cost.model import AttentionModel, CostModel
from l4sim.cost.operators import MeasuredOperators
from l4sim.cost.outside import outside_cost
from l4sim.cost.profile import Profile
from l4sim.cost.tables.exchange import ALL_TO_ALL, deepep_s
from l4sim.cost.tables.products import Seconds
from l4sim.cost.tables.stages import Stages
from l4sim.cost.whole_iterations import whole_iterations_cost
from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery
from l4sim.specs.dtypes import Dtypes, size_bytes
from l4sim.specs.layers import Attention, LayerGroup
from l4sim.specs.matrix import Absent
from l4sim.specs.mlp import Experts
from l4sim.specs.model import Model
from l4sim.specs.options import DEFAULTS
from l4sim.specs.parallelism import Parallelism

COST_MODELS = (*MODELS, "affine")

DEEPEP = "deepep"
"""Of `l4sim.specs.options.EXPERT_EXCHANGES` the one that has tables."""


def build_cost(
    profile: Profile,
    model: Model,
    *,
    tensor_parallel: int = 1,
    attention_dp: int = 1,
    expert_parallel: int = 1,
    expert_load: str = DEFAULTS.expert_load,
    expert_exchange: str = DEFAULTS.expert_exchange,
    kernel: str | None = None,
    cost_model: str = DEFAULTS.cost_model,
    max_num_batched_tokens: int = 8192,
    max_num_seqs: int = 1024,
    max_model_len: int | None = None,
    all_reduce: AllReduce | None = None,
    exchange: AllReduce | None = None,
) -> CostModel:
    """Build the cost model of one instance.

    ``tensor_parallel``, ``attention_dp`` and ``expert_parallel`` are as `l4sim.specs.parallelism.Parallelism` has them;
    ``expert_load`` is how uneven the experts' shares of tokens are, ``expert_exchange`` how ranks of data-parallel
    attention send tokens to experts (`l4sim.specs.options`). ``kernel`` is one of the profile's, its default if
    None. ``cost_model`` is how attention sees a batch: ``tile`` (the kernel's own split), ``mean``, ``sum`` or
    ``skew``; or ``affine``, a least-squares fit to ``tile`` of the whole iteration; or another package's (see
    `l4sim.cost.outside`). A rank's batches may have up to ``max_num_batched_tokens`` tokens and ``max_num_seqs``
    sequences; ``max_model_len`` is the longest sequence that the engine allows, the model's limit if None.
    ``all_reduce`` among ``tensor_parallel`` GPUs is the profile's newest for so many if None, as is
    ``exchange`` among all, by which experts get the tokens of data-parallel attention.

    Raises:
        InputError: an unknown kernel or cost model, a parallelism that model or profile do not have, or a kind of layer
            or number format whose seconds are not known.
    """
    parallelism = Parallelism(tensor_parallel, attention_dp, expert_parallel)
    kernel = profile.default_kernel if kernel is None else kernel
    if kernel not in profile.kernels:
        raise InputError(f"profile {profile.name}: no kernel '{kernel}', accepted are {', '.join(profile.kernels)}")
    parallelism.check(model)
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
    if model.beyond_dense is not None and not profile.tables:
        raise InputError(
            f"{model.name}: profile {profile.name} has no seconds of {model.beyond_dense}, accepted are models of full "
            "grouped-query attention and dense MLPs in 16 bits (`l4sim models` shows others)"
        )
    captured, host = _captured(profile, kernel, max_num_seqs, max_num_batched_tokens), profile.host
    setting = AttentionSetting(
        profile,
        model.hidden,
        tensor_parallel,
        kernel,
        "tile" if cost_model == "affine" else cost_model,
        graph_requests=captured.decodes,
        graph_tokens=max_model_len or model.max_model_len,
    )
    parts = attention_parts(setting, model)
    # Of all ranks' requests one may be dealt more than its share.
    most_batched, most_seqs = attention_dp * max_num_batched_tokens, attention_dp * max_num_seqs
    most_tokens = _most(most_batched, most_seqs, captured=captured)
    most_sampled = _most(most_seqs, captured=captured)
    if profile.tables:
        stages = Stages(profile, model, parallelism, expert_load)
        covers = [part.covers for part in parts]
        tokens_s, sampled_s = looked_up_s(stages, covers, most_tokens, most_sampled)
    else:
        tokens_s = _tokens_s(profile, model, tensor_parallel, most_tokens)
        sampled_s = _sampled_s(profile, model, tensor_parallel, most_sampled)
    in_graphs = _most(0, captured=captured)
    if tensor_parallel > 1:
        all_reduce = all_reduce or all_reduce_among(tensor_parallel, profile.gpu, profile.all_reduce)
        tokens_s[1:] += _all_reduces_s(all_reduce, model, parallelism, np.arange(1, len(tokens_s)), in_graphs)
        sampled_s[1:] += _gather_s(all_reduce, model, np.arange(1, len(sampled_s)))
    if attention_dp > 1:
        rank_tokens = np.arange(1, len(tokens_s))
        if expert_exchange == DEEPEP:
            tokens_s[1:] += _sent_s(profile, model, parallelism, rank_tokens)
        else:
            exchange = exchange or all_reduce_among(parallelism.gpus, profile.gpu, profile.all_reduce)
            tokens_s[1:] += _exchanges_s(exchange, model, parallelism, rank_tokens, in_graphs)
    # The rows that pad a captured decode batch are computed as the others are, and sampled where the head is captured.
    decodes = np.arange(most_seqs + 1)
    rows = captured.decoding_rows(decodes)
    sampled = decodes if profile.captured == NONE_CAPTURED else rows
    steps = captured.step_tokens(np.arange(max(most_batched, most_seqs) + 1))
    attention, repeats = _attention(model, parts)
    rank = IterationCost(
        attention=attention,
        repeats=repeats,
        decodes_s=(host.decode_s + host.sequence_s * decodes + tokens_s[rows] + sampled_s[sampled]).tolist(),
        tokens_s=(host.prompt_s + tokens_s[steps]).tolist(),
        sampled_s=(sampled_s[: most_seqs + 1] + host.sequence_s * decodes).tolist(),
    )
    cost = rank if attention_dp == 1 else DataParallelCost(rank, attention_dp)
    if cost_model != "affine":
        return cost
    return fit_affine(
        cost,
        max_sequences=most_seqs,
        max_tokens=max_num_batched_tokens,
        max_context_tokens=model.max_model_len,
    )


def _captured(profile: Profile, kernel: str, max_num_seqs: int, max_num_batched_tokens: int) -> Captured:
    """The steps that run as CUDA graphs: those that a profile tells, else those of vLLM, whose engine it stands for."""
    if profile.captured == NONE_CAPTURED and KERNELS[kernel].in_graphs:
        return vllm_captured(max_num_seqs, max_num_batched_tokens)
    return profile.captured.within(max_num_seqs, max_num_batched_tokens)


def attention_parts(setting: AttentionSetting, model: Model) -> list[AttentionPart]:
    """The attention of every group of layers, one rank's share of it.

    Raises:
        InputError: a kind of layer or format of KV that the profile has no seconds of.
    """
    found: dict[tuple[Attention, Dtypes], AttentionPart] = {}
    parts = []
    for group in model.groups:
        own = group.attention.of_rank(setting.ranks), group.dtypes
        if own not in found:
            found[own] = attention_part(setting, *own)
        parts.append(found[own])
    return parts


def _attention(model: Model, parts: list[AttentionPart]) -> tuple[AttentionModel, int]:
    """The attention of one rank, and how many times an iteration runs it (``IterationCost.repeats``)."""
    layers: dict[int, tuple[int, AttentionModel]] = {}
    for group, part in zip(model.groups, parts, strict=True):
        count, _ = layers.get(id(part.model), (0, part.model))
        layers[id(part.model)] = count + group.count, part.model
    kinds = tuple(layers.values())
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


def looked_up_s(
    stages: Stages, covers: list[frozenset[str]], most_tokens: int, most_sampled: int
) -> tuple[FloatArray, FloatArray]:
    """Seconds by a rank's tokens, attention left out, and by sampled sequences; shape ``[most + 1]`` each."""
    tokens = np.arange(1, most_tokens + 1)
    layers_s = [
        group.count * stages.layer_s(group, own, tokens) for group, own in zip(stages.model.groups, covers, strict=True)
    ]
    tokens_s = np.concatenate([[0.0], np.sum(layers_s, axis=0) + stages.embedding(tokens)])
    return tokens_s, np.concatenate([[0.0], stages.head(np.arange(1, most_sampled + 1)).seconds])


def _all_reduces_s(
    all_reduce: AllReduce, model: Model, parallelism: Parallelism, tokens: IntArray, in_graphs: int
) -> FloatArray:
    """Seconds of a step's all-reduces by its tokens, of their shape; steps of up to ``in_graphs`` tokens are captured.

    There is one after attention and one after the MLP of each layer, and one for the embedding, whose rows are split
    too. Captured steps with prompts run in pieces around attention, and the pieces hold the all-reduces. With
    data-parallel attention, what experts make is exchanged otherwise (`_exchanges_s`).
    """
    once_s = _at(all_reduce, tokens, tokens * size_bytes(model.hidden, model.dtype), in_graphs)
    parts = sum(
        group.count
        for group in model.groups
        for part in (group.attention, group.mlp)
        if not isinstance(part, Absent) and not (parallelism.attention_dp > 1 and isinstance(part, Experts))
    )
    seconds = (parts + 1) * once_s
    normed = sum(
        group.count
        for group in model.groups
        if isinstance(group.attention, GroupedQuery) and group.attention.normed_over_heads
    )
    if normed:
        # The squares of queries and of keys, a float32 each.
        seconds = seconds + normed * _at(all_reduce, tokens, tokens * 2 * size_bytes(1, "float32"), in_graphs)
    return seconds


def _exchanges_s(
    all_reduce: AllReduce, model: Model, parallelism: Parallelism, tokens: IntArray, in_graphs: int
) -> FloatArray:
    """Seconds of what ranks of data-parallel attention exchange around experts, by one's tokens; of their shape.

    All hidden states are gathered before the experts and summed to their ranks after them, which together is what an
    all-reduce of all of them moves. Source: vLLM 0.32, `all2all_backend` ``allgather_reducescatter``, its default.
    """
    message_bytes = parallelism.attention_dp * tokens * size_bytes(model.hidden, model.dtype)
    layers = sum(group.count for group in model.groups if isinstance(group.mlp, Experts))
    return layers * _at(all_reduce, tokens, message_bytes, in_graphs)


def _sent_s(profile: Profile, model: Model, parallelism: Parallelism, tokens: IntArray) -> FloatArray:
    """The same by DeepEP's kernels: of a rank's tokens each of its tensor-parallel ranks sends a share."""
    layers = exchanged(profile, model, parallelism, tokens)
    return np.asarray(np.sum([count * one.seconds for count, one in layers], axis=0))


def exchanged(profile: Profile, model: Model, parallelism: Parallelism, tokens: IntArray) -> list[tuple[int, Seconds]]:
    """Numbers of layers with experts, and seconds of one's exchange by DeepEP's kernels, by a rank's tokens.

    Raises:
        InputError: the profile has no table of them.
    """
    if ALL_TO_ALL not in profile.tables:
        raise InputError(f"profile {profile.name} has no seconds of DeepEP, accepted is --expert-exchange all-gather")
    share = -(-tokens // parallelism.tensor)
    return [
        (
            group.count,
            deepep_s(
                profile.tables[ALL_TO_ALL],
                ranks=parallelism.gpus,
                hidden=model.hidden,
                per_token=group.mlp.per_token,
                tokens=share,
            ),
        )
        for group in model.groups
        if isinstance(group.mlp, Experts)
    ]


def _at(all_reduce: AllReduce, tokens: IntArray, message_bytes: IntArray, in_graphs: int) -> FloatArray:
    return np.where(tokens <= in_graphs, all_reduce.captured.at(message_bytes), all_reduce.eager.at(message_bytes))


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
