"""Rewards where no privacy is at stake: built-in ones here, users' own in a process apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.parts import PartName, brings_code
from fedgrpo.ground.parts.loading import Stamp, stamp_of
from fedgrpo.rewards.apart.process import RewardProcess, Told
from fedgrpo.rewards.composite import (
    Batch,
    Column,
    JudgedApart,
    RewardMixture,
    judged_here,
    measured_apart,
)
from fedgrpo.rewards.loading import load_reward
from fedgrpo.settings import RewardSettings, figure_name

Function = Callable[..., Any]


class GuardedMixture(RewardMixture):
    """A mixture of which some functions judge in a process apart. Made by :func:`guarded_mixture`.

    Parameters
    ----------
    functions:
        As for :class:`RewardMixture`.
    process:
        Judges by those of its names that are among the functions; None if there is none.
    spans:
        Least and largest value of metrics of users' own, all of them measured by the process, by
        the names of their figures.
    """

    def __init__(
        self,
        functions: Sequence[tuple[str, Function, float]],
        process: RewardProcess | None,
        spans: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    ) -> None:
        super().__init__(functions, measured_apart(spans))
        self._process = process
        self._apart = {n for n, f, _ in functions if isinstance(f, JudgedApart)}

    def needs(self) -> Mapping[str, tuple[str, ...]]:
        """See :meth:`RewardMixture.needs`."""
        told = self._process.told if self._process else {}
        figures = zip(self.metrics, self._process.metrics if self._process else (), strict=True)
        apart = {name: name for name in self._apart} | dict(figures)
        return {**super().needs(), **{name: told[place].needs for name, place in apart.items()}}

    def close(self) -> None:
        """End the process, if there is one; judging would start it again."""
        if self._process:
            self._process.close()

    def _columns(self, batch: Batch) -> list[Column]:
        here = [judge for judge in self._judges if judge.name not in self._apart]
        found = dict(zip([j.name for j in here], judged_here(here, batch), strict=True))
        if self._process:
            names = (*self._process.rewards, *self.metrics)
            theirs = zip(names, self._process.columns(batch), strict=True)
            found |= {name: column for name, column in theirs if name not in found}
        return [found[judge.name] for judge in self._every]


def guarded_mixture(
    reward: RewardSettings, metrics: Sequence[str] = (), *, evaluation: bool = False
) -> RewardMixture:
    """Load the functions that the settings name, all weighing 1 if no weights are given.

    Those of modules and files are imported in a process apart alone, but for those that want the
    trainer's model. So is what has ``apart``, which says that it needs a main thread of its own.

    Parameters
    ----------
    reward:
        The run's.
    metrics:
        Of modules and files, measured beside: always in the process apart.
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
    for key, names_there in (("reward.functions", apart), ("privacy.metrics", metrics)):
        for name in names_there:
            _check_file(key, name)
    there = (apart, tuple(metrics), _surroundings((*apart, *metrics)))
    process = _process(reward, *there) if apart or metrics else None
    told: Mapping[str, Told] = process.told if process else {}
    functions = [
        (name, _function(name, here, told), weight)
        for name, weight in zip(names, weights or (1.0,) * len(names), strict=True)
    ]
    spans = process.spans if process else {}
    own = {figure_name(name): spans[name] for name in metrics}
    return GuardedMixture(functions, process, own)


def _check_file(key: str, name: str) -> None:
    """Refuse a file that is not there without starting a process to look for it."""
    place = PartName.read(name, key, RewardError).place or ""
    if place.endswith(".py") and stamp_of(place) is None:
        raise RewardError(f"{key} = {name!r}: {place} does not exist", cure="check the path")


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
    reward: RewardSettings, names: tuple[str, ...], metrics: tuple[str, ...], _: tuple[object, ...]
) -> RewardProcess:
    """One process for all who judge by the same functions here, such as simulated clients."""
    limits = reward.cpu_s, reward.timeout_s
    return RewardProcess(names, *limits, network=reward.network, metrics=metrics)
