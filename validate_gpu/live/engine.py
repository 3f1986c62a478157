"""One device's engine: weights, KV memory and kernels, shared by the instances that take turns on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import Tensor

from l4sim.engine.config import EngineConfig
from l4sim.engine.protocol import Step
from l4sim.engine.request import Request
from l4sim.errors import InputError
from l4sim.specs.model import Model
from validate_gpu.live.attention import Attention, TorchAttention
from validate_gpu.live.clock import seconds_of
from validate_gpu.live.flashinfer_attention import (
    FlashInferAttention,
    FlashInferBatchAttention,
    GraphDecodeAttention,
    Workspace,
    check_supported,
)
from validate_gpu.live.graphs import Capture, DecodeGraphs, PieceGraphs, bucket_sizes, cuda_capture, piece_sizes
from validate_gpu.live.inputs import StepInputs, build_inputs
from validate_gpu.live.kv import KvMemory
from validate_gpu.live.model import Transformer
from validate_gpu.live.pages import PagedPool
from validate_gpu.live.sequences import Sequences


@dataclass(frozen=True, slots=True)
class Kernels:
    """Which attention runs, and whether steps are captured."""

    attention: Attention
    capture: Capture | None = None
    """None: nothing is captured."""
    by_size: Mapping[int, Attention] = field(default_factory=dict)
    """Attention that can be captured itself, by batch size: such decodes are captured whole."""


class DeviceEngine:
    """Runs the steps of a number of instances, one at a time, and says how long each took."""

    def __init__(
        self, transformer: Transformer, config: EngineConfig, instances: int, kernels: Kernels, sequences: Sequences
    ) -> None:
        """``sequences`` are the run's, shared by all its engines.

        Raises:
            InputError: the instances are to cache prefixes, which is not done here.
        """
        if config.prefix_caching:
            raise InputError("a live run has no prefix cache: accepted is --no-prefix-caching")
        pages = config.kv_blocks * instances
        self.kv = KvMemory(transformer.model, pages, config.block_tokens, transformer.device, transformer.dtype)
        self.pools: list[PagedPool] = []
        """One per instance, each with its own part of the memory."""
        self.sequences = sequences
        self._config = config
        self._instances = instances
        self._transformer = transformer
        self._attention = kernels.attention
        self._now_s = seconds_of(transformer.device)
        self._decodes: DecodeGraphs | None = None
        self._pieces: PieceGraphs | None = None
        if kernels.capture is not None:
            with torch.inference_mode():
                sizes = piece_sizes(config.max_num_batched_tokens)
                self._pieces = PieceGraphs(transformer, self.kv, sizes, kernels.capture)
                if kernels.by_size:
                    self._decodes = DecodeGraphs(transformer, self.kv, kernels.by_size, kernels.capture)
        self.reset()

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._transformer.device

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reset(self) -> None:
        """Forget all requests, for the next run."""
        config = self._config
        self.pools = [
            PagedPool(config.kv_blocks, config.block_tokens, first_page=number * config.kv_blocks)
            for number in range(self._instances)
        ]
        self.sequences.sampled.clear()

    def step(self, number: int, step: Step, decoding: Sequence[Request]) -> float:
        """Carry out one iteration of instance ``number``; returns its seconds.

        Time counts from the inputs, which asynchronous scheduling prepares while the iteration before still runs, to
        the sampled tokens; FlashInfer's planning is in it.
        """
        inputs = build_inputs(step, decoding, self.pools[number], self.sequences)
        start_s = self._now_s()
        sampled = self.logits(inputs).argmax(dim=-1).tolist()
        # A step that samples nothing, of a prompt that goes on, has no result to wait for.
        self.synchronize()
        seconds = self._now_s() - start_s
        for (request, before), token in zip(inputs.samplers, sampled, strict=True):
            self.sequences.append(request, before, token)
        return seconds

    def logits(self, inputs: StepInputs) -> Tensor:
        """Run the model; returns the logits of the rows that sample, shape ``[samples, vocab]``."""
        with torch.inference_mode():
            if self._decodes is not None and self._decodes.covers(inputs):
                return self._decodes.run(inputs)
            if self._pieces is not None and self._pieces.covers(inputs):
                return self._pieces.run(inputs, self._attention)
            self._attention.plan(inputs.table)
            token_ids, positions, slots, sample_rows = (
                torch.from_numpy(values).to(self._transformer.device)
                for values in (inputs.token_ids, inputs.positions, inputs.slots, inputs.sample_rows)
            )
            return self._transformer.forward(token_ids, positions, slots, sample_rows, self.kv, self._attention)


def torch_kernels() -> Kernels:
    """PyTorch's attention, step by step: any device, slow on a GPU."""
    return Kernels(TorchAttention())


def flashinfer_kernels(
    flashinfer: ModuleType,
    model: Model,
    config: EngineConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    path: str,
    graphs: bool,
    capture: Capture | None = None,
) -> Kernels:
    """FlashInfer's attention by one of its paths, with steps captured if ``graphs``: decodes whole, others in pieces.

    ``capture`` stands in for CUDA's own. BatchAttention plans into buffers of its own and is never captured itself.

    Raises:
        InputError: the path has no kernels for the model.
    """
    check_supported(model, path)
    capture = (capture or cuda_capture()) if graphs else None
    if path == "batch-attention":
        return Kernels(FlashInferBatchAttention(flashinfer, model, dtype, device), capture)
    workspace, tensor_cores = Workspace(device), path == "tensor-cores"
    eager = FlashInferAttention(flashinfer, model, dtype, workspace, tensor_cores=tensor_cores)
    if capture is None:
        return Kernels(eager)
    page_buffer = torch.zeros(config.kv_blocks + config.max_num_seqs, dtype=torch.int32, device=device)
    by_size: dict[int, Attention] = {
        size: GraphDecodeAttention(
            flashinfer,
            model,
            dtype,
            workspace,
            tensor_cores=tensor_cores,
            requests=size,
            page_buffer=page_buffer,
        )
        for size in bucket_sizes(config.max_num_seqs)
    }
    return Kernels(eager, capture, by_size)
