import numpy as np
import pytest

from l4sim.cost.affine import AffineCost
from l4sim.errors import InputError
from l4sim.policies.l4.demand import measure_demand
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.qoe import Capacity, handover_s, stage_table

COST = AffineCost(base_s=10e-3, per_sequence_s=1e-4, per_prefill_token_s=1e-4)
# One request/s of 100 + 400 tokens, and one of 300 + 100: the first crosses 256.
DEMAND = measure_demand(np.array([100, 300]), np.array([400, 100]), np.array([1.0, 1.0]), np.array([0, 256, 1024]))
TABLE = stage_table(DEMAND, COST, Capacity(10**6, 64, 1000), ((0, 1), (1, 2), (0, 2)), instances=2)


def test_normalized_latency_by_hand():
    low, high, whole = Objective().costs(TABLE, DEMAND)
    ttft_s = TABLE.wait_s + np.array([[20e-3], [40e-3], [30e-3]]) + TABLE.mixed_s
    # TTFT over output tokens; each decoded token is 1/400 or 1/100 of its request's; half of the requests each.
    assert low == pytest.approx((ttft_s[0] / 400 + 155 / 400 * TABLE.tpot_s[0]) / 2)
    decoding = (244 / 400 + 99 / 100) * TABLE.tpot_s[1]
    assert high == pytest.approx((ttft_s[1] / 100 + decoding + handover_s(TABLE)[1] / 400) / 2)
    # One stage for all hands nothing over.
    ttft_weights = np.array([1 / 400, 1 / 100])
    assert whole == pytest.approx((TABLE.ttft_sums(ttft_weights)[2] + (399 / 400 + 99 / 100) * TABLE.tpot_s[2]) / 2)


def test_end_to_end_latency_weighs_every_second_alike():
    low, high, _ = Objective("e2e").costs(TABLE, DEMAND)
    ttft_s = TABLE.ttft_sums(np.ones(2))
    assert low == pytest.approx((ttft_s[0] + 155 * TABLE.tpot_s[0]) / 2)
    assert high == pytest.approx((ttft_s[1] + 343 * TABLE.tpot_s[1] + handover_s(TABLE)[1]) / 2)


def test_generous_limits_are_met_and_impossible_ones_are_missed():
    assert Objective("slo", ttft_slo_s=10, tpot_slo_s=1).costs(TABLE, DEMAND) == pytest.approx(0, abs=1e-3)
    # A prompt takes longer than this alone; each stage answers for its own prompts.
    assert Objective("slo", ttft_slo_s=1e-3).costs(TABLE, DEMAND)[:, 1] == pytest.approx([0.5, 0.5, 1])
    # The share of its tokens that a request decodes in the stage.
    missed = Objective("slo", tpot_slo_s=1e-3).costs(TABLE, DEMAND)[:, 1]
    assert missed == pytest.approx([155 / 400 / 2, (244 / 400 + 99 / 100) / 2, (399 / 400 + 99 / 100) / 2])


def test_a_tpot_limit_at_the_mean_is_missed_by_half():
    tpot_s = float(TABLE.tpot_s[2, 0])
    assert Objective("slo", tpot_slo_s=tpot_s).costs(TABLE, DEMAND)[2, 0] == pytest.approx(0.5, rel=0.01)


def test_tighter_limits_are_missed_more():
    ttft = [Objective("slo", ttft_slo_s=limit).costs(TABLE, DEMAND)[2, 0] for limit in (0.5, 0.2, 0.1, 0.05)]
    tpot = [Objective("slo", tpot_slo_s=limit).costs(TABLE, DEMAND)[2, 0] for limit in (0.02, 0.013, 0.012, 0.01)]
    assert (np.diff(ttft) > 0).all()
    assert (np.diff(tpot) > 0).all()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("latency",), "no objective 'latency': accepted are normalized-latency, e2e, slo"),
        (("slo",), "'slo', which needs one"),
        (("e2e", 1.0), "is for 'slo'"),
        (("slo", 0.0), "above 0 seconds"),
        (("slo", None, -1.0), "above 0 seconds"),
    ],
)
def test_refuses_what_makes_no_objective(given, complaint):
    with pytest.raises(InputError, match=complaint):
        Objective(*given)
