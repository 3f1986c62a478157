"""Decisions of real routers, replayed through the policies that are named after them.

    python -m benchmarks.router_decisions [FOLDER]

prints, for each recording of FOLDER (default: the one that L4SIM_ROUTER_DECISIONS names, else golden/routers in
L4SIM_SHARED), how many decisions the policy takes alike, or how likely the recorded distribution is under its rule.

A recording is one run of a real router before fake workers. Product and version are in its file's name, the rest in its
JSON: ``policy``, ``n`` workers, ``options`` as on the command line, and ``events`` in order of arrival, each with the
``worker`` that was chosen, ``loads`` (requests in flight per worker), ``tokens`` and ``ids`` of the prompt (blocks of
512 tokens), ``t`` in seconds, and which requests have ``finished`` since. History is forced: whatever the policy would
have done, it is told what the router did. What a recording does not tell is fitted, by the decisions themselves: the
phase of a router's timers, the order in which it knows its workers, and which of them had reported when the run began.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise, permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from l4sim.policies.rivals import smg
from l4sim.policies.rivals.balance import CHARACTERS_PER_TOKEN
from l4sim.policies.rivals.cache_aware import (
    SGLANG_EVICTION_S,
    SGLANG_TREE_TOKENS,
    VLLM_EVICTION_S,
    VLLM_TREE_TOKENS,
    CacheAware,
)
from l4sim.policies.rivals.sglang import POLL_S, PowerOfTwoTokens
from l4sim.policies.rivals.sglang_bucket import Bucket
from l4sim.policies.views import SOLE_KIND, InstanceKind, RequestView

ID_TOKENS = 512
_SHARED = Path(os.environ.get("L4SIM_SHARED", Path(__file__).resolve().parents[1] / ".." / "shared"))
FOLDER = Path(os.environ.get("L4SIM_ROUTER_DECISIONS", _SHARED / "golden" / "routers"))
"""Where recordings are looked for."""


class UnknownRouterError(Exception):
    """No policy stands for a recording's product, version or policy."""


@dataclass(frozen=True)
class Worker:
    """What a fake worker says of itself, always: one request running, and KV in use by its number."""

    instance: int
    as_of_s: float = 0.0
    kind: InstanceKind = SOLE_KIND
    running: int = 1
    waiting: int = 0
    waiting_tokens: int = 0
    pending_prompt_tokens: int = 0
    context_tokens: int = 0
    kv_blocks_total: int = 100
    kv_block_tokens: int = 10

    @property
    def kv_blocks_free(self) -> int:
        """One block more is in use than on the worker before it."""
        return self.kv_blocks_total - 1 - self.instance


_REPORTED_THROUGHPUT = 1.0
"""Tokens per second, as the fake workers have it."""


class Arrival(NamedTuple):
    """One recorded decision."""

    request: RequestView
    worker: int
    loads: tuple[int, ...]
    time_s: float
    finished: tuple[int, ...]
    """Requests that ended before the next arrival."""


@dataclass(frozen=True)
class Recording:
    """One recorded run."""

    product: str
    version: str
    note: str
    """What the file's name says after the policy; empty for nothing."""
    policy: str
    workers: int
    options: dict[str, str]
    arrivals: tuple[Arrival, ...]

    def option(self, name: str, default: float) -> float:
        """A figure from the command line."""
        return float(self.options.get(name, default))


class Agreement(NamedTuple):
    """How a policy agrees with a recording."""

    decisions: int
    equal_pct: float
    """Decisions that are the policy's, or equal to it under its rule; NaN where the rule is a distribution."""
    probability: float
    """That chance alone differs so much from the rule (chi-square); NaN where the rule is no distribution."""
    fitted: str
    """What was fitted, in words; empty for nothing."""


def read(path: Path) -> Recording:
    """A recording from its file."""
    product_version, *rest = path.name.removesuffix(".gz").removesuffix(".json").split("_")
    product, version = product_version.rsplit("-", 1)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        data = json.load(file)
    return Recording(
        product,
        version,
        rest[1] if len(rest) > 1 else "",
        data["policy"],
        data["n"],
        _options(data["options"].split()),
        tuple(_arrivals(data["events"])),
    )


def _options(words: Sequence[str]) -> dict[str, str]:
    """Options with a value; of those given twice the last."""
    return {word: value for word, value in pairwise(words) if word.startswith("--") and not value.startswith("--")}


def _arrivals(events: Sequence[dict[str, Any]]) -> Iterator[Arrival]:
    chained: dict[tuple[int, ...], int] = {}
    for event in events:
        ids = tuple(event["ids"])
        # A policy's ids stand for their block and all before it.
        names = tuple(chained.setdefault(ids[: n + 1], len(chained)) for n in range(len(ids)))
        request = RequestView(event["id"], event["tokens"], -1, names, event["tokens"])
        finished = tuple(event.get("finished", ()))
        yield Arrival(request, event["worker"], tuple(event["loads"]), event["t"], finished)


def agreement(recording: Recording) -> Agreement:
    """How the policy that stands for the recorded router agrees with it.

    Raises:
        UnknownRouterError: none does.
    """
    series = recording.product, recording.version.rsplit(".", 1)[0]
    known = _ROUTERS.get((*series, recording.policy))
    if known is None:
        names = ", ".join(sorted({f"{product} {version}: {policy}" for product, version, policy in _ROUTERS}))
        raise UnknownRouterError(
            f"no policy stands for {recording.product} {recording.version} with {recording.policy}; known are {names}"
        )
    return known(recording)


# Replays.


def _replay(recording: Recording, router: Any, decide: Callable[[Arrival], None], phase_s: float = 0.0) -> None:
    """Show a router what a recorded one saw; ``decide`` is called before it is told what was chosen.

    ``phase_s``: when, after the run's start, its timers fire and its workers report for the first time.
    """
    periods: dict[str, float] = dict(getattr(router, "timers", {}))
    age_s = getattr(router, "view_age_s", 0.0)
    if age_s:
        periods["published"] = age_s
    due_s = {name: phase_s % period_s for name, period_s in periods.items()}
    takes_time = isinstance(router, Bucket)
    for arrival in recording.arrivals:
        for name, period_s in periods.items():
            while due_s[name] <= arrival.time_s:
                if name == "published":
                    router.published(due_s[name])
                else:
                    router.tick(name, due_s[name])
                due_s[name] += period_s
        decide(arrival)
        router.send(arrival.request, arrival.worker, *([arrival.time_s] if takes_time else []))
        for request in arrival.finished:
            if hasattr(router, "ended"):
                router.ended(request, arrival.time_s)


def _equal(recording: Recording, router: Any, phase_s: float = 0.0, first: int | None = None) -> int:
    """How many decisions, of all or of the first ones, are the rule's."""
    views = [Worker(number) for number in range(recording.workers)]
    equal = seen = 0

    def decide(arrival: Arrival) -> None:
        nonlocal equal, seen
        seen += 1
        if first is None or seen <= first:
            equal += arrival.worker in router.candidates(arrival.request, views)

    part = recording if first is None else _head(recording, first)
    _replay(part, router, decide, phase_s)
    return equal


def _head(recording: Recording, arrivals: int) -> Recording:
    return replace(recording, arrivals=recording.arrivals[:arrivals])


def _told(recording: Recording, equal: int, fitted: str = "") -> Agreement:
    decisions = len(recording.arrivals)
    return Agreement(decisions, 100 * equal / decisions, float("nan"), fitted)


def _best_phase(period_s: float, count: Callable[[float], float]) -> float:
    """The phase with the most, looked for coarsely and then finely."""
    coarse = max(np.linspace(0, period_s, 25, endpoint=False).tolist(), key=count)
    fine = [(coarse + shift) % period_s for shift in np.linspace(-period_s / 25, period_s / 25, 17).tolist()]
    return float(max(fine, key=count))


def _thresholds(recording: Recording) -> dict[str, Any]:
    return {
        "cache_threshold": recording.option("--cache-threshold", 0.3),
        "balance_abs_threshold": int(recording.option("--balance-abs-threshold", 64)),
        "balance_rel_threshold": recording.option("--balance-rel-threshold", 1.5),
    }


def _cache_aware(recording: Recording, eviction_s: float, tree_tokens: int, tokens_per_unit: float) -> Agreement:
    """`cache_aware` of SGLang's gateway and of vLLM's router."""
    size = recording.options.get("--max-tree-size")
    most_tokens = tree_tokens if size is None else int(float(size) * tokens_per_unit)
    period_s = recording.option("--eviction-interval-secs", eviction_s)
    if recording.note == "no-tokenizer-endpoints":
        recording = _without_ids(recording)

    def count(phase_s: float) -> int:
        router = CacheAware(
            recording.workers,
            ID_TOKENS,
            eviction_interval_s=period_s,
            max_tree_tokens=most_tokens,
            **_thresholds(recording),
        )
        return _equal(recording, router, phase_s)

    if sum(arrival.request.prompt_tokens for arrival in recording.arrivals) <= most_tokens:
        return _told(recording, count(0.0))
    phase_s = _best_phase(period_s, count)
    return _told(recording, count(phase_s), f"eviction first after {phase_s:.2f} s")


def _without_ids(recording: Recording) -> Recording:
    """The router could not have its prompts tokenized, and so knows nothing of them."""
    blind = [arrival._replace(request=arrival.request._replace(prefix_ids=())) for arrival in recording.arrivals]
    return replace(recording, arrivals=tuple(blind))


def _sglang_cache_aware(recording: Recording) -> Agreement:
    return _cache_aware(recording, SGLANG_EVICTION_S, SGLANG_TREE_TOKENS, 1 / CHARACTERS_PER_TOKEN)


def _vllm_cache_aware(recording: Recording) -> Agreement:
    return _cache_aware(recording, VLLM_EVICTION_S, VLLM_TREE_TOKENS, 1.0)


def _smg_cache_aware(recording: Recording) -> Agreement:
    def router(silent: Sequence[int]) -> smg.CacheAware:
        made = smg.CacheAware(
            recording.workers,
            ID_TOKENS,
            0,
            throughput_tokens_per_s=_REPORTED_THROUGHPUT,
            eviction_interval_s=recording.option("--eviction-interval-secs", 60.0),
            **_thresholds(recording),
        )
        return _as_registered(made, silent)

    silent = max(
        _subsets(recording.workers),
        key=lambda some: max(_equal(recording, router(some), phase_s, first=120) for phase_s in (2.5, 5.0, 7.5, 9.9)),
    )
    phase_s = _best_phase(smg.POLL_S, lambda phase_s: _equal(recording, router(silent), phase_s))
    fitted = f"{_POLLED.format(phase_s)}, before it nothing from {list(silent) or 'none'}"
    return _told(recording, _equal(recording, router(silent), phase_s), fitted)


def _as_registered(made: Any, silent: Sequence[int]) -> Any:
    """The router as it is after its workers have registered, when some have not reported yet."""
    made.published(0.0)
    made.wait.of([Worker(number) for number in made.wait.in_flight.numbers])
    made.wait.silent = set(silent)
    return made


def _subsets(workers: int) -> list[tuple[int, ...]]:
    return [some for size in range(workers + 1) for some in combinations(range(workers), size)]


def _bucket(recording: Recording) -> Agreement:
    interval_s = recording.option("--bucket-adjust-interval-secs", 5.0)

    def count(order: Sequence[int], phase_s: float) -> int:
        router = Bucket(
            recording.workers,
            balance_abs_threshold=int(recording.option("--balance-abs-threshold", 64)) // CHARACTERS_PER_TOKEN,
            balance_rel_threshold=recording.option("--balance-rel-threshold", 1.5),
            adjust_interval_s=interval_s,
            order=order,
        )
        return _equal(recording, router, phase_s)

    orders = list(permutations(range(recording.workers)))
    order, phase_s = orders[0], 0.0
    for _ in range(2):
        counts = {some: count(some, phase_s) for some in orders}
        order = max(orders, key=counts.__getitem__)
        phase_s = _best_phase(interval_s, partial(count, order))
    return _told(recording, count(order, phase_s), f"ranges of {list(order)}, redrawn first after {phase_s:.2f} s")


def _round_robin(recording: Recording) -> Agreement:
    order = [arrival.worker for arrival in recording.arrivals[: recording.workers]]
    equal = sum(arrival.worker == order[n % len(order)] for n, arrival in enumerate(recording.arrivals))
    return _told(recording, equal, f"rotation {order}")


# Distributions.

Probabilities = Callable[[Arrival], Sequence[float]]
"""How likely the rule takes each worker."""
Maker = Callable[[], tuple[Any, Probabilities]]
"""A router that has not run yet, and its rule."""
_POLLED = "first poll of all after {:.2f} s"


def _chances(recording: Recording, make: Maker, phase_s: float) -> list[Sequence[float]]:
    router, probabilities = make()
    seen: list[Sequence[float]] = []
    _replay(recording, router, lambda arrival: seen.append(probabilities(arrival)), phase_s)
    return seen


def _likelihood(recording: Recording, make: Maker, phase_s: float) -> float:
    """Log-likelihood of the choices; one that the rule excludes costs as much as one in a thousand."""
    chances = _chances(recording, make, phase_s)
    chosen = [row[arrival.worker] for row, arrival in zip(chances, recording.arrivals, strict=True)]
    return float(np.log(np.maximum(chosen, 1e-3)).sum())


def _silent(recording: Recording, maker: Callable[[Sequence[int]], Maker], period_s: float) -> tuple[int, ...]:
    """Which workers had not reported when the run began, by the decisions of the first moments."""
    early = _head(recording, sum(arrival.time_s < period_s / 4 for arrival in recording.arrivals))
    late_s = period_s * 0.999
    return max(_subsets(recording.workers), key=lambda silent: _likelihood(early, maker(silent), late_s))


def _distribution(recording: Recording, make: Maker, period_s: float, fitted: str) -> Agreement:
    """Fit a phase by likelihood, and hold the choices against their probabilities."""
    phase_s = _best_phase(period_s, lambda phase: _likelihood(recording, make, phase)) if period_s else 0.0
    return _held_against(recording, _chances(recording, make, phase_s), fitted.format(phase_s))


def _held_against(recording: Recording, chances: Sequence[Sequence[float]], fitted: str) -> Agreement:
    """Chi-square of choices whose probabilities differ from one to the next; impossible ones count as unequal."""
    rows = np.array(chances)
    workers = np.array([arrival.worker for arrival in recording.arrivals])
    possible = rows[np.arange(len(rows)), workers] > 0
    rows, workers = rows[possible], workers[possible]
    observed = np.bincount(workers, minlength=recording.workers)
    difference = observed - rows.sum(axis=0)
    covariance = np.diag(rows.sum(axis=0)) - rows.T @ rows
    statistic = difference @ np.linalg.pinv(covariance, rcond=1e-9, hermitian=True) @ difference
    freedom = np.linalg.matrix_rank(covariance, hermitian=True)
    return Agreement(len(possible), 100 * float(possible.mean()), float(chi2.sf(statistic, freedom)), fitted)


def _random(recording: Recording) -> Agreement:
    chances = [[1 / recording.workers] * recording.workers] * len(recording.arrivals)
    return _held_against(recording, chances, "")


def _pairs(workers: int, better: Callable[[int, int], Sequence[int]]) -> list[float]:
    """Probabilities of a rule that draws two workers and takes the better one; of equals either."""
    chances = [0.0] * workers
    pairs = list(combinations(range(workers), 2))
    for pair in pairs:
        best = better(*pair)
        for worker in best:
            chances[worker] += 1 / len(best) / len(pairs)
    return chances


def _power_of_two_tokens(recording: Recording, *, reports: bool) -> Agreement:
    period_s = recording.option("--worker-startup-check-interval", POLL_S)
    views = [Worker(number) for number in range(recording.workers)]

    def make() -> tuple[Any, Probabilities]:
        router = PowerOfTwoTokens(recording.workers, 0, reports=reports, view_age_s=period_s)

        def better(first: int, second: int) -> list[int]:
            takes_first, takes_second = router.prefers(first, second, views), router.prefers(second, first, views)
            return [first] * takes_first + [second] * takes_second

        return router, lambda arrival: _pairs(recording.workers, better)

    return _distribution(recording, make, period_s if reports else 0.0, _POLLED if reports else "")


def _smg_power_of_two(recording: Recording) -> Agreement:
    views = [Worker(number) for number in range(recording.workers)]

    def maker(silent: Sequence[int]) -> Maker:
        def make() -> tuple[Any, Probabilities]:
            made = smg.PowerOfTwo(recording.workers, 0, throughput_tokens_per_s=_REPORTED_THROUGHPUT)
            router = _as_registered(made, silent)

            def better(first: int, second: int) -> list[int]:
                return router.shortest(views, (first, second))  # type: ignore[no-any-return]

            return router, lambda arrival: _pairs(recording.workers, better)

        return make

    return _distribution(recording, maker(_silent(recording, maker, smg.POLL_S)), smg.POLL_S, _POLLED)


_ROUTERS: dict[tuple[str, str, str], Callable[[Recording], Agreement]] = {
    ("sglang-router", "0.3", "cache_aware"): _sglang_cache_aware,
    ("sglang-router", "0.3", "power_of_two"): lambda recording: _power_of_two_tokens(recording, reports=True),
    ("sglang-router", "0.3", "bucket"): _bucket,
    ("sglang-router", "0.3", "round_robin"): _round_robin,
    ("sglang-router", "0.3", "random"): _random,
    ("vllm-router", "0.1", "cache_aware"): _vllm_cache_aware,
    ("vllm-router", "0.1", "power_of_two"): lambda recording: _power_of_two_tokens(recording, reports=False),
    ("vllm-router", "0.1", "round_robin"): _round_robin,
    ("vllm-router", "0.1", "random"): _random,
    ("smg", "1.13", "cache_aware"): _smg_cache_aware,
    ("smg", "1.13", "power_of_two"): _smg_power_of_two,
    ("smg", "1.13", "round_robin"): _round_robin,
    ("smg", "1.13", "random"): _random,
}
"""By product, version and policy."""


def main(folder: Path) -> None:
    """Print how every recording of a folder is agreed with."""
    paths = sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")])
    if not paths:
        print(f"no recordings in {folder}")
    for path in paths:
        try:
            found = agreement(read(path))
        except UnknownRouterError as error:
            print(f"{path.name}: {error}")
            continue
        chance = "" if np.isnan(found.probability) else f", chi-square p {found.probability:.2f}"
        fitted = f" (fitted: {found.fitted})" if found.fitted else ""
        print(f"{path.name}: {found.equal_pct:.1f} % of {found.decisions} equal or a tie{chance}{fitted}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
