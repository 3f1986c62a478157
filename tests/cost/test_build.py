"""From profile and model to seconds: above the roofline and near it, for every bundled pair."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from l4sim.batch import Batch
from l4sim.cost.attention import MODELS
from l4sim.cost.build import COST_MODELS, build_cost
from l4sim.cost.communication import AllReduce
from l4sim.cost.curve import OverBytes, OverSequences, OverTokens
from l4sim.cost.iteration import IterationCost
from l4sim.cost.operators import MeasuredOperators, OperatorSizes
from l4sim.cost.profile import list_profiles, load_profile
from l4sim.errors import InputError
from l4sim.specs.layers import LayerGroup
from l4sim.specs.mlp import Experts
from l4sim.specs.model import Model, load_model, with_kv_dtype
from tests.mixed_model import MIXED, NARROW, WIDE, of_layers

H200 = load_profile("h200-sxm")
LLAMA_8B = load_model("llama-3.1-8b")
SHAPES = [("llama-3.2-3b", 1), ("llama-3.1-8b", 1), ("qwen2.5-14b-1m", 1), ("qwen3-32b", 1), ("llama-3.1-70b", 4)]


def test_one_request_on_h200_takes_little_more_than_its_weights(batch: Callable[..., Batch]) -> None:
    """Llama-3.1-8B without the embedding table is 15.0 GB: 3.13 ms at 4.8 TB/s."""
    read_bytes = LLAMA_8B.weight_bytes - LLAMA_8B.vocab * LLAMA_8B.hidden * 2
    floor_s = read_bytes / 4.8e12
    assert floor_s == pytest.approx(3.127e-3, abs=1e-6)
    assert 1.1 * floor_s < build_cost(H200, LLAMA_8B).iteration_s(batch([1024])) < 1.8 * floor_s
    assert build_cost(H200, LLAMA_8B).iteration_s(batch([1024])) < 1.65 * LLAMA_8B.weight_bytes / 4.8e12


@pytest.mark.slow
@pytest.mark.parametrize("name", list_profiles())
@pytest.mark.parametrize(("model_name", "ranks"), SHAPES)
def test_no_iteration_beats_bytes_or_arithmetic(
    batch: Callable[..., Batch], name: str, model_name: str, ranks: int
) -> None:
    profile, model = load_profile(name), load_model(model_name)
    cost = build_cost(profile, model, tensor_parallel=ranks)
    weights_bytes = (model.weight_bytes - model.vocab * model.hidden * 2) / ranks
    decode_bytes = weights_bytes + 64 * 4096 * model.kv_bytes_per_token / ranks
    assert cost.iteration_s(batch([1])) > weights_bytes / profile.gpu.memory_bytes_per_s
    assert cost.iteration_s(batch([4096] * 64)) > decode_bytes / profile.gpu.memory_bytes_per_s
    prefill_flops = 2 * (model.parameters - 2 * model.vocab * model.hidden) * 8192 / ranks
    assert cost.iteration_s(batch(prefills=[(8192, 0)])) > prefill_flops / profile.gpu.bf16_flops


def test_a_prefill_of_8192_tokens_by_hand(batch: Callable[..., Batch]) -> None:
    # 6.98e9 layer weights x 2 x 8,192 = 114 TFLOP, attention 2.2 TFLOP per 4 layers or 17.6: 133 ms at 989 TFLOP/s.
    seconds = build_cost(H200, LLAMA_8B).iteration_s(batch(prefills=[(8192, 0)]))
    assert 0.133 < seconds < 1.7 * 0.133


@pytest.mark.parametrize("cost_model", COST_MODELS)
def test_longer_contexts_more_requests_and_prompts_take_longer(batch: Callable[..., Batch], cost_model: str) -> None:
    cost = build_cost(H200, LLAMA_8B, cost_model=cost_model)
    base_s = cost.iteration_s(batch([4096] * 16))
    assert cost.iteration_s(batch([32768] * 16)) > base_s
    assert cost.iteration_s(batch([4096] * 64)) > base_s
    assert cost.iteration_s(batch([4096] * 16, [(2048, 0)])) > base_s


def test_the_affine_model_is_near_the_tile_model_on_batches_in_between(batch: Callable[..., Batch]) -> None:
    tile, affine = (build_cost(H200, LLAMA_8B, cost_model=name) for name in ("tile", "affine"))
    for decode in (batch([3000] * 20), batch([12_000] * 40), batch([700] * 200)):
        assert affine.iteration_s(decode) == pytest.approx(tile.iteration_s(decode), rel=0.25)


def test_an_all_reduce_follows_each_layer_s_attention_and_mlp_and_the_embedding(batch: Callable[..., Batch]) -> None:
    """Whatever else it takes, an iteration of 4 ranks takes so many all-reduces of 1 ms more than with all-reduces of
    none: 2 x 32 for the layers, one for the embedding, and one more that gathers the logits of who is sampled.
    """
    assert _all_reduces_s(batch([100]), OverBytes((0.0, 1e12), (1e-3, 1e-3))) == pytest.approx((2 * 32 + 1 + 1) * 1e-3)


def test_all_reduces_are_of_hidden_states_and_half_the_logits(batch: Callable[..., Batch]) -> None:
    """At 1 ns per byte: bf16 hidden states of the captured 8 tokens, and half of the logits of 7 sampled sequences."""
    per_byte = OverBytes((0.0, 1e12), (0.0, 1e3))
    hidden, logits = 8 * LLAMA_8B.hidden * 2, 7 * LLAMA_8B.vocab * 2 / 2
    assert _all_reduces_s(batch([100] * 7), per_byte) == pytest.approx((65 * hidden + logits) * 1e-9)


def test_steps_in_graphs_take_what_they_are_padded_to(batch: Callable[..., Batch]) -> None:
    """vLLM's graphs, where a profile tells none: 57 to 64 decodes have one graph, 65 the next; their samples differ."""
    cost = build_cost(H200, LLAMA_8B, max_num_seqs=128)
    assert isinstance(cost, IterationCost)
    of_rows = [cost.tokens_s[requests] for requests in (57, 64, 65)]
    assert of_rows[0] == of_rows[1] < of_rows[2]
    assert cost.decodes_s[57] < cost.decodes_s[64], "only who is sampled has logits"
    assert cost.tokens_s[257] > cost.tokens_s[256] == cost.tokens_s[249], "beyond twice 128 nothing is captured"


def test_steps_beyond_the_largest_graph_launch_their_all_reduces(batch: Callable[..., Batch]) -> None:
    """vLLM captures up to 512 tokens, prompts among them in pieces; at 1 ms where captured, 3 ms where launched."""
    captured, eager = (OverBytes((0.0, 1e12), (seconds, seconds)) for seconds in (1e-3, 3e-3))
    for prompt, once_s in ((512, 1e-3), (513, 3e-3)):
        found_s = _all_reduces_s(batch([], [(prompt, 0)]), captured, eager)
        assert found_s == pytest.approx(65 * once_s + 1e-3), "the logits' gathering is hidden behind the step"
    assert _all_reduces_s(batch([100] * 513), captured, eager) == pytest.approx(65 * 3e-3 + 1e-3)


def _all_reduces_s(batch: Batch, captured: OverBytes, eager: OverBytes | None = None) -> float:
    """What all-reduces by these curves add to an iteration of 4 ranks."""
    none = OverBytes((0.0, 1e12), (0.0, 0.0))
    with_them, without = (
        build_cost(H200, LLAMA_8B, tensor_parallel=4, all_reduce=each).iteration_s(batch)
        for each in (AllReduce(captured, eager or captured, True, "ours"), AllReduce(none, none, True, "ours"))
    )
    return with_them - without


def test_tensor_parallelism_saves_time_but_less_than_its_ranks(batch: Callable[..., Batch]) -> None:
    decode = batch([4096] * 64)
    one, four = (build_cost(H200, LLAMA_8B, tensor_parallel=ranks).iteration_s(decode) for ranks in (1, 4))
    assert one / 4 < four < one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "fa9"}, r"profile h200-sxm: no kernel 'fa9', accepted are"),
        ({"cost_model": "magic"}, r"no cost model 'magic': accepted are tile, mean, sum, skew, affine"),
        ({"tensor_parallel": 3}, r"llama-3.1-8b: tensor parallel 3 does not divide 32 heads"),
    ],
)
def test_what_is_not_there_is_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_cost(H200, LLAMA_8B, **options)  # type: ignore[arg-type]


def ends_s(group: LayerGroup, iteration: Batch, **options: Any) -> float:
    """What an iteration takes beside its layers: twice that of four layers, less that of eight."""
    four_s, eight_s = (seconds(of_layers(group, count), iteration, **options) for count in (4, 8))
    return 2 * four_s - eight_s


def seconds(model: Model, iteration: Batch, **options: Any) -> float:
    return build_cost(H200, model, **options).iteration_s(iteration)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"tensor_parallel": 2}, *({"cost_model": name} for name in MODELS)])
@pytest.mark.parametrize("prefills", [[], [(512, 1024)]])
def test_seconds_are_sums_over_groups_of_layers(
    batch: Callable[..., Batch], options: dict[str, Any], prefills: list[tuple[int, int]]
) -> None:
    iteration = batch([300, 4096, 20_000, 7], prefills)
    alone_s = sum(seconds(of_layers(group, group.count), iteration, **options) for group in (WIDE, NARROW))
    expected_s = alone_s - ends_s(WIDE, iteration, **options)
    assert seconds(MIXED, iteration, **options) == pytest.approx(expected_s, rel=1e-9)
    assert ends_s(WIDE, iteration, **options) == pytest.approx(ends_s(NARROW, iteration, **options), rel=1e-6)


def test_segments_of_a_mixed_model_are_its_iterations(batch: Callable[..., Batch]) -> None:
    cost = build_cost(H200, MIXED)
    first, last = batch([300, 4096]), batch([1299, 5095])
    assert cost.decode_segment_s(first, 1000) == (cost.iteration_s(first), cost.iteration_s(last))


def test_groups_with_the_same_attention_are_evaluated_once() -> None:
    one = build_cost(H200, of_layers(WIDE, 6))
    two = build_cost(H200, replace(MIXED, groups=(WIDE, replace(NARROW, attention=WIDE.attention))))
    assert isinstance(one, IterationCost)
    assert isinstance(two, IterationCost)
    assert (two.attention, two.repeats) == (one.attention, one.repeats)


def test_the_affine_model_takes_a_mixed_model_too(batch: Callable[..., Batch]) -> None:
    iteration = batch([3000] * 20)
    assert seconds(MIXED, iteration, cost_model="affine") == pytest.approx(seconds(MIXED, iteration), rel=0.25)


def test_measured_operators_serve_the_groups_that_they_are_of(batch: Callable[..., Batch]) -> None:
    iteration = batch([4096])
    sizes = asdict(OperatorSizes.of(MIXED, WIDE))
    curves = OverTokens((1.0,), (1e-3,)), OverTokens((1.0,), (5e-4,)), OverSequences((1.0,), (5e-4,))
    measured = MeasuredOperators(*sizes.values(), 1, *curves)
    profile = replace(H200, operators=(measured,))
    narrow_s = seconds(of_layers(NARROW, 2), iteration) - ends_s(NARROW, iteration)
    wide_s = build_cost(profile, of_layers(WIDE, 4)).iteration_s(iteration)
    assert build_cost(profile, MIXED).iteration_s(iteration) == pytest.approx(wide_s + narrow_s, rel=1e-9)
    assert wide_s > 4 * 1e-3 + 2 * 5e-4
    # Another vocabulary is another model.
    other = replace(MIXED, vocab=32_001)
    assert build_cost(profile, other).iteration_s(iteration) == seconds(other, iteration)


@pytest.mark.parametrize("cost_model", COST_MODELS)
def test_layers_whose_seconds_are_not_known_are_refused_with_the_profile(cost_model: str) -> None:
    group = replace(WIDE, mlp=Experts(8, 2, 1024))
    with pytest.raises(InputError, match=r"^mixed: profile h200-sxm has no seconds of experts, accepted are models of"):
        build_cost(H200, replace(MIXED, groups=(WIDE, group)), cost_model=cost_model)
    with pytest.raises(InputError, match=r"^mixed: profile h200-sxm has no seconds of KV in fp8"):
        build_cost(H200, with_kv_dtype(MIXED, "fp8"), cost_model=cost_model)
