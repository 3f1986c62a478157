"""One matrix product: never faster than the roofline, waves where tiles outnumber SMs, corrections between knots."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.cost.gemm import Correction, GemmCoefficients, Neighbours, gemm_bytes, gemm_s, hat, nearness
from l4sim.specs.gpu import GPUS

H200 = GPUS["h200-sxm"]
IDEAL = GemmCoefficients(
    launch_s=0.0,
    bandwidth_fraction=1.0,
    tensor_core_fraction=1.0,
    wave_s=0.0,
    sm_stream_bytes_per_s=1e15,
    split_k_s=0.0,
    overlap_exponent=50.0,
)
SIZES = st.integers(1, 40_000)


@pytest.mark.slow
@given(m=SIZES, n=SIZES, k=SIZES)
def test_no_product_beats_bytes_or_arithmetic(m: int, n: int, k: int) -> None:
    floor_s = max(float(gemm_bytes(m, n, k)) / H200.memory_bytes_per_s, 2 * m * n * k / H200.bf16_flops)
    assert gemm_s(m, n, k, H200, IDEAL)[0] >= 0.999 * floor_s


def test_a_thin_product_takes_its_weights_time() -> None:
    # 28,672 x 4,096 bf16 weights are 235 MB: 48.9 us at 4.8 TB/s; one token's arithmetic hides behind them.
    assert gemm_s(1, 28672, 4096, H200, IDEAL)[0] == pytest.approx(48.95e-6, rel=0.01)


def test_a_square_product_takes_its_arithmetic_time() -> None:
    # 132 tiles of 128 x 256, one per SM: a full wave.
    m, n, k = 12 * 128, 11 * 256, 8192
    assert gemm_s(m, n, k, H200, IDEAL)[0] == pytest.approx(2 * m * n * k / H200.bf16_flops, rel=0.01)


def test_one_tile_too_many_starts_a_second_wave() -> None:
    # Feeding an SM with 100 GB/s makes tiles smaller than 128 x 256 slower, so that they cannot fill the gap.
    fed = replace(IDEAL, sm_stream_bytes_per_s=100e9, split_k_s=1.0)
    full, more = gemm_s([12 * 128, 12 * 128 + 1], 11 * 256, 8192, H200, fed)
    assert more > 1.5 * full


def test_launch_adds_to_every_product() -> None:
    plain, launched = (gemm_s(64, 4096, 4096, H200, replace(IDEAL, launch_s=launch_s))[0] for launch_s in (0, 3e-6))
    assert launched - plain == pytest.approx(3e-6)


def test_corrections_multiply() -> None:
    doubled = Correction((0.0, 20.0), (0.0, 20.0), ((np.log(2), np.log(2)), (np.log(2), np.log(2))))
    plain = gemm_s(64, 4096, 4096, H200, IDEAL)[0]
    assert gemm_s(64, 4096, 4096, H200, replace(IDEAL, by_shape=doubled))[0] == pytest.approx(2 * plain)
    both = replace(IDEAL, by_shape=doubled, by_output_and_depth=doubled)
    assert gemm_s(64, 4096, 4096, H200, both)[0] == pytest.approx(4 * plain)


def test_a_correction_is_bilinear_between_knots_and_constant_beyond() -> None:
    table = Correction((0.0, 10.0), (0.0, 1.0), ((0.0, 1.0), (2.0, 3.0)))
    points = np.array([0.0, 5.0, 5.0, 99.0]), np.array([0.5, 0.0, 0.5, 99.0])
    assert table.log_factor(*points).tolist() == pytest.approx([0.5, 1.0, 1.5, 3.0])


def test_hat_weights_sum_to_one() -> None:
    weights = hat(np.array([-1.0, 0.3, 2.0, 9.0]), (0.0, 1.0, 4.0))
    assert weights.sum(axis=1).tolist() == pytest.approx([1, 1, 1, 1])
    assert weights[1].tolist() == pytest.approx([0.7, 0.3, 0.0])


def test_nearness_falls_by_octaves() -> None:
    # e^-1 for one octave in n or k, and for four in m.
    near = nearness(([64, 64, 64, 1024], [4096, 2048, 4096, 4096], [4096, 4096, 8192, 4096]), ([64], [4096], [4096]))
    assert near[:, 0].tolist() == pytest.approx([1.0, np.exp(-1), np.exp(-1), np.exp(-1)])


def test_a_product_like_a_measured_one_takes_its_correction() -> None:
    measured = Neighbours((64.0,), (4096.0,), (4096.0,), (float(np.log(2)),))
    corrected = replace(IDEAL, by_neighbours=measured)
    same, far = (gemm_s(64, n, 4096, H200, corrected) / gemm_s(64, n, 4096, H200, IDEAL) for n in (4096, 4096 * 2**12))
    assert same[0] == pytest.approx(2)
    assert far[0] == pytest.approx(1, abs=1e-4)


def test_wide_tiles_fill_a_wave_that_others_split_in_two() -> None:
    # 8 x 16 tiles of 192 x 192 fit on 132 SMs at once; tiles of 128 x 256 need two waves.
    fed = replace(IDEAL, sm_stream_bytes_per_s=120e9, split_k_s=1.0)
    narrow, wide = (gemm_s(1536, 3072, 8192, H200, replace(fed, wide_tiles=wide))[0] for wide in (False, True))
    assert wide < 0.85 * narrow
