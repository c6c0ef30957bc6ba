"""Presets: they fill what is not set, travel whole, and learn."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from fedgrpo.federation.wire.app_bundle import to_toml
from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo import ADVANTAGES, LOSSES, PRESETS, GRPOTrainer, Preset, register_preset
from fedgrpo.settings import FROM_PRESET, GRPOSettings, Settings
from fedgrpo.settings.scenario import settings_from
from tests.flat import flatten
from tests.models import graded, tiny_trainer

PAPERS = {
    "grpo": ("GRPO", "2402.03300", "grpo", "grpo"),
    "dr_grpo": ("Dr. GRPO", "2503.20783", "dr_grpo", "dr_grpo"),
    "dapo": ("DAPO", "2503.14476", "grpo", "dapo"),
    "lite_ppo": ("Lite PPO", "2508.08221", "lite_ppo", "dapo"),
    "gspo": ("GSPO", "2507.18071", "grpo", "gspo"),
    "gmpo": ("GMPO", "2507.20673", "grpo", "gmpo"),
    "cispo": ("CISPO", "2506.13585", "grpo", "cispo"),
    "sapo": ("SAPO", "2511.20347", "grpo", "sapo"),
    "rloo": ("RLOO", "2402.14740", "rloo", "reinforce"),
    "reinforce_pp": ("REINFORCE++", "2501.03262", "reinforce_pp", "dapo"),
    "ppo": ("PPO", "1707.06347", "outcome", "dapo"),
    "vine_ppo": ("VinePPO", "2410.01679", "outcome", "dapo"),
    "critique_grpo": ("Critique-GRPO", "2506.03106", "dr_grpo", "critique_grpo"),
    "contexts": ("Product of contexts", "", "grpo", "cispo"),
}


def local(preset: str, **others: object) -> Settings:
    """Settings with this preset, without the privacy that some presets do not go with."""
    tree = {"grpo": {"preset": preset, **others}, "privacy": {"unit": "none"}}
    return Settings.from_mapping(tree)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_their_papers(name: str) -> None:
    preset = PRESETS[name]
    assert (preset.title, preset.arxiv, preset.advantage, preset.loss) == PAPERS[name]
    assert preset.advantage in ADVANTAGES
    assert preset.loss in LOSSES
    assert set(preset.settings()) == FROM_PRESET


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_preset_moves_the_reward_up(name: str) -> None:
    settings = {"preset": name, "prompts_per_step": 16, "learning_rate": 1e-2}
    trainer = tiny_trainer(
        48, reward=lambda completions: [-float(len(c)) for c in completions], **settings
    )
    rewards = [step.reward for step in trainer.train(10)]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.3


def test_preset_fills_what_is_not_set_and_nothing_else() -> None:
    grpo = local("dapo", clip_high=0.5, max_resamples=0).grpo
    assert (grpo.loss, grpo.advantage, grpo.clip_low, grpo.overlong_share) == (
        "dapo",
        "grpo",
        0.2,
        0.2,
    )
    assert (grpo.clip_high, grpo.max_resamples) == (0.5, 0)
    assert GRPOSettings(preset="rloo", kl_weight=0.0).kl_weight == 0.0
    assert GRPOSettings().loss == "dr_grpo"


@pytest.mark.parametrize("name", PRESETS)
def test_a_set_value_survives_flowers_run_configuration_beside_a_preset(name: str) -> None:
    """Also one that equals the package's default."""
    loss = PRESETS[name].loss if name == "critique_grpo" else "dr_grpo"
    settings = local(name, kl_weight=0.0, loss=loss)
    arrived = flatten(tomllib.loads(to_toml(settings.to_run_config())))
    assert Settings.from_run_config(arrived) == settings
    assert Settings.from_run_config(arrived).fingerprint() == settings.fingerprint()
    assert Settings.from_mapping(settings.model_dump()) == settings


def test_preset_named_on_flwr_runs_command_line_fills_the_default_table() -> None:
    """The table in pyproject.toml gives every key a value: those must not count as set."""
    named = {"grpo.preset": "gspo", "grpo.clip_low": 0.1, "privacy.unit": "none"}
    settings = Settings.from_run_config(Settings().to_run_config() | named)
    assert (settings.grpo.loss, settings.grpo.clip_low) == ("gspo", 0.1)
    assert settings.grpo.clip_high == 4e-4


def test_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"grpo\.preset = 'dappo' is unknown") as caught:
        local("dappo")
    assert "dapo, dr_grpo" in caught.value.cure
    with pytest.raises(SettingsError, match=r"grpo\.preset = 7"):
        Settings.from_mapping({"grpo": {"preset": 7}})


def test_dynamic_sampling_is_refused_under_prompt_level_privacy() -> None:
    with pytest.raises(SettingsError, match=r"grpo\.max_resamples = 3") as caught:
        Settings.from_mapping({"grpo": {"preset": "dapo"}})
    assert caught.value.cure == "set grpo.max_resamples = 0"
    assert Settings.from_mapping({"grpo": {"preset": "dapo", "max_resamples": 0}})


def test_a_new_preset_is_one_registered_row() -> None:
    register_preset("mine")(
        Preset("Mine", "0000.00000", "rank", "gspo", clip_low=0.01, clip_high=0.02)
    )
    try:
        grpo = local("mine").grpo
        assert (grpo.advantage, grpo.loss, grpo.clip_high) == ("rank", "gspo", 0.02)
    finally:
        del PRESETS._entries["mine"]


PRESETS_OF_A_FILE = """
from fedgrpo.grpo import Preset
mine = Preset("Mine", "", "rank", "gspo", clip_low=0.01, clip_high=0.02)
def made(*, clip: float = 0.1) -> Preset:
    return Preset("Made", "", "rank", "gspo", clip_low=clip, clip_high=clip)
def number() -> int:
    return 7
"""


def of_file(folder: Path, name: str) -> GRPOSettings:
    (folder / "mine.py").write_text(PRESETS_OF_A_FILE)
    return settings_from(
        {"privacy.unit": "none", "grpo.preset": f"mine.py:{name}", "grpo.clip_low": 0.3}, folder
    ).grpo


@pytest.mark.parametrize(
    ("name", "clip_high"), [("mine", 0.02), ("made", 0.1), ("made(clip=0.4)", 0.4)]
)
def test_a_file_has_a_preset_or_a_function_that_makes_one(
    tmp_path: Path, name: str, clip_high: float
) -> None:
    grpo = of_file(tmp_path, name)
    assert (grpo.loss, grpo.clip_low, grpo.clip_high) == ("gspo", 0.3, clip_high)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("number", "returns a int"),
        ("mine(clip=0.4)", "there is no option 'clip'"),
        ("made(clip='a')", "valid number"),
    ],
)
def test_what_is_no_preset_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        of_file(tmp_path, name)


def resampler(max_resamples: int) -> GRPOTrainer:
    """Exact match leaves many groups silent."""
    return tiny_trainer(64, prompts_per_step=12, max_resamples=max_resamples)


@pytest.mark.slow
def test_groups_without_signal_are_replaced_a_bounded_number_of_times() -> None:
    trainer = resampler(3)
    calls: list[int] = []
    collect = trainer.collector.collect

    def counted(chosen: list[int], **options: bool) -> object:
        calls.append(len(chosen))
        return collect(chosen, **options)

    trainer.collector.collect = counted  # type: ignore[method-assign, assignment]
    metrics = trainer.step(trainer.next_prompts())
    assert calls[0] == 12
    assert calls[1] == round(metrics.zero_signal * 12), "reported before replacement"
    assert len(calls) <= 4
    assert sorted(calls, reverse=True) == calls


@pytest.mark.slow
def test_replaced_groups_are_whole_and_the_others_untouched() -> None:
    trainer = resampler(2)
    first = trainer.collect(trainer.next_prompts())
    silent = set(first.silent_groups())
    refilled = trainer.collector.refilled(first)
    assert silent
    assert len(refilled.silent_groups()) < len(silent)
    assert refilled.prompts == first.prompts
    texts, before = trainer.policy.decode(refilled.rollout), trainer.policy.decode(first.rollout)
    rows_of = dict(zip(trainer.collector.encoded, trainer.collector.rows, strict=True))
    rows = [rows_of[prompt] for prompt in refilled.rollout.prompts]
    judged = trainer.collector.reward_of(refilled.rollout, rows)
    assert np.array_equal(refilled.rewards.total, judged.total)
    for group, prompt in enumerate(refilled.rollout.prompts):
        span = slice(4 * group, 4 * group + 4)
        if group not in silent:
            assert prompt == first.rollout.prompts[group]
            assert texts[span] == before[span]


def test_nothing_is_replaced_unless_asked_for() -> None:
    trainer = resampler(0)
    experience = trainer.collect(range(12))
    assert trainer.collector.refilled(experience) is experience


def test_when_every_group_teaches_nothing_is_sampled_twice() -> None:
    trainer = tiny_trainer(reward=graded, max_resamples=5)
    experience = trainer.collect([0])
    assert not experience.silent_groups()
    assert trainer.collector.refilled(experience) is experience
