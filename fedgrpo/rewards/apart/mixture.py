"""Rewards where no privacy is at stake: built-in ones here, users' own in a process apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.parts import PartName, brings_code
from fedgrpo.ground.parts.loading import Stamp, stamp_of
from fedgrpo.rewards.apart.process import RewardProcess, Told
from fedgrpo.rewards.composite import Batch, Column, JudgedApart, RewardMixture, judged_here
from fedgrpo.rewards.loading import load_reward
from fedgrpo.settings import RewardSettings

Function = Callable[..., Any]


class GuardedMixture(RewardMixture):
    """A mixture of which some functions judge in a process apart. Made by :func:`guarded_mixture`.

    Parameters
    ----------
    functions:
        As for :class:`RewardMixture`.
    process:
        Judges by those of its names that are among the functions; None if there is none.
    """

    def __init__(
        self,
        functions: Sequence[tuple[str, Function, float]],
        process: RewardProcess | None,
    ) -> None:
        super().__init__(functions)
        self._process = process
        self._apart = {n for n, f, _ in functions if isinstance(f, JudgedApart)}

    def needs(self) -> Mapping[str, tuple[str, ...]]:
        """See :meth:`RewardMixture.needs`."""
        told = self._process.told if self._process else {}
        return {**super().needs(), **{name: told[name].needs for name in self._apart}}

    def close(self) -> None:
        """End the process, if there is one; judging would start it again."""
        if self._process:
            self._process.close()

    def _columns(self, batch: Batch) -> list[Column]:
        here = [judge for judge in self._judges if judge.name not in self._apart]
        found = dict(zip([j.name for j in here], judged_here(here, batch), strict=True))
        if self._process:
            theirs = zip(self._process.names, self._process.columns(batch), strict=True)
            found |= {name: column for name, column in theirs if name in self._apart}
        return [found[judge.name] for judge in self._judges]


def guarded_mixture(reward: RewardSettings, *, evaluation: bool = False) -> RewardMixture:
    """Load the functions that the settings name, all weighing 1 if no weights are given.

    Those of modules and files are imported in a process apart alone, but for those that want the
    trainer's model. So is what has ``apart``, which says that it needs a main thread of its own.

    Parameters
    ----------
    reward:
        The run's.
    evaluation:
        Load those that judge held-out prompts.

    Raises
    ------
    RewardError
        If one cannot be loaded.
    """
    names, weights = reward.functions, reward.weights
    if evaluation and reward.evaluation:
        names, weights = reward.evaluation, ()
    here = {name: load_reward(name) for name in names if not brings_code(name)}
    apart = tuple(n for n in names if n not in here or getattr(here[n], "apart", False))
    for name in apart:
        _check_file(name)
    process = _process(reward, apart, _surroundings(apart)) if apart else None
    told: Mapping[str, Told] = process.told if process else {}
    functions = [
        (name, _function(name, here, told), weight)
        for name, weight in zip(names, weights or (1.0,) * len(names), strict=True)
    ]
    return GuardedMixture(functions, process)


def _check_file(name: str) -> None:
    """Refuse a file that is not there without starting a process to look for it."""
    place = PartName.read(name, "reward.functions", RewardError).place or ""
    if place.endswith(".py") and stamp_of(place) is None:
        load_reward(name)


def _function(name: str, here: Mapping[str, Function], told: Mapping[str, Told]) -> Function:
    if name in told and told[name].binds:
        return load_reward(name)
    return JudgedApart(told[name].abstains) if name in told else here[name]


def _surroundings(names: Sequence[str]) -> tuple[object, ...]:
    """What names lead to: files as they are now, read from this folder and module path."""
    stamps: list[Stamp] = [stamp_of(PartName.read(n, "reward.functions").place) for n in names]
    return (*stamps, os.getcwd(), *sys.path)


@lru_cache(maxsize=2)
def _process(
    reward: RewardSettings, names: tuple[str, ...], _: tuple[object, ...]
) -> RewardProcess:
    """One process for all who judge by the same functions here, such as simulated clients."""
    return RewardProcess(names, reward.cpu_s, reward.timeout_s, network=reward.network)
