"""The rate that a closed loop settles at, by Little's law. **[ours]**

So many requests are in flight, each takes so long: as many end a second as one over the other. How long one takes
follows from how many are in flight, by the cost model: iterations decode all that run, and compute as many prompt
tokens as come with those that take the places of the finished. Sessions' delays between turns count as time in which
nothing is in flight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.errors import InputError
from l4sim.policies.policy import InstanceFacts
from l4sim.workload.trace import IntArray, Trace

_BISECTIONS = 30


@dataclass(frozen=True, slots=True)
class LoopRate:
    """What a closed loop is expected to settle at, over the whole fleet."""

    concurrency: int
    requests_per_s: float
    e2e_s: float
    """How long a request is expected to take."""

    def in_words(self) -> str:
        """One line."""
        return (
            f"planned for {self.requests_per_s:.3g} requests/s: {self.concurrency} at a time, each predicted to take "
            f"{self.e2e_s:.3g} s (Little's law)"
        )


def loop_rate(sample: Trace, facts: InstanceFacts, instances: int, new_prompt_tokens: IntArray) -> LoopRate:
    """The rate of requests like a sample's, sent to equal instances so many at a time.

    ``new_prompt_tokens``: what of each prompt is computed, shape ``[n]``.

    Raises:
        InputError: the sample is no closed loop, or has no request that fits an instance.
    """
    if sample.concurrency is None:
        raise InputError(f"{sample.name}: requests come by their times, not so many at a time")
    fits = sample.prompt_tokens + sample.output_tokens <= min(facts.max_model_len, facts.kv_tokens)
    if not fits.any():
        raise InputError(f"{sample.name}: no request of the sample fits an instance")
    busy = min(instances, sample.concurrency)
    sessions = sample.concurrency / busy
    think_s = float(np.nan_to_num(sample.delay_s).mean())
    work = _Work(sample.prompt_tokens[fits], sample.output_tokens[fits], float(new_prompt_tokens[fits].mean()), facts)
    low, high = 0.0, sessions
    if think_s > 0:
        # More in flight, more that end and then think: the two add up to the sessions at one number.
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if middle + work.rate_per_s(middle) * think_s < sessions:
                low = middle
            else:
                high = middle
    rate_per_s = work.rate_per_s(high)
    return LoopRate(sample.concurrency, busy * rate_per_s, high / rate_per_s)


class _Work:
    """One instance's iterations with so many requests in flight."""

    def __init__(
        self, prompt_tokens: IntArray, output_tokens: IntArray, new_tokens: float, facts: InstanceFacts
    ) -> None:
        self._prompt, self._output, self._new, self._facts = prompt_tokens, output_tokens, new_tokens, facts
        self._decoded = output_tokens.cumsum()
        # Where a prompt's tokens are on average: as many pairs of attention come from one there.
        self._middle = float((prompt_tokens.astype(np.float64) ** 2).sum() / (2 * prompt_tokens.sum()))
        held = float(np.average(prompt_tokens + output_tokens / 2, weights=output_tokens))
        self._most = min(float(facts.max_num_seqs), max(facts.kv_tokens / held, 1.0))

    def rate_per_s(self, in_flight: float) -> float:
        """Requests a second that end."""
        running = min(in_flight, self._most)
        decoding = max(round(running), 1)
        room = max(self._facts.max_num_batched_tokens - decoding, 1)
        iterations = max(float(self._output.mean()), running * self._new / room)
        chunk = round(running * self._new / iterations)
        contexts = self._contexts(decoding)
        prefills = (Prefill(chunk, max(round(self._middle - chunk / 2), 0)),) if chunk else ()
        seconds = self._facts.cost.iteration_s(Batch(contexts, int(contexts.sum()), prefills))
        return running / (iterations * seconds)

    def _contexts(self, count: int) -> IntArray:
        """Contexts of so many requests at some moment: each is met as often as it decodes tokens."""
        at = (np.arange(count) + 0.5) / count * self._decoded[-1]
        rows = np.searchsorted(self._decoded, at)
        generated = at - (self._decoded[rows] - self._output[rows])
        return np.asarray(self._prompt[rows] + generated, dtype=np.int64) + 1
