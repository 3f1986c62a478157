import dataclasses

import pytest
import torch

from l4sim.errors import InputError
from tests.validate_gpu.live.small import CPU, MODEL, engine_config
from validate_gpu.live.device import check_fits, check_idle, open_device

GPU = torch.device("cuda", 0)
GIB = 2**30


def test_the_cpu_is_always_there():
    assert open_device("cpu") == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused():
    assert open_device("auto") == CPU
    with pytest.raises(InputError, match="--device cuda:1: no GPU is visible; --device cpu --model tiny runs"):
        open_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", ""])
def test_unknown_devices_are_refused(name):
    with pytest.raises(InputError, match="accepted are auto, cpu, cuda and cuda:N"):
        open_device(name)


def test_a_gpu_that_others_use_is_refused():
    check_idle(GIB, GPU)
    with pytest.raises(
        InputError, match=r"cuda:0 is busy: other processes hold 9.0 GiB of it.*accepted is an idle GPU"
    ):
        check_idle(9 * GIB, GPU)


def test_the_refusal_names_the_blocks_that_would_fit():
    config = engine_config(kv_blocks=10**6)
    # A block of 4 tokens: keys and values of 2 layers, 2 heads of 64 in bf16.
    block_bytes = 4 * 2 * 2 * 2 * 64 * 2
    with pytest.raises(InputError, match="on cuda:0: accepted is --kv-blocks") as refused:
        check_fits(MODEL, config, 3, 4 * GIB, 2, GPU)
    most = int(str(refused.value).split("--kv-blocks ")[1].split()[0])
    assert 3 * most * block_bytes < 3 * GIB
    check_fits(MODEL, dataclasses.replace(config, kv_blocks=most), 3, 4 * GIB, 2, GPU)
    with pytest.raises(InputError):
        check_fits(MODEL, dataclasses.replace(config, kv_blocks=most + 1), 3, 4 * GIB, 2, GPU)


def test_where_not_even_the_weights_fit_a_smaller_model_is_named():
    with pytest.raises(InputError, match="accepted is a smaller model, such as --model tiny"):
        check_fits(MODEL, engine_config(), 1, 1000, 2, CPU)
