"""Products from a table: measured shapes, between four of them, beyond them, and in formats that were not measured."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from l4sim.cost.tables.products import Products, flops_of, roofline_s
from l4sim.cost.tables.table import OperatorTable
from l4sim.specs.gpu import GPUS

H100 = GPUS["h100-sxm"]
SIZES = (256, 1024, 4096)
TOKENS = np.array([1, 128, 8192])


def seconds(dtype: str, n: int, k: int, tokens: np.ndarray) -> np.ndarray:
    """A law that is linear in n and in k apart."""
    bits = 2 if dtype == "bfloat16" else 1
    return 2e-6 + bits * n * k / 3e12 + 2 * tokens * n * k / 6e14


def table(*dtypes: str) -> OperatorTable:
    rows = list(product(dtypes, SIZES, SIZES))
    return OperatorTable(
        "gemm",
        {"dtype": np.array([row[0] for row in rows])},
        {"n": np.array([row[1] for row in rows]), "k": np.array([row[2] for row in rows])},
        {"tokens": TOKENS},
        np.array([seconds(*row, TOKENS) for row in rows]),
    )


PRODUCTS = Products(table("bfloat16", "fp8"), H100)


def test_a_measured_product_is_looked_up() -> None:
    found = PRODUCTS.seconds("fp8", 1024, 4096, TOKENS)
    assert found.measured
    assert found.seconds == pytest.approx(seconds("fp8", 1024, 4096, TOKENS))


@pytest.mark.parametrize(("n", "k"), [(2048, 4096), (1024, 512), (3000, 3000)])
def test_between_four_it_is_linear_in_n_and_in_k(n: int, k: int) -> None:
    found = PRODUCTS.seconds("bfloat16", n, k, TOKENS)
    assert found.measured
    assert found.seconds == pytest.approx(seconds("bfloat16", n, k, TOKENS))


def test_beyond_the_grid_the_nearest_is_scaled_by_rooflines_and_not_called_measured() -> None:
    found, last = (PRODUCTS.seconds("bfloat16", n, 4096, np.array([1])) for n in (16384, 4096))
    assert (last.measured, found.measured) == (True, False)
    assert found.seconds / last.seconds == pytest.approx(4, rel=0.01)


def test_a_format_without_rows_is_scaled_from_another() -> None:
    int4, bf16 = (PRODUCTS.seconds(weights, 4096, 4096, np.array([1, 8192])) for weights in ("int4-g128", "bfloat16"))
    assert not int4.measured
    # A quarter of the bytes and their scales; the same arithmetic in 16 bits.
    assert (int4.seconds / bf16.seconds).tolist() == pytest.approx([0.258, 1.0], abs=0.01)


def test_without_fp8_arithmetic_its_weights_are_multiplied_in_16_bits() -> None:
    assert flops_of(GPUS["a100-80gb-sxm"], "fp8") == 312e12
    assert flops_of(H100, "fp8") == 1979e12
    assert flops_of(H100, "nvfp4") == H100.bf16_flops
    one = np.array([1])
    assert roofline_s(one, 4096, 4096, "fp8", H100) < 0.51 * roofline_s(one, 4096, 4096, "bfloat16", H100)
