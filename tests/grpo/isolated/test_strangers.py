"""A prompt's completions, log-probabilities, rewards and gradient are the same to the bit alone,
among any others, and in any order.
"""

from functools import lru_cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.grpo.isolated.teaching import _scores, teaching_batch
from fedgrpo.privacy.grid import GridSum
from tests.crafted import force, silencer, trigger
from tests.grpo.isolated.engines import COUNT, bits, engine, learned, made

pytestmark = pytest.mark.slow

KINDS = ["ffa_lora", "lora", "tiny_lora"]
DTYPES = ["float32", "bfloat16"]


@lru_cache(maxsize=128)
def alone(kind: str, dtype: str, number: int) -> bytes:
    judged, lessons = learned(engine(kind, dtype), [number])
    return bits(judged[number], lessons[number])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    order=st.permutations(range(COUNT)),
    count=st.integers(2, 14),
)
def test_a_prompt_is_the_same_to_the_bit_alone_and_among_any_others(
    kind: str, dtype: str, order: list[int], count: int
) -> None:
    judged, lessons = learned(engine(kind, dtype), order[:count])
    # Nothing was lost on the way, and nearly everything teaches.
    assert set(judged) == set(lessons) == set(order[:count])
    for number in order[: min(count, 3)]:
        assert bits(judged[number], lessons[number]) == alone(kind, dtype, number)


@pytest.mark.parametrize("entropy", [0.0, 0.01])
def test_knobs_of_sampling_keep_prompts_apart_to_the_bit(entropy: float) -> None:
    which = engine(knobs=True)
    which.settings = which.settings.model_copy(update={"entropy_weight": entropy})
    numbers = list(range(COUNT))
    together, lessons = learned(which, numbers)
    reversed_judged, reversed_lessons = learned(which, numbers[::-2])
    for number in numbers[1::6]:
        judged, own = learned(which, [number])
        expected = bits(judged[number], own[number])
        assert bits(together[number], lessons[number]) == expected
        assert bits(reversed_judged[number], reversed_lessons[number]) == expected
    # Texts stopped some, and the knobs changed what is sampled.
    rollouts = [judged.experience.rollout for judged in together.values()]
    texts = [text for rollout in rollouts for text in which.policy.decode(rollout)]
    assert sum(text.endswith(("7", "31")) for text in texts) > 3
    assert not any("7" in text[:-1] or "31" in text[:-1] for text in texts)
    taught = [lesson.gradient for lesson in lessons.values() if lesson.gradient is not None]
    assert len(taught) > COUNT / 3
    assert all(gradient.isfinite().all() for gradient in taught)


def test_what_teaches_scores_what_the_isolated_sampler_drew_from() -> None:
    which = engine(knobs=True)
    judged = [j for j in which.collect(made(which, range(6)), Watch()) if which._shape(j)]
    assert judged
    for item in judged:
        shape, pad = which._shape(item), int(which.base.tokenizer.pad_token_id)
        assert shape is not None
        batch = teaching_batch([item.experience], shape, which.settings, pad)
        with torch.no_grad():
            logps, _ = _scores(which.policy.adapter.causal, batch, which.settings)
        assert torch.allclose(logps[batch.mask], batch.old_logps[batch.mask], atol=1e-4)


def test_a_knobbed_update_scores_what_the_isolated_sampler_drew_from() -> None:
    which = engine(knobs=True)
    for judged in which.collect(made(which, range(6)), Watch()):
        rollout = judged.experience.rollout
        for batch in which.policy.pack(rollout, range(len(rollout.mask))):
            mask = rollout.mask[batch.completions]
            ours = which.policy.logps(rollout, batch).detach()[mask]
            assert torch.allclose(ours, rollout.logps[batch.completions][mask], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_teach(kind: str) -> None:
    """What is compared above is not nothing."""
    _, lessons = learned(engine(kind), range(COUNT))
    gradients = [lesson.gradient for lesson in lessons.values() if lesson.gradient is not None]
    assert len(gradients) > COUNT / 2
    assert all(gradient.isfinite().all() and gradient.norm() > 0 for gradient in gradients)


@pytest.mark.parametrize("craft", [trigger, silencer])
def test_a_prompt_that_overflows_costs_its_own_row_alone(craft: object) -> None:
    """An adapter that gives NaN only where a chosen character is: nobody else notices it."""
    which = engine()
    adapter, before = which.policy.adapter, which.policy.adapter.state()
    character = "7"
    try:
        force(adapter, craft(adapter, character))  # type: ignore[operator]
        texts = [str(row.prompt) for row in which.prompts]
        hit = [i for i, text in enumerate(texts) if character in text]
        rest = [i for i in range(COUNT) if i not in hit]
        assert hit
        assert rest
        watch = Watch()
        judged = which.collect(made(which, range(COUNT)), watch)
        lessons = [lesson for part, _ in which.teach(judged, watch) for lesson in part]
        beside = {lesson.judged.row.index: lesson for lesson in lessons}
        _, apart = learned(which, rest)
        # A completion may hold the character, too.
        assert set(apart) == set(beside) & set(rest)
        assert len(apart) > 3
        for number in apart:
            ours, theirs = beside[number], apart[number]
            assert bits(ours.judged, ours) == bits(theirs.judged, theirs)
        assert sum(watch.mishaps.values()) == COUNT - len(beside)
        assert not any(
            lesson.gradient is not None and not lesson.gradient.isfinite().all()
            for lesson in lessons
        )
    finally:
        force(adapter, before)


def test_sums_on_the_grid_are_exact_in_any_order() -> None:
    _, lessons = learned(engine(), range(COUNT))
    shares = [
        GridSum.of_unit(lesson.gradient.numpy(), torch.zeros(4).double().numpy(), 0.05)
        for lesson in lessons.values()
        if lesson.gradient is not None
    ]
    nothing = GridSum.nothing(shares[0].direction.size, 4)
    forwards, backwards = sum(shares, nothing), sum(shares[::-1], nothing)
    assert forwards.direction.tobytes() == backwards.direction.tobytes()
