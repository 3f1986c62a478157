import pytest
import torch

from l4sim.runtime.executor import ExecutionError
from tests.validate_gpu.live.small import CPU, MODEL, engine_config
from tests.validate_gpu.live.stub_flashinfer import stub_module
from validate_gpu.live.attention import TorchAttention
from validate_gpu.live.check import check_attention
from validate_gpu.live.engine import flashinfer_kernels
from validate_gpu.live.flashinfer_attention import PATHS


class WrongForLongContexts(TorchAttention):
    def run(self, queries, keys, values, out=None):
        out = super().run(queries, keys, values, out)
        out[4] *= 0.5
        return out


class NotANumber(TorchAttention):
    def run(self, queries, keys, values, out=None):
        return super().run(queries, keys, values, out) * torch.nan


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_path_passes_whose_kernel_is_right(path, dtype):
    kernels = flashinfer_kernels(stub_module(), MODEL, engine_config(), CPU, dtype, path=path, graphs=False)
    check_attention(kernels.attention, MODEL, 16, CPU, dtype)


@pytest.mark.parametrize("wrong", [WrongForLongContexts, NotANumber])
def test_a_wrong_kernel_is_told_by_name(wrong):
    with pytest.raises(ExecutionError, match=f"{wrong.__name__} fails its check against float32"):
        check_attention(wrong(), MODEL, 16, CPU, torch.float32)
