import importlib.util
import inspect

import pytest
import torch

from l4sim.errors import InputError
from tests.validate_gpu.live.small import ATTENTION, CPU, MODEL, engine_config, page_table, with_heads
from tests.validate_gpu.live.stub_flashinfer import WRAPPERS, stub_module
from validate_gpu.live.attention import TorchAttention
from validate_gpu.live.engine import flashinfer_kernels
from validate_gpu.live.flashinfer_attention import PATHS, check_supported

# Three decodes, of which one fills its last page to the brim, and two chunks of prompts, one of which has begun before.
MIXED = ([[6, 1], [0], [9, 8, 3], [2, 5], [4, 7, 10]], [7, 4, 9, 6, 11], [1, 1, 1, 6, 3])
DECODES = tuple(part[:3] for part in MIXED)
PROMPTS = tuple(part[3:] for part in MIXED)


def random_kv(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(11, 4, ATTENTION.kv_heads, ATTENTION.head_dim, generator=generator) for _ in range(2))


def kernels(path, made=None, graphs=False, **options):
    return flashinfer_kernels(
        stub_module(made), MODEL, engine_config(), CPU, torch.float32, path=path, graphs=graphs, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("batch", [MIXED, DECODES, PROMPTS], ids=["mixed", "decodes", "prompts"])
def test_the_planned_arguments_describe_the_batch(path, batch):
    table = page_table(*batch, page_tokens=4)
    queries = torch.randn(
        table.query_indptr[-1], ATTENTION.heads, ATTENTION.head_dim, generator=torch.Generator().manual_seed(1)
    )
    attention, reference = kernels(path).attention, TorchAttention()
    attention.plan(table)
    reference.plan(table)
    assert torch.equal(attention.run(queries, *random_kv()), reference.run(queries, *random_kv()))


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_both_dtypes_are_named(path):
    made = []
    attention = flashinfer_kernels(
        stub_module(made), MODEL, engine_config(), CPU, torch.bfloat16, path=path, graphs=False
    ).attention
    attention.plan(page_table(*MIXED, page_tokens=4))
    assert {wrapper.dtypes for wrapper in made} == {(torch.bfloat16, torch.bfloat16)}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "expected"), [("tensor-cores", True), ("cuda-cores", False)])
def test_the_path_chooses_the_decode_kernel(path, expected):
    made = []
    kernels(path, made)
    assert made[0].use_tensor_cores is expected


@pytest.mark.slow
def test_a_graphs_decode_takes_only_its_own_batch_size():
    by_size = kernels("tensor-cores", graphs=True, capture=lambda run: (run, run())).by_size
    by_size[4].plan(page_table([[0], [1], [2], [3]], [1, 2, 3, 4], [1] * 4, page_tokens=4))
    with pytest.raises(AssertionError, match="batch size is fixed"):
        by_size[4].plan(page_table(*DECODES, page_tokens=4))


def never(run):
    raise AssertionError("nothing is captured here")


def test_batch_attention_is_never_captured_itself():
    captured = kernels("batch-attention", graphs=True, capture=never)
    assert captured.by_size == {}
    assert captured.capture is never


def test_unknown_paths_and_heads_without_kernels_are_refused():
    with pytest.raises(InputError, match="'fast': accepted are tensor-cores, cuda-cores, batch-attention"):
        check_supported(MODEL, "fast")
    with pytest.raises(InputError, match="head_dim 80, accepted are 64, 128, 256"):
        check_supported(with_heads(MODEL, head_dim=80), "tensor-cores")
    five_per_kv_head = with_heads(MODEL, heads=10)
    check_supported(five_per_kv_head, "tensor-cores")
    with pytest.raises(InputError, match="5 query heads per KV head, accepted are 1, 2, 3, 4, 8"):
        check_supported(five_per_kv_head, "cuda-cores")


@pytest.mark.skipif(not importlib.util.find_spec("flashinfer"), reason="FlashInfer is not installed")
@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda wrapper: wrapper.__name__)
def test_the_stubs_have_flashinfers_own_signatures(wrapper):
    import flashinfer

    for method in ("__init__", "plan", "run"):
        ours = list(inspect.signature(getattr(wrapper, method)).parameters)
        theirs = list(inspect.signature(getattr(getattr(flashinfer, wrapper.__name__), method)).parameters)
        assert ours == theirs[: len(ours)]
