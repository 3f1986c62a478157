"""vLLM's own schedulers, which also record what they decide: ``--scheduler-cls`` takes `recording_scheduler`.

vLLM loads the scheduler class that its configuration names; nothing of vLLM is changed. A stat logger would see counts
only, not whose tokens an iteration computed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vllm.utils.hashing import sha256
from vllm.v1.core import kv_cache_utils
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from validate_gpu.vllm.meta import write_meta
from validate_gpu.vllm.run_recorder import Hashes, RunRecorder

FOLDER = "L4SIM_RECORD"
"""The environment variable that names the recording's folder, as `l4sim.recordings.start` sets it."""


class _Recording:
    """What both of vLLM's schedulers do besides, when they record."""

    def __init__(self, vllm_config: Any, kv_cache_config: Any, **more: Any) -> None:
        super().__init__(vllm_config=vllm_config, kv_cache_config=kv_cache_config, **more)  # type: ignore[call-arg]
        folder = _folder(vllm_config.parallel_config)
        folder.mkdir(parents=True, exist_ok=True)
        write_meta(folder, vllm_config, kv_cache_config.num_blocks)
        block_tokens = more.get("hash_block_size") or more["block_size"]
        self._recorder = RunRecorder(folder, _hashes(vllm_config.cache_config, block_tokens), block_tokens)

    def add_request(self, request: Any) -> None:
        """As vLLM's."""
        super().add_request(request)  # type: ignore[misc]
        self._recorder.queued(request)

    def schedule(self, *arguments: Any, **named: Any) -> Any:
        """As vLLM's; ``arguments`` differ between its versions."""
        began_s = time.monotonic()
        output = super().schedule(*arguments, **named)  # type: ignore[misc]
        if output.total_num_scheduled_tokens:
            pool = self.kv_cache_manager.block_pool  # type: ignore[attr-defined]
            self._recorder.scheduled(
                output,
                began_s,
                output.num_scheduled_tokens,
                output.preempted_req_ids or (),
                len(self.waiting),  # type: ignore[attr-defined]
                # One block is vLLM's null block, which no request gets.
                pool.num_gpu_blocks - 1 - pool.get_num_free_blocks(),
            )
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """As vLLM's."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]
        told = [one for client in outputs.values() for one in client.outputs]
        # The moment that vLLM itself gives the tokens.
        end_s = next((client.timestamp for client in outputs.values()), time.monotonic())
        self._recorder.ended(
            scheduler_output,
            end_s,
            {one.request_id for one in told if one.new_token_ids},
            [one.request_id for one in told if one.finish_reason is not None],
        )
        return outputs

    def finish_requests(self, request_ids: str | Iterable[str] | None, finished_status: Any) -> Any:
        """As vLLM's: requests are aborted."""
        names = [request_ids] if isinstance(request_ids, str) else request_ids
        # None are all there are; what is given may be read only once.
        names = list(self.requests if names is None else names)  # type: ignore[attr-defined]
        ended = super().finish_requests(names, finished_status)  # type: ignore[misc]
        self._recorder.finished(names)
        return ended

    def shutdown(self) -> None:
        """As vLLM's."""
        self._recorder.close()
        super().shutdown()  # type: ignore[misc]


class RecordingScheduler(_Recording, Scheduler):  # type: ignore[misc]
    """vLLM's synchronous scheduler, recorded."""


class RecordingAsyncScheduler(_Recording, AsyncScheduler):  # type: ignore[misc]
    """vLLM's asynchronous scheduler, recorded."""


def recording_scheduler(vllm_config: Any, **more: Any) -> Any:
    """The scheduler that vLLM would make with this configuration, recorded."""
    asynchronous = vllm_config.scheduler_config.async_scheduling
    return (RecordingAsyncScheduler if asynchronous else RecordingScheduler)(vllm_config=vllm_config, **more)


def _folder(parallel: Any) -> Path:
    """One for each engine: vLLM's data parallel ranks are engines of their own."""
    folder = Path(os.environ[FOLDER])
    return folder / f"engine-{parallel.data_parallel_rank}" if parallel.data_parallel_size > 1 else folder


def _hashes(cache: Any, block_tokens: int) -> Hashes:
    if cache.enable_prefix_caching:
        return lambda request: request.block_hashes
    # Without a prefix cache vLLM hashes nothing: what the requests share is told all the same.
    kv_cache_utils.init_none_hash(sha256)
    hasher = kv_cache_utils.get_request_block_hasher(block_tokens, sha256)
    return lambda request: request.block_hashes or hasher(request)
