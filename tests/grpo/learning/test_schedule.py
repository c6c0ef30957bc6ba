"""Schedules are transformers' own, but that no step of a warm-up is lost."""

import pytest
import torch
from transformers import get_scheduler

from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo.learning.schedule import rate_share
from fedgrpo.settings import GRPOSettings


def theirs(name: str, warmup: int, total: int) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(name, optimiser, warmup, total)
    found = []
    for _ in range(total):
        found.append(float(schedule.get_last_lr()[0]))
        optimiser.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 4])
def test_rates_are_those_of_transformers(name: str, warmup: int) -> None:
    grpo = GRPOSettings.model_validate({"lr_scheduler_type": name, "warmup_steps": warmup})
    ours = [rate_share(grpo, step, 20) for step in range(20)]
    expected = theirs("constant_with_warmup" if name == "constant" else name, warmup, 20)
    assert ours[warmup:] == pytest.approx(expected[warmup:])
    assert ours[:warmup] == [(i + 1) / 5 for i in range(warmup)]


def test_a_falling_rate_needs_an_end() -> None:
    assert rate_share(GRPOSettings(), 7, 0) == 1
    with pytest.raises(SettingsError, match=r"grpo\.lr_scheduler_type = 'linear' needs to know"):
        rate_share(GRPOSettings(lr_scheduler_type="linear"), 7, 0)
