"""Server optimisers are torch's, with the delta as the negative gradient."""

from __future__ import annotations

import numpy as np
import pytest

from fedgrpo.federation.server.optimisers import OPTIMISERS, OptimiserState, rate_at, server_step
from fedgrpo.settings import ServerSettings

torch = pytest.importorskip("torch")


def torch_path(make, deltas, rates):
    parameter = torch.nn.Parameter(torch.zeros(deltas.shape[1], dtype=torch.float64))
    optimiser = make([parameter])
    path = []
    for delta, rate in zip(deltas, rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate
        parameter.grad = -torch.from_numpy(delta)
        optimiser.step()
        path.append(parameter.detach().numpy().copy())
    return np.stack(path)


def our_path(settings, deltas, rates):
    state, at, path = OptimiserState(), np.zeros(deltas.shape[1]), []
    for delta, rate in zip(deltas, rates, strict=True):
        state, update = server_step(settings, state, delta, rate)
        at = at + update
        path.append(at)
    assert state.steps == len(deltas)
    return np.stack(path)


THEIRS = {
    "fedavg": lambda p: torch.optim.SGD(p, lr=1.0),
    "fedavgm": lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.8),
    "fedadam": lambda p: torch.optim.Adam(p, lr=1.0, betas=(0.8, 0.95), eps=1e-6),
}


@pytest.mark.parametrize("name", THEIRS)
def test_an_optimiser_walks_the_path_of_torch(name):
    deltas = np.random.default_rng(0).normal(size=(12, 5))
    settings = ServerSettings(optimiser=name, momentum=0.8, second_momentum=0.95, epsilon=1e-6)
    rates = [rate_at(settings, round, 12) for round in range(1, 13)]
    theirs = torch_path(THEIRS[name], deltas, rates)
    np.testing.assert_allclose(our_path(settings, deltas, rates), theirs, rtol=1e-12, atol=1e-14)


def test_every_optimiser_that_settings_know_is_registered():
    assert set(OPTIMISERS) == set(THEIRS)


def test_the_rate_falls_linearly_to_its_final_share():
    settings = ServerSettings(learning_rate=2.0, final_rate=0.5)
    np.testing.assert_allclose(
        [rate_at(settings, r, 5) for r in range(1, 6)], [2, 1.75, 1.5, 1.25, 1]
    )
    assert rate_at(settings, 1, 1) == 2.0


def test_plain_averaging_at_rate_one_applies_the_delta_as_it_is():
    delta = np.array([0.1, -0.2])
    _, update = server_step(ServerSettings(optimiser="fedavg"), OptimiserState(), delta, 1.0)
    np.testing.assert_array_equal(update, delta)


@pytest.mark.parametrize("name", THEIRS)
def test_a_zero_delta_is_no_fault(name):
    _, update = server_step(ServerSettings(optimiser=name), OptimiserState(), np.zeros(3), 0.1)
    np.testing.assert_array_equal(update, np.zeros(3))
