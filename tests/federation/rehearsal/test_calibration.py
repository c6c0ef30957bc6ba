"""A clipping norm from public prompts is the one that private prompts would ask for."""

from pathlib import Path

import numpy as np
import pytest

from fedgrpo.federation.node.clients.client import local_client
from fedgrpo.federation.node.clients.prompt_client import PromptClient
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.rehearsal.calibration import calibrated_norm, public_norms
from fedgrpo.ground.errors import PrivacyError
from fedgrpo.settings import Scalar, Settings

pytestmark = pytest.mark.slow

NODE: dict[str, Scalar] = {"partition-id": 1, "num-partitions": 3}


def make(**changed: Scalar) -> Settings:
    small: dict[str, Scalar] = {
        "data.prompts_per_client": 120,
        "data.min_prompts": 120,
        "data.heterogeneity": 1e6,
        "grpo.prompts_per_step": 12,
        "grpo.group_size": 4,
        "evaluation.prompts": 120,
        "privacy.max_epsilon": 1e6,
    }
    return Settings.from_run_config(small | {k.replace("__", "."): v for k, v in changed.items()})


def test_half_of_a_clients_gradients_are_below_the_calibrated_norm() -> None:
    settings = make(grpo__group_size=8)
    client = local_client(settings, NODE)
    assert isinstance(client, PromptClient)
    rows = [row for name in client.units for row in client.rows(name, bytes(32))]
    judged = client.engine.collect(rows, Watch())
    lessons = [lesson for part, _ in client.engine.teach(judged, Watch()) for lesson in part]
    norms = np.array([float(x.gradient.norm()) for x in lessons if x.gradient is not None])
    # About 80 prompts with a gradient on either side: a share's standard error is 0.08.
    assert 0.25 < (norms <= calibrated_norm(settings)).mean() < 0.75


@pytest.mark.parametrize("kind", ["ffa_lora", "tiny_lora"])
def test_updates_are_measured_from_the_start_of_the_run(kind: str) -> None:
    settings = make(privacy__unit="client", adapter__kind=kind, grpo__steps=2)
    norms = public_norms(settings)
    assert 0 < norms.max() < 3 * norms.min()  # Drifting on would lengthen them sixteenfold.
    assert norms.min() < calibrated_norm(settings) < norms.max()
    higher = make(privacy__unit="client", adapter__kind=kind, grpo__steps=2, privacy__quantile=0.9)
    assert calibrated_norm(higher) == pytest.approx(np.quantile(norms, 0.9))


def test_prompts_that_teach_nothing_are_refused_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "reward.py"
    path.write_text("def f(completions, **_):\n    return [1.0] * len(completions)\n")
    with pytest.raises(PrivacyError, match="none of 120 public prompts"):
        calibrated_norm(make(reward__functions=f"{path}:f"))
