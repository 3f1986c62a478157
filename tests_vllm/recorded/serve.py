"""Serve random requests on a tiny model and record it: ``python serve.py FOLDER SEED BLOCKS``, in vLLM's environment.

The model has random weights of its own shape: the engine, not its answers, is what is recorded.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16",
}
REQUESTS, SYSTEM_PROMPTS = 24, 3


def asked(seed: int) -> list[tuple[float, list[int], int]]:
    """Arrival in seconds, prompt and number of output tokens: half of each prompt is one of a few system prompts."""
    drawn = random.Random(seed)
    found, arrival_s = [], 0.0
    for number in range(REQUESTS):
        tokens = min(1200, max(4, int(drawn.lognormvariate(math.log(200), 0.8))))
        shared = drawn.randrange(SYSTEM_PROMPTS)
        prompt = [5 + shared * 7 + token % 50 for token in range(tokens // 2)]
        prompt += [5 + (number * 7919 + token * 31) % 4000 for token in range(tokens - tokens // 2)]
        found.append((arrival_s, prompt, min(60, max(2, int(drawn.lognormvariate(math.log(25), 0.6))))))
        arrival_s += drawn.expovariate(12)
    return found


async def serve(folder: str, seed: int, blocks: int, model: str) -> None:
    """Serve what `asked` says with so many KV blocks."""
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    import l4sim

    arguments = AsyncEngineArgs(
        model=model,
        load_format="dummy",
        skip_tokenizer_init=True,
        max_model_len=1536,
        enforce_eager=True,
        dtype="bfloat16",
        max_num_seqs=16,
        max_num_batched_tokens=512,
        block_size=32,
        num_gpu_blocks_override=blocks,
    )
    with l4sim.record(arguments, folder) as recorded:
        llm = AsyncLLM.from_engine_args(recorded)

    async def one(number: int, arrival_s: float, prompt: list[int], output: int) -> None:
        await asyncio.sleep(arrival_s)
        sampling: Any = SamplingParams(max_tokens=output, ignore_eos=True, detokenize=False)
        async for _ in llm.generate({"prompt_token_ids": prompt}, sampling, str(number)):
            pass

    await asyncio.gather(*[one(number, *request) for number, request in enumerate(asked(seed))])
    llm.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as model:
        (Path(model) / "config.json").write_text(json.dumps(MODEL))
        asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), model))
