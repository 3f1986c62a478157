"""The command lines whose figures are held: all of what a run can do, each part at least once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from l4sim.policies.registry import POLICIES

PRESETS = ("chat", "agentic-coding", "long-reasoning", "sharegpt-like", "long-context-mix")
COST_MODELS = ("tile", "mean", "sum", "skew", "affine")

_BUSY = "--instances 8 --limit 300 --rate-scale 1.5"
_MIX = "{traces}/long-context-mix.jsonl.gz"
_SESSIONS = "{traces}/chat-sessions.jsonl.gz"
_REASONING = "{traces}/long-reasoning.jsonl.gz"
_BOTH = "--policies vllm-dp-0.32,l4"


@dataclass(frozen=True, slots=True)
class FigureRun:
    """One command line, and where its figures are found."""

    name: str
    command: str
    """Arguments of `l4sim`; ``{traces}``, ``{shared}`` and ``{out}`` (an empty folder) stand for folders."""
    quick: bool = False
    """Whether the tests check it as well; only what the repository itself holds is read."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Text files that are put into ``{out}`` before."""

    @property
    def needs_shared(self) -> bool:
        """Whether it reads the folder of shared data."""
        return "{shared}" in self.command


def all_runs() -> Iterator[FigureRun]:
    """Every run whose digests are kept, by rising cost within each group."""
    yield from _policies()
    yield from _options()
    yield from _costs()
    yield from _plans()
    yield from _traces()
    yield from _sweeps()
    yield from _recorded()


def _tables(name: str, command: str, *, quick: bool = False, **files: str) -> FigureRun:
    return FigureRun(name, f"{command} --no-plots --out {{out}}", quick, files)


def _policies() -> Iterator[FigureRun]:
    for policy in POLICIES:
        yield _tables(f"policy/{policy}", f"replay {_MIX} --policy {policy} {_BUSY}", quick=True)


def _options() -> Iterator[FigureRun]:
    three = "--policies vllm-dp-0.32,llumnix,sglang-0.3,oracle-length,l4"
    small = "--instances 4 --limit 120"
    deaths = "--fail 1@20s --fail 5@40.5s"
    yield _tables("faults", f"compare {_MIX} {three} {_BUSY} {deaths}", quick=True)
    yield _tables("faults/all-dead", f"compare {_MIX} {_BOTH} {small} --fail 0@5s --fail 1@9s --fail 2@9s --fail 3@12s")
    sessions = f"--instances 4 --limit 300 {three}"
    yield _tables("sessions", f"compare {_SESSIONS} {sessions} --rate-scale 4", quick=True)
    yield _tables("sessions/few-blocks", f"compare {_SESSIONS} {sessions} --rate-scale 8 --kv-blocks 3000")
    yield _tables("sessions/without-prefix-caching", f"compare {_SESSIONS} {sessions} --no-prefix-caching")
    yield _tables("sessions/without-affinity", f"compare {_SESSIONS} {sessions} --no-prefix-affinity --rate-scale 4")
    yield _tables("sessions/faults", f"compare {_SESSIONS} {sessions} --fail 2@30s --rate-scale 4")
    yield _tables(
        "reasoning", f"compare {_REASONING} --policies vllm-dp-0.32,llumnix,l4,l4:replan --instances 4 --limit 400"
    )
    yield _tables("whole-trace", f"compare {_MIX} --policies vllm-dp-0.32,two-pools,l4,l4:replan")
    yield _tables(
        "options/one-by-one", f"compare {_MIX} {_BOTH} --instances 4 --limit 60 --no-fast-forward", quick=True
    )
    yield _tables("options/few-blocks", f"compare {_MIX} {_BOTH} {_BUSY} --kv-blocks 9000", quick=True)
    yield _tables(
        "options/few-blocks-for-prompts", f"compare {_MIX} {_BOTH} {_BUSY} --kv-blocks 9000 --no-reserve-full-prompt"
    )
    yield _tables("options/blocks-of-32", f"compare {_MIX} {_BOTH} {small} --block-size 32")
    yield _tables("options/synchronous", f"compare {_MIX} {_BOTH} {small} --no-async-scheduling")
    yield _tables(
        "options/small-batches", f"compare {_MIX} {_BOTH} {small} --max-num-seqs 8 --max-num-batched-tokens 512"
    )
    yield _tables("options/short-contexts", f"compare {_MIX} {_BOTH} {small} --max-model-len 16384", quick=True)
    yield _tables("options/memory", f"compare {_MIX} {_BOTH} {small} --gpu-memory-utilization 0.3")
    yield _tables("options/links", f"compare {_MIX} {_BOTH} {small} --gpus-per-node 2 --intra-link network-400g")
    yield _tables(
        "options/seed", f"compare {_MIX} --policies random,power-of-two,l4 {small} --seed 7 --plan-sample 1.0"
    )
    yield _tables("options/rate", f"compare {_MIX} {_BOTH} --instances 4 --rate 3 --duration 30")
    histogram = "prompt_tokens,output_tokens,requests_per_s\n500,200,2.5\n9000,300,0.5\n60000,600,0.1\n"
    given = "--plan-histogram {out}/histogram.csv"
    yield _tables("options/histogram", f"compare {_MIX} {_BOTH} {small} {given}", **{"histogram.csv": histogram})
    yield FigureRun("gain", f"gain {_MIX} --instances 6 --limit 150 --json")


def _costs() -> Iterator[FigureRun]:
    small = "--instances 4 --limit 120"
    for model in COST_MODELS:
        yield _tables(f"cost/{model}", f"compare {_MIX} {_BOTH} {small} --cost-model {model}", quick=True)
        yield _tables(f"cost/{model}/fa3", f"compare {_MIX} {_BOTH} {small} --cost-model {model} --profile h200-sxm")
    for kernel in ("flashinfer-cuda", "flashinfer-tensor", "flashinfer-batch"):
        yield _tables(f"kernel/{kernel}", f"compare {_MIX} {_BOTH} {small} --kernel {kernel}", quick=True)
        shown = f"--model llama-3.2-3b --kernel {kernel} --json"
        yield FigureRun(f"kernel/{kernel}/seconds", f"profile show h200-flashinfer {shown}", quick=True)
    fa2 = "--profile h200-sxm --kernel fa2"
    yield _tables("kernel/fa2", f"compare {_MIX} {_BOTH} {small} {fa2}", quick=True)
    yield _tables("kernel/fa2/mean", f"compare {_MIX} {_BOTH} {small} {fa2} --cost-model mean")
    for profile in ("a100-80gb-sxm", "h100-sxm", "h20-141gb", "l40-48gb", "rtx-pro-6000"):
        yield _tables(f"profile/{profile}", f"compare {_MIX} {_BOTH} {small} --profile {profile}")
    for profile in ("h200-flashinfer", "h200-sxm", "h100-sxm"):
        for tensor_parallel in (1, 2, 4, 8):
            shown = f"--tensor-parallel {tensor_parallel} --model llama-3.1-70b --json"
            yield FigureRun(
                f"profile/{profile}/seconds-tp{tensor_parallel}", f"profile show {profile} {shown}", quick=True
            )
    four = f"--instances 4 --limit 100 --tensor-parallel 4 --model llama-3.1-70b {_BOTH}"
    yield _tables("tensor-parallel-4", f"compare {_MIX} {four}", quick=True)
    yield _tables("tensor-parallel-4/fa3", f"compare {_MIX} {four} --profile h200-sxm --gpus-per-node 8")
    yield _tables("tensor-parallel-4/nodes", f"compare {_MIX} {four} --profile h100-sxm --intra-link nvlink")
    for model in ("llama-3.2-3b", "qwen2.5-14b-1m", "qwen3-32b"):
        yield _tables(f"model/{model}", f"compare {_MIX} {_BOTH} {small} --model {model}")


def _plans() -> Iterator[FigureRun]:
    yield FigureRun("plan", f"plan {_MIX} --json", quick=True)
    yield FigureRun("plan/e2e", f"plan {_MIX} --instances 12 --objective e2e --json")
    yield FigureRun("plan/slo", f"plan {_MIX} --objective slo --ttft-slo 2 --tpot-slo 0.03 --json")
    yield FigureRun("plan/three-stages", f"plan {_MIX} --stages 3 --json")
    yield FigureRun("plan/sessions", f"plan {_SESSIONS} --instances 6 --json")
    yield FigureRun("plan/reasoning", f"plan {_REASONING} --instances 10 --profile h200-sxm --json")


def _traces() -> Iterator[FigureRun]:
    for name, trace in (("mix", _MIX), ("sessions", _SESSIONS), ("reasoning", _REASONING)):
        yield FigureRun(f"trace/{name}", f"trace info {trace} --json", quick=True)
    for preset in PRESETS:
        made = f"trace synth {{out}}/made.parquet --preset {preset} --requests 400 --rate 4 --seed 3"
        yield FigureRun(f"synth/{preset}", made)
    bursts = "--arrivals gamma --cv 3 --turns 4 --think 20 --system-tokens 600"
    yield FigureRun("synth/bursts", f"trace synth {{out}}/made.parquet --preset chat --requests 400 --rate 4 {bursts}")


def _sweeps() -> Iterator[FigureRun]:
    grid = (
        "policies: [round-robin, l4]\ninstances: 4\nrate: [2, 4]\nseed: [0, 1]\n"
        "synth: {preset: long-context-mix, requests: 80, rate: 2}\n"
    )
    search = "policies: [vllm-dp-0.32, l4]\ninstances: 3\nsynth: {preset: long-context-mix, requests: 60, rate: 1}\n"
    price = "--slo ttft_p99=2s,tpot_p99=50ms --price 3"
    limits = "--slo ttft=5s,tpot=100ms,attainment=90% --search rate"
    yield _tables("sweep", f"sweep {{out}}/grid.yaml {price}", **{"grid.yaml": grid})
    yield _tables("sweep/capacity", f"sweep {{out}}/grid.yaml {limits}", **{"grid.yaml": search})


def _recorded() -> Iterator[FigureRun]:
    for name in ("h200-4", "h200-8"):
        yield FigureRun(f"recorded/{name}", f"validate recorded {{reports}}/{name} --json --out {{out}}")
    vllm = "validate vllm {shared}/validation/vllm0.19"
    yield FigureRun("vllm/rtx-pro-6000", f"{vllm}_rtxpro6000_llama3.1-8b --profile rtx-pro-6000 --json --out {{out}}")
    yield FigureRun("vllm/rtx-pro-6000/imported", f"{vllm}_rtxpro6000_llama3.1-8b --json --out {{out}}")
    yield FigureRun("vllm/rtx-4090/imported", f"{vllm}_rtx4090_llama3.1-8b --json --out {{out}}")
    for name, limit in (("mooncake_synthetic.jsonl.gz", 200), ("weka_agentic_mooncake512_dev.jsonl.gz", 60)):
        policies = "--policies vllm-dp-0.32,sglang-0.3,l4 --instances 4"
        yield _tables(f"prefixes/{name.split('_')[0]}", f"compare {{shared}}/traces/{name} {policies} --limit {limit}")
    azure = (
        "{shared}/traces/azure_2023_conv.csv.gz --instances 4 --limit 500 --policies vllm-dp-0.32,sglang-0.3:bucket,l4"
    )
    yield _tables("azure", f"compare {azure}")
