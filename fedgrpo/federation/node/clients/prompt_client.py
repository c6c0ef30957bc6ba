"""The data holder under prompt-level privacy: units sampled by coins of their own, each computed as
if it were alone, clipped, summed on a grid and noised.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedgrpo.data.prompts import PromptRow
from fedgrpo.federation.node.clients.figures import of_groups, told_metrics
from fedgrpo.federation.node.clients.resident import computed, resident
from fedgrpo.federation.node.clients.unit_rows import UnitRows, share_of
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.ground.crypto import derive_key
from fedgrpo.grpo.isolated.apart import Limits
from fedgrpo.grpo.isolated.engine import Engine, Lesson
from fedgrpo.grpo.isolated.keys import Row
from fedgrpo.grpo.isolated.proof import SAFETY, Proof, most_sampled, prove_isolation, sized_seconds
from fedgrpo.grpo.isolated.shapes import Layout, step_above
from fedgrpo.grpo.learning.isolation import require_isolation
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.model.adapter import AdapterState
from fedgrpo.model.family.row_gradients import hookable, row_gradients
from fedgrpo.model.lora import Adapter
from fedgrpo.privacy.accounting.guarantees import OVERFLOW
from fedgrpo.privacy.grid import GridSum
from fedgrpo.privacy.release import ReleasePlan, release_prompts
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.rewards.judges.limits import question_tokens
from fedgrpo.rewards.sandboxed.isolated import IsolatedMixture, WorkerLimits
from fedgrpo.settings import Settings
from fedgrpo.site.declared import Declared

Floats = NDArray[np.float64]

_FASTEST_ROW_S, _SLOWEST_ROW_S = 0.02, 2.0
"""CPU seconds in which every row can be encoded, and that none needs."""


class PromptClient(UnitRows):
    """One clipped, noised gradient a round over units sampled by independent coins.

    Parameters
    ----------
    adapter:
        The one that the process keeps resident.
    reward:
        Judges one prompt's group at a time, remembering nothing.
    rows:
        The site's own.
    unread:
        Rows of the source that could not be read at all, for the site's own people.

    Raises
    ------
    SettingsError
        If the algorithm compares prompts with each other. The client looks for itself: the settings
        come from the server.
    ModelError
        If the model cannot keep prompts apart.
    """

    def __init__(
        self,
        settings: Settings,
        adapter: Adapter,
        reward: RewardMixture,
        rows: Sequence[PromptRow],
        declared: Declared,
        *,
        unread: int = 0,
    ) -> None:
        require_isolation(settings.grpo)
        limits = encoding_limits(declared) if declared.units else None
        super().__init__(settings, adapter.base, rows, declared, unread=unread, limits=limits)
        longest = self.longest
        if not declared.units:
            # A simulated node is its own site, and need not keep its longest prompt to itself.
            own = max((len(ids) for ids in self.ids if ids), default=1)
            longest = min(longest, step_above(own))
        self.layout, self.proof = own_shapes(settings, longest)
        self.engine = _engine(settings, adapter, reward, rows, self.layout)
        self.spans = reward.spans

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> Floats:
        """See :class:`fedgrpo.federation.node.clients.interfaces.Client`.

        A prompt that fails, wherever it does, is left out and counted, and nothing else.
        """
        self.engine.policy.adapter.load(adapter)
        rows = self.sampled(plan, key, watch)
        total = self.clipped_sum(rows, plan.clipping_norm, watch)
        return release_prompts(total, plan, derive_key(key, "noise"))

    def clipped_sum(self, rows: Sequence[Row], clipping_norm: float, watch: Watch) -> GridSum:
        """Sum what these rows' units say, each unit clipped by itself."""
        total = GridSum.nothing(self._dimension, len(self.settings.privacy.coordinates))
        waiting: defaultdict[str, list[Lesson]] = defaultdict(list)
        for lessons, done in self.engine.teach(self.engine.collect(rows, watch), watch):
            for lesson in lessons:
                waiting[lesson.judged.row.unit].append(lesson)
            for name in done & waiting.keys():
                total += self._unit(waiting.pop(name), clipping_norm, watch)
        assert not waiting or watch.left() <= 0, "a unit that was in time was never summed"
        return total

    def _unit(self, lessons: list[Lesson], clipping_norm: float, watch: Watch) -> GridSum:
        """What one unit says: its rows' gradients summed, their figures averaged, in their own
        order.
        """
        ordered = in_order(lessons)
        figures = of_groups([lesson.judged.experience.per_prompt() for lesson in ordered])
        told = told_metrics(figures, self.settings, self.spans)[0]
        return share_of(unit_gradient(ordered, self._dimension), told, clipping_norm, watch)

    @property
    def _dimension(self) -> int:
        return self.engine.policy.adapter.dimension


def in_order(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Lessons of a unit in the order of its rows."""
    return sorted(lessons, key=lambda lesson: lesson.judged.row.ordinal)


def unit_gradient(lessons: Sequence[Lesson], dimension: int) -> Floats:
    """Sum of a unit's gradients in the order given, float64, shape (d,); zeros of none."""
    total = np.zeros(dimension)
    with np.errstate(over="ignore", invalid="ignore"):
        for lesson in lessons:
            if lesson.gradient is not None:
                total += lesson.gradient.numpy()
    return total


def own_shapes(settings: Settings, longest: int) -> tuple[Layout, Proof]:
    """Shapes of this process's model for prompts of up to ``longest`` tokens, and their proof; kept
    for the next message. Raises ModelError if the model cannot keep prompts apart.
    """
    return _own_shapes(computed(settings), longest)


def order_seconds(
    settings: Settings, declared: Declared, reward: IsolatedMixture | None = None
) -> float:
    """Most seconds that an order can cost at a site, by public figures.

    Parameters
    ----------
    reward:
        Loaded and bound; rewards that run a model are timed, and one start of a worker anew is
        counted. None leaves both out.
    """
    layout, proof = own_shapes(settings, declared.longest_prompt_tokens)
    expected = settings.grpo.prompts_per_step
    prompts = most_sampled(declared.units, expected, OVERFLOW) * settings.data.unit_rows
    judging = prompts * judging_limits(settings, declared).wall_s
    group, tokens = settings.grpo.group_size, judge_tokens(settings, declared)
    encoding = encoding_limits(declared).all_s if declared.answer_after_s else 0.0
    if reward is not None:
        judging += reward.restart_s + SAFETY * prompts * reward.model_seconds(group, tokens)
    return encoding + sized_seconds(layout, proof, prompts, group) + judging


def encoding_limits(declared: Declared) -> Limits:
    """What rows may cost a model's template and tokenizer: an eighth of the time until the answer,
    of which half is shared out among as many as the site declares, and half is for new processes.
    """
    if not declared.answer_after_s:
        return Limits(_SLOWEST_ROW_S, math.inf)
    share = declared.answer_after_s / 8
    row = share / (2 * max(declared.units, 1))
    return Limits(min(_SLOWEST_ROW_S, max(_FASTEST_ROW_S, row)), share)


def judge_tokens(settings: Settings, declared: Declared) -> int:
    """Most tokens of a question that a reward may ask a model, by public figures."""
    longest = min(declared.longest_prompt_tokens, settings.grpo.max_prompt_length)
    return question_tokens(longest, settings.grpo.max_completion_length)


def judging_limits(settings: Settings, declared: Declared) -> WorkerLimits:
    """What one prompt's group may cost its rewards: a quarter of the time until the answer, shared
    out among as many prompts as that is sized for.
    """
    if not (declared.units and declared.answer_after_s):
        return WorkerLimits()
    expected = settings.grpo.prompts_per_step
    prompts = most_sampled(declared.units, expected, OVERFLOW) * settings.data.unit_rows
    seconds = min(WorkerLimits().wall_s, declared.answer_after_s / 4 / max(prompts, 1))
    return WorkerLimits(cpu_s=max(1, math.ceil(seconds)), wall_s=max(seconds, 0.05))


def planned_shapes(settings: Settings, adapter: Adapter, longest: int) -> Layout:
    """Shapes as they are before it is tried whether prompts are strangers in them."""
    several = hookable(adapter.causal, list(adapter.trainable.values()))
    cpu = adapter.base.device.type == "cpu"
    return Layout.of(settings.grpo, longest, cpu=cpu, several=several)


@lru_cache(maxsize=8)
def _own_shapes(settings: Settings, longest: int) -> tuple[Layout, Proof]:
    adapter = resident(settings)
    layout = planned_shapes(settings, adapter, longest)
    engine = _engine(settings, adapter, RewardMixture([("none", _unjudged, 1.0)]), (), layout)
    proof = prove_isolation(engine)
    return engine.layout, proof


def _unjudged(completions: Sequence[object]) -> list[float]:
    """A reward for made-up completions, which are never judged."""
    return [0.0] * len(completions)


def _engine(
    settings: Settings,
    adapter: Adapter,
    reward: RewardMixture,
    rows: Sequence[PromptRow],
    layout: Layout,
) -> Engine:
    policy, most = Policy(adapter, settings.grpo), settings.data.unit_rows
    return Engine(policy, reward, rows, layout, row_gradients, unit_rows=most)
