"""One of each thing that a package may offer to l4sim, as small as can be."""

from __future__ import annotations

from l4sim.engine.vllm.engine import VLLMEngine
from l4sim.policies.policy import Policy
from l4sim.workload.formats.base import Format, fields
from l4sim.workload.parsed import ParsedRequests
from l4sim.workload.raw_records import times, tokens

LONGEST_PROMPT_TOKENS = 500
ITERATION_S = 0.01


class LastInstance:
    """Sends everything to the last instance."""

    def route(self, request, instances):
        return len(instances) - 1


def last_instance(setting):
    return Policy(LastInstance())


class ConstantCost:
    """Every iteration takes as long as any other."""

    def iteration_s(self, batch):
        return ITERATION_S

    def decode_segment_s(self, batch, iterations):
        return ITERATION_S, ITERATION_S


def constant_cost(profile, model, *, tensor_parallel, kernel, max_num_batched_tokens, max_num_seqs):
    return ConstantCost()


def no_cost(profile, model, **options):
    return None


class ShortPrompts(VLLMEngine):
    """vLLM's rules, but long prompts are refused."""

    def refusal(self, request):
        if request.prompt_tokens > LONGEST_PROMPT_TOKENS:
            return "the prompt is too long"
        return super().refusal(request)


TRIPLES = Format(
    "triples",
    (fields("when", "in", "out"),),
    fields(),
    lambda records, options: ParsedRequests(
        tokens(records, "in"), tokens(records, "out"), times(records, "when", "s", options.time_unit)
    ),
)
