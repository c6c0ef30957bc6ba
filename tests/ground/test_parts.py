import pytest

from fedgrpo.ground.errors import DataError, RewardError, SettingsError
from fedgrpo.ground.parts import Registry


def shapes() -> Registry[int]:
    registry: Registry[int] = Registry("shape", DataError)
    registry.register("square")(4)
    registry.register("triangle")(3)
    return registry


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="shape = 'circle' is unknown") as caught:
        shapes()["circle"]
    assert "square, triangle" in caught.value.cure
    assert "circle" not in shapes()


def test_a_name_is_registered_once() -> None:
    registry = shapes()
    with pytest.raises(DataError, match="registered twice"):
        registry.register("square")(5)
    assert registry["square"] == 4


@pytest.mark.parametrize("name", ["a:b", "a,b", " ", ""])
def test_names_that_settings_could_not_carry_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="is no name"):
        shapes().register(name)(1)


def test_every_room_refuses_what_it_does_not_know() -> None:
    from fedgrpo.attacks import ATTACKS
    from fedgrpo.data.tasks import TASKS
    from fedgrpo.federation.server.optimisers import OPTIMISERS
    from fedgrpo.grpo.learning.advantages import ADVANTAGES
    from fedgrpo.grpo.learning.losses import LOSSES
    from fedgrpo.rewards import REWARDS
    from fedgrpo.robust.rules import RULES

    for registry in (TASKS, OPTIMISERS, ADVANTAGES, LOSSES, REWARDS, RULES, ATTACKS):
        assert len(registry) >= 2
        with pytest.raises((SettingsError, DataError, RewardError), match=registry.key):
            registry.check("no such thing")
