"""The network that messages go through: what it may be like."""

import pytest

from l4sim.errors import InputError
from l4sim.simulator.transport import Network


@pytest.mark.parametrize("name", ["loss", "duplication"])
@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_a_probability_is_from_0_to_1(name, value):
    with pytest.raises(InputError, match=f"network {name} must be from 0 to 1, not {value}"):
        Network(**{name: value})
    assert getattr(Network(**{name: 1.0}), name) == 1.0
    assert getattr(Network(**{name: 0.0}), name) == 0.0


@pytest.mark.parametrize("name", ["latency_s", "jitter_s"])
def test_no_message_arrives_before_it_is_sent(name):
    with pytest.raises(InputError, match=f"network {name} must not be negative"):
        Network(**{name: -1e-6})
    assert getattr(Network(**{name: 0.0}), name) == 0.0
