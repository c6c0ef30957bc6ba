"""The data holder as it is: private prompts, the resident base model, local GRPO, clipping and
noise.

Under prompt-level privacy it is a
:class:`~fedgrpo.federation.node.clients.prompt_client.PromptClient`, else a :class:`LocalClient`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fedgrpo.data.files.row_limits import RowLimit
from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.units import unit_words
from fedgrpo.federation.node.clients.figures import Span, of_steps, told_metrics
from fedgrpo.federation.node.clients.given import GIVEN_NOTHING, Given
from fedgrpo.federation.node.clients.interfaces import Client
from fedgrpo.federation.node.clients.prompt_client import PromptClient, judging_limits, own_shapes
from fedgrpo.federation.node.clients.resident import computed, resident, use_cores
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.ground.crypto import derive_key
from fedgrpo.ground.errors import PrivacyError
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.grpo.isolated.encoding import usable_ids
from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan, release_update, zero_release
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.declared import declared_by
from fedgrpo.site.places import own_names

Floats = NDArray[np.float64]
LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""


class LocalClient:
    """Trains on its own prompts for a few steps, and hands out only what is clipped, noised and
    ready for masking.

    Parameters
    ----------
    trainer:
        Over the client's prompts, with the adapter that the process keeps resident. None where
        none of its prompts can be used: it has nothing to say.
    seed:
        Of completions and of the order of prompts. ``None`` derives one from each release's own
        key, so that nobody else can draw the same again.
    spans:
        Least and largest value of each metric of users' own.
    """

    def __init__(
        self,
        settings: Settings,
        trainer: GRPOTrainer | None,
        seed: int | None,
        spans: Mapping[str, Span] = MappingProxyType({}),
    ) -> None:
        self.settings, self.spans = settings, spans
        self.trainer = trainer
        self.seed = seed

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> Floats:
        """See :class:`~fedgrpo.federation.node.clients.interfaces.Client`. What fails is left
        out, all of it: a client is one unit, and its contribution is replaced by zero.
        """
        if self.trainer is None:
            watch.mishaps["whole contribution zero: no prompt can be used"] += 1
            return zero_release(plan, key)
        self.trainer.adapter.load(adapter)
        self.start_round(self.trainer, round, key)
        try:
            delta, steps = local_update(self.trainer)
        except BaseException as error:
            pass_on_interrupt(error)
            # Rewards and tokenizers raise what they like, and may quote what they choke on.
            told, kind = {"code": "contribution-lost"}, type(error).__name__
            LOG.error("local training failed: %s", kind, exc_info=True, extra=told)
            watch.mishaps["whole contribution zero: local training failed"] += 1
            return zero_release(plan, key)
        told = told_metrics(of_steps(steps, plan.metrics), self.settings, self.spans)[0]
        return release_update(delta, told, plan, derive_key(key, "noise"))

    def start_round(self, trainer: GRPOTrainer, round: int, key: bytes) -> None:
        """Let its trainer begin a round, numbered from 1."""
        steps, rounds = self.settings.grpo.steps, self.settings.rounds
        seed, earlier = self.round_seed(round, key), (round - 1) * steps
        trainer.start_round(seed, earlier=earlier, of_run=rounds * steps)

    def round_seed(self, round: int, key: bytes) -> int:
        """Seed of the completions and of the order of prompts in a round."""
        return _secret_seed(key) if self.seed is None else mixed(self.seed, round)


def local_update(trainer: GRPOTrainer) -> tuple[Floats, list[StepMetrics]]:
    """Take a round's local steps: the adapter's change, shape (d,), and each step's figures."""
    before = trainer.adapter.vector().astype(np.float64)
    steps = list(trainer.train(trainer.settings.steps))
    return trainer.adapter.vector() - before, steps


def local_client(
    settings: Settings, node_config: Mapping[str, Scalar], given: Given = GIVEN_NOTHING
) -> Client:
    """Make the client that a node's own configuration describes; a process keeps it for the next
    message.

    Parameters
    ----------
    settings, node_config:
        Those of the run, at home on this machine, and of the node.
    given:
        Prompts and reward that this process has already.

    Raises
    ------
    DataError
        If the node names no prompts, or they cannot be read at all.
    PrivacyError
        If there are fewer units than the stated epsilon assumes.
    """
    use_cores(settings, node_config)
    return _client(computed(settings), tuple(sorted(node_config.items())), given)


@lru_cache(maxsize=64)
def _client(
    settings: Settings, node_config: tuple[tuple[str, Scalar], ...], given: Given
) -> Client:
    config = dict(node_config)
    if settings.privacy.unit == "prompt":
        return _prompt_client(settings, config, given)
    adapter, partition = resident(settings), config.get("partition-id")
    limit = RowLimit(settings.grpo.max_prompt_length)
    rows, _ = given.prompts(settings, config, limit)
    encoded = usable_ids(adapter.base, rows, settings.grpo.max_prompt_length)
    usable: list[PromptRow] = [row for row, ids in zip(rows, encoded, strict=True) if ids]
    mixture = given.mixture(settings)
    trainer = (
        GRPOTrainer.from_settings(settings, usable, adapter=adapter, reward=mixture)
        if usable
        else None
    )
    seed = None if partition is None else mixed(settings.seed, int(partition))
    return LocalClient(settings, trainer, seed, mixture.spans)


def _prompt_client(settings: Settings, config: Mapping[str, Scalar], given: Given) -> PromptClient:
    declared = declared_by(config, settings)
    own = own_names(declared.stateless_rewards, config)
    declared = replace(declared, stateless_rewards=own)
    if declared.units:
        # Shapes are tried before a prompt is read.
        own_shapes(settings, declared.longest_prompt_tokens)
    mixture = given.isolated(settings, declared, judging_limits(settings, declared))
    limit = RowLimit(min(declared.longest_prompt_tokens, settings.grpo.max_prompt_length))
    rows, unread = given.prompts(settings, config, limit)
    client = PromptClient(settings, resident(settings), mixture, rows, declared, unread=unread)
    LOG.info("%s", unit_words(tuple(client.units.values()), settings.data.unit))
    # Of a site the declared number counts: whether there are more units or fewer is for its own
    # people to find out, before a node starts.
    count, least = declared.units or len(client.units), settings.data.min_prompts
    if count < least:
        raise PrivacyError(
            f"this node has {count} units, data.min_prompts promises at least {least}",
            cure="bring more prompts, or agree on a smaller data.min_prompts and larger epsilon",
        )
    return client


def _secret_seed(key: bytes) -> int:
    """63 bits of a seed that only the client of the key knows."""
    return int.from_bytes(derive_key(key, "completions")[:8], "big") >> 1


def mixed(seed: int, number: int) -> int:
    """A seed for one client or round that shares nothing with its neighbours'."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8], "big") >> 1
