"""The factory of simulated clients that are computed together: the first one asked in a round
computes for all, and each is handed its own.

What differs from ordinary clients: completions of all come from one generator, coins and noise from
keys of this engine, and prompts share batches, so bits depend on who else is there. Everything is
drawn from the same distributions. That costs nobody's privacy, as all prompts lie in this process
anyway; a site's node never runs this.

Rewards that only compare or count judge in this process, one prompt's group a call. Those that a
user brings, and metrics of users' own, are the affair of the worker process of an ordinary client
under prompt-level privacy: not for privacy's sake, but so that one that crashes, hangs or remembers
costs its prompt and not the run, and tells what it will tell where clients are deployed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.faults import faults_of
from fedgrpo.attacks.knowledge import Insight
from fedgrpo.attacks.poison import Poison, poison_of
from fedgrpo.data.files.row_limits import RowLimit
from fedgrpo.federation.node.clients.client import LocalClient, local_client, mixed
from fedgrpo.federation.node.clients.given import Given
from fedgrpo.federation.node.clients.prompt_client import judging_limits
from fedgrpo.federation.node.clients.resident import resident, use_cores
from fedgrpo.federation.node.clients.unit_rows import UnitRows
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.simulation.batched import prompts, updates
from fedgrpo.federation.simulation.batched.completions import Answer
from fedgrpo.federation.simulation.batched.poisoning import PoisonedMixture, poisoned_rows
from fedgrpo.ground.crypto import derive_key
from fedgrpo.ground.kept import read_kept, write_kept
from fedgrpo.ground.parts import part_name
from fedgrpo.grpo.learning.isolation import require_isolation
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.robust.momentum import Carried, carried
from fedgrpo.settings import METRICS, Scalar, Settings
from fedgrpo.site.declared import Declared, declared_by

Floats = NDArray[np.float64]

JUDGED_HERE = {"exact_match", "numeric_match", "repetition", "think_answer_format"}
"""Rewards that cannot crash, hang or remember."""


@dataclass(frozen=True)
class Means:
    """What each client carries from round to round, by its number."""

    of: dict[int, Carried]


@dataclass(frozen=True)
class _Asked:
    """One round, as one client of it is asked."""

    engine: BatchedClients
    number: int

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> Floats:
        """See :class:`fedgrpo.federation.node.clients.interfaces.Client`."""
        del key
        answer = self.engine.answers(adapter, plan, round)[self.number]
        watch.mishaps.update(answer.mishaps)
        return answer.release


@dataclass
class BatchedClients:
    """Makes clients that are handed what was computed for all of them.

    Parameters
    ----------
    settings:
        The run's, such that a batch can compute them:
        :func:`fedgrpo.federation.simulation.batched.coverage.left_out`.
    given:
        Prompts and reward that this process has already.
    secret:
        32 bytes, the same when a run is resumed.
    last:
        The last released aggregate in the update's own units, shape (d,), for attackers.
    shelf:
        Where clients' means over rounds are kept (``robust.momentum``); None keeps them in memory.
    """

    settings: Settings
    given: Given
    secret: bytes
    last: Callable[[], Floats | None] = lambda: None
    shelf: Path | None = None
    _made: tuple[str, dict[int, Answer]] = field(default=("", {}), repr=False)
    _clients: dict[int, prompts.Pupil | updates.Learner] = field(default_factory=dict, repr=False)
    _means: Means = field(default_factory=lambda: Means({}), repr=False)

    def __call__(self, settings: Settings, node_config: Mapping[str, Scalar]) -> _Asked:
        """See :data:`fedgrpo.federation.node.clients.interfaces.ClientFactory`."""
        return _Asked(self, int(node_config["partition-id"]))

    def prepare(
        self,
        settings: Settings,
        node_config: Mapping[str, Scalar],
        adapter: AdapterState,
        declared: Declared,
    ) -> float:
        """See :class:`fedgrpo.federation.node.clients.interfaces.PreparingFactory`.

        Raises
        ------
        SettingsError, ModelError, RewardError, AdapterError
            What cannot be loaded, or does not fit.
        """
        use_cores(settings, node_config)
        resident(self.settings).load(adapter)
        if settings.privacy.unit == "prompt":
            require_isolation(settings.grpo)
        self._reward()
        return 0.0

    def insight(self, adapter: AdapterState, plan: ReleasePlan, round: int) -> Insight:
        """See :class:`fedgrpo.federation.node.clients.interfaces.TellingFactory`."""
        found, last = self.answers(adapter, plan, round), self.last()
        attackers = self.settings.simulation.byzantine
        rows = [
            [found[i].release for i in found if (i < attackers) == own] for own in (True, False)
        ]
        own, honest = (np.reshape(some, (-1, plan.size)) for some in rows)
        return Insight(own, honest, None if last is None else last * plan.update_scale)

    def answers(self, adapter: AdapterState, plan: ReleasePlan, round: int) -> dict[int, Answer]:
        """What every client that does not drop out releases in a round, by its number."""
        digest = hashlib.sha256(adapter.vector_hash.encode() + repr((plan, round)).encode())
        if self._made[0] != (name := digest.hexdigest()):
            made = self._computed(adapter, plan, round, name)
            self._made = name, self._steadied(made, round, plan.dimension)
        return self._made[1]

    def _steadied(self, made: dict[int, Answer], round: int, cut: int) -> dict[int, Answer]:
        """Put each client's mean over rounds in the place of its update."""
        if not (decay := self.settings.robust.momentum):
            return made
        if self.shelf and not self._means.of and self.shelf.exists():
            self._means = read_kept(Means, self.shelf)
        now = {
            number: carried(self._means.of.get(number), round, answer.release[:cut], decay)
            for number, answer in made.items()
        }
        self._means = Means(self._means.of | now)
        if self.shelf:
            write_kept(self.shelf, self._means, mode=0o600)
        return {
            number: replace(
                answer, release=np.concatenate([now[number].mean, answer.release[cut:]])
            )
            for number, answer in made.items()
        }

    def _computed(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, name: str
    ) -> dict[int, Answer]:
        settings = self.settings
        there = [
            number
            for number in range(settings.simulation.clients)
            if not faults_of(settings.simulation, number, round, settings.seed).drops
        ]
        keys = {number: derive_key(self.secret, "client", number, name) for number in there}
        held = resident(settings)
        held.load(adapter)
        policy = Policy(held, settings.grpo)
        if plan.unit == "prompt":
            seed = derive_key(self.secret, "completions", name)
            policy.generator.manual_seed(int.from_bytes(seed[:8], "big") >> 1)
            pupils = {number: self.pupil(number) for number in there}
            return prompts.released(settings, policy, pupils, keys, plan)
        policy.generator.manual_seed(mixed(settings.seed, round))
        learners = {number: self.learner(number) for number in there}
        return updates.released(policy, learners, keys, adapter, plan, round)

    def pupil(self, number: int) -> prompts.Pupil:
        """One of the clients under prompt-level privacy."""
        if number not in self._clients:
            settings, config = self.settings, self._config(number)
            declared, base = declared_by(config, settings), resident(settings).base
            limit = RowLimit(settings.grpo.max_prompt_length)
            rows, unread = self.given.prompts(settings, config, limit)
            if poison := self._poison(number):
                rows = poisoned_rows(rows, poison, mixed(settings.seed, number))
            units = UnitRows(settings, base, rows, declared, unread=unread)
            reward = self._judging(poison)
            self._clients[number] = prompts.Pupil(rows, units, reward, poison)
        found = self._clients[number]
        assert isinstance(found, prompts.Pupil)
        return found

    def learner(self, number: int) -> updates.Learner:
        """One of the clients without it."""
        if number not in self._clients:
            settings, config, poison = self.settings, self._config(number), self._poison(number)
            given = self.given
            if poison:
                limit = RowLimit(settings.grpo.max_prompt_length)
                rows, _ = given.prompts(settings, config, limit)
                changed = tuple(poisoned_rows(rows, poison, mixed(settings.seed, number)))
                # Rows are found by the client's number.
                given = Given((changed,) * (number + 1), self._judging(poison))
            client = local_client(settings, config, given)
            assert isinstance(client, LocalClient)
            self._clients[number] = updates.Learner.of(client, poison)
        found = self._clients[number]
        assert isinstance(found, updates.Learner)
        return found

    def _config(self, number: int) -> dict[str, Scalar]:
        return {"partition-id": number, "num-partitions": self.settings.simulation.clients}

    def _poison(self, number: int) -> Poison | None:
        simulation = self.settings.simulation
        return poison_of(simulation.attack) if number < simulation.byzantine else None

    def _judging(self, poison: Poison | None) -> RewardMixture:
        honest = self._reward()
        span = METRICS["reward"].span(self.settings.reward)
        return PoisonedMixture(honest, poison, span) if poison else honest

    def _reward(self) -> RewardMixture:
        """Judges one prompt's group a call under prompt-level privacy, else a client's at once."""
        settings = self.settings
        names = {part_name(name) for name in settings.reward.functions}
        plain = names <= JUDGED_HERE and not settings.privacy.own_metrics
        if self.given.reward or settings.privacy.unit != "prompt" or plain:
            return self.given.mixture(settings)
        declared = declared_by(self._config(0), settings)
        return self.given.isolated(settings, declared, judging_limits(settings, declared))
