"""KV cache memory: the blocks that vLLM would allocate."""

from __future__ import annotations

from l4sim.errors import InputError
from l4sim.specs.dtypes import size_bytes
from l4sim.specs.gpu import GPU
from l4sim.specs.kv_groups import KVLayout, kv_layout
from l4sim.specs.model import Model
from l4sim.specs.options import DEFAULTS

_GIB = 1 << 30

# What vLLM's memory profiling logs as non-torch memory (0.1 to 0.4 GiB on one H100): CUDA context and libraries.
_CONTEXT_BYTES = 0.35 * _GIB
# NCCL's buffers and the custom all-reduce's, per rank; ours, within what multi-GPU logs leave unexplained.
_COMMUNICATION_BYTES = 0.75 * _GIB


def non_kv_bytes(
    model: Model, *, tensor_parallel: int = 1, max_num_batched_tokens: int = 8192, max_num_seqs: int = 256
) -> float:
    """Bytes per GPU that are neither weights nor KV cache, while vLLM profiles its memory.

    The sum of CUDA's context, NCCL if tensor-parallel, the activations of a full batch in the layer that has most (per
    token: gate, up and their product of the rank's share of the MLP, and four hidden states) and the sampler's float32
    logits and probabilities. CUDA graphs are not in it (`kv_blocks`). Source: ours, checked against vLLM's logs of
    Llama-3.1-8B on an 80 GB H100 (1.5 to 1.6 GiB logged, 1.5 here).
    """
    activations = max_num_batched_tokens * max(
        size_bytes(group.of_rank(tensor_parallel).mlp.activation_elements + 4 * model.hidden, group.dtypes.activations)
        for group in model.groups
    )
    sampler = 2 * 4 * max_num_seqs * model.vocab
    return _CONTEXT_BYTES + (_COMMUNICATION_BYTES if tensor_parallel > 1 else 0) + activations + sampler


def kv_memory_bytes(
    model: Model,
    gpu: GPU,
    tensor_parallel: int = 1,
    *,
    weight_bytes: float | None = None,
    utilization: float = 0.9,
    graphs_share: float = 0.0,
    max_num_batched_tokens: int = 8192,
    max_num_seqs: int = 256,
) -> float:
    """Bytes that each GPU of an instance has for KV; below 0 where the model does not fit.

    (utilization - graphs) x memory - weights - ``non_kv_bytes``. Weights are the model's over the GPUs, or
    ``weight_bytes`` where these do not share all of them. ``graphs_share`` is what of the utilisation CUDA
    graphs take; 0 where they come from beyond it (`EngineDefaults`).
    """
    other = non_kv_bytes(
        model,
        tensor_parallel=tensor_parallel,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
    )
    weights = model.weight_bytes / tensor_parallel if weight_bytes is None else weight_bytes
    return (utilization - graphs_share) * gpu.memory_bytes - weights - other


def kv_blocks(
    model: Model,
    gpu: GPU,
    tensor_parallel: int = 1,
    *,
    weight_bytes: float | None = None,
    utilization: float = 0.9,
    graphs_share: float = 0.0,
    block_tokens: int = DEFAULTS.block_size,
    max_num_batched_tokens: int = 8192,
    max_num_seqs: int = 256,
    max_model_len: int | None = None,
    prefix_caching: bool = True,
) -> int:
    """Blocks of KV cache that one instance can hand out, as vLLM would have them.

    ``kv_memory_bytes`` over a block's bytes per rank, less the one block that vLLM keeps as its null block. A block
    holds its tokens' KV of all layers, or of a group of them (`kv_layout`, which ``max_model_len``, None for the
    model's own, and ``prefix_caching`` matter to); KV heads that tensor parallelism exceeds are replicated.

    Raises:
        InputError: a parameter out of range, a model that does not fit, and by how much, or layers whose blocks are
            not counted.
    """
    if not 0 < utilization <= 1:
        raise InputError(f"gpu memory utilization is {utilization}, accepted is above 0 and at most 1")
    if block_tokens < 1 or tensor_parallel < 1:
        raise InputError(f"block size {block_tokens} and tensor parallel {tensor_parallel} must be >= 1")
    check_tensor_parallel(model, tensor_parallel)
    free = kv_memory_bytes(
        model,
        gpu,
        tensor_parallel,
        weight_bytes=weight_bytes,
        utilization=utilization,
        graphs_share=graphs_share,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
    )
    block_bytes = layout_of(
        model,
        tensor_parallel,
        block_tokens=block_tokens,
        max_model_len=max_model_len,
        prefix_caching=prefix_caching,
    ).block_bytes
    blocks = int(free // block_bytes) - 1
    if blocks < 1:
        short = (2 * block_bytes - free) / _GIB
        raise InputError(
            f"{model.name} does not fit {gpu.name} at tensor parallel {tensor_parallel} and utilization "
            f"{utilization}: {short:.1f} GiB short per GPU"
        )
    return blocks


def layout_of(
    model: Model,
    tensor_parallel: int = 1,
    *,
    block_tokens: int = DEFAULTS.block_size,
    max_model_len: int | None = None,
    prefix_caching: bool = True,
) -> KVLayout:
    """How one rank's KV memory is divided into blocks; ``max_model_len``: None for the model's own.

    Raises:
        InputError: as `kv_layout`.
    """
    return kv_layout(
        model.name,
        model.groups,
        ranks=tensor_parallel,
        block_tokens=block_tokens,
        max_model_len=max_model_len or model.max_model_len,
        prefix_caching=prefix_caching,
    )


def check_tensor_parallel(model: Model, tensor_parallel: int) -> None:
    """Check that a model can be split over so many ranks.

    Raises:
        InputError: heads that do not divide evenly (KV heads may be replicated instead).
    """
    if tensor_parallel < 1:
        raise InputError(f"{model.name}: tensor parallel is {tensor_parallel}, accepted is a whole number >= 1")
    for group in model.groups:
        if problem := group.unsplittable(tensor_parallel):
            raise InputError(f"{model.name}: tensor parallel {tensor_parallel} {problem}")
