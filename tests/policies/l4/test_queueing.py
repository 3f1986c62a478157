from math import factorial

import numpy as np
import pytest

from l4sim.policies.l4.queueing import mean_wait_s, waiting_probability


def arrays(*values):
    return [np.array([value], dtype=float) for value in values]


def erlang_c(servers: int, load: float) -> float:
    """The exact probability of waiting in an M/M/m queue."""
    offered = servers * load
    waiting = offered**servers / factorial(servers) / (1 - load)
    return waiting / (sum(offered**k / factorial(k) for k in range(servers)) + waiting)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
def test_one_server_waits_as_pollaczek_and_khinchine_have_it(load):
    # Service of 2 s: exponential (second moment 8), and constant (4), which waits half as long.
    exponential = mean_wait_s(*arrays(load, 1, 2, 8, 1))
    constant = mean_wait_s(*arrays(load, 1, 2, 4, 1))
    assert exponential == pytest.approx(load / (1 - load) * 2)
    assert constant == pytest.approx(load / (1 - load))


@pytest.mark.parametrize("servers", [2, 5, 16])
@pytest.mark.parametrize("load", [0.7, 0.9, 0.95])
def test_many_servers_wait_about_as_erlang_has_it(servers, load):
    exact_s = erlang_c(servers, load) / (servers * (1 - load))
    assert mean_wait_s(*arrays(load, servers, 1, 2, 1))[0] == pytest.approx(exact_s, rel=0.1, abs=0.02)


def test_more_servers_at_the_same_load_wait_less():
    servers = np.arange(1.0, 20.0)
    waits = mean_wait_s(np.full(19, 0.8), servers, np.ones(19), np.full(19, 2.0), np.ones(19))
    assert (np.diff(waits) < 0).all()
    assert (np.diff(waiting_probability(np.full(19, 0.8), servers)) < 0).all()


def test_bursts_add_to_the_wait_as_much_as_unequal_service():
    poisson, bursty = (mean_wait_s(*arrays(0.5, 1, 2, 8, dispersion))[0] for dispersion in (1, 3))
    assert bursty == pytest.approx(2 * poisson)


def test_overload_piles_up_for_ten_minutes():
    full, over = (mean_wait_s(*arrays(load, 2, 1, 2, 1))[0] for load in (0.95, 1.45))
    assert over - full == pytest.approx(0.5 * 600 / 2)
