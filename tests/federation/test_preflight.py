"""What cannot learn is warned of before anything starts."""

from fedgrpo.federation.preflight import preflight
from fedgrpo.settings import Settings


def settings(**privacy: object) -> Settings:
    tree = {"max_epsilon": 1e6, **privacy}
    return Settings.from_mapping({"privacy": tree, "rounds": 2})


def test_a_client_level_run_that_drowns_in_noise_is_warned_of() -> None:
    (warning,) = preflight(settings(unit="client", noise_multiplier=2.0))
    assert "noise drowns the signal: 3968 trainable values" in warning


def test_a_run_that_can_learn_is_not_warned_of() -> None:
    assert preflight(settings(unit="prompt", noise_multiplier=1.0)) == ()
    assert preflight(settings(unit="client", noise_multiplier=0.04)) == ()
    assert preflight(settings(unit="none")) == ()
