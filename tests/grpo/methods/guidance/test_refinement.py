"""What is asked after a critique, which answer joins the group, and under which prompt."""

import numpy as np
import pytest
import torch

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import DataError, SettingsError
from fedgrpo.grpo import compute_loss
from fedgrpo.grpo.learning.advantages import compute_advantages
from fedgrpo.grpo.methods.guidance.refinement import (
    TEMPLATE,
    JoinedGroups,
    indicative_critique,
    join_best,
    refinement_prompts,
)
from fedgrpo.grpo.methods.guidance.templates import check_fields, fill_prompt, require_column
from fedgrpo.grpo.rollout.packing import PackedBatch, pack
from fedgrpo.grpo.rollout.sampling import Rollout, SamplingPlan, sample
from fedgrpo.grpo.rollout.scoring import completion_logps
from fedgrpo.rewards.composite import RewardResult
from tests.models import random_llama, tiny_base

PLAIN = [(5, 6, 7), (9, 4, 4, 8)]
GROUP, WIDTH = 3, 6


def roll(prompts: list[tuple[int, ...]], group: int) -> Rollout:
    plan = SamplingPlan(group, WIDTH, 1.0, (1, 7, 9), 0)
    return sample(random_llama(), prompts, plan, torch.Generator().manual_seed(group))


def verdict(*total: float) -> RewardResult:
    values = np.array(total)
    return RewardResult(values, {"right": values, "form": 10 + values})


def score(rollout: Rollout, batch: PackedBatch) -> torch.Tensor:
    return completion_logps(random_llama(), batch, rollout.tokens.shape[1], 1.0)


def joined(
    best: tuple[float, ...] = (0, 1, 1, 0, 0, 1),
) -> tuple[Rollout, Rollout, JoinedGroups]:
    rollout = roll(PLAIN, GROUP)
    refinements = roll([(*PLAIN[i // GROUP], 20, 21, i) for i in range(6)], 1)
    groups = join_best(
        rollout, verdict(0, 0, 1, 0, 0, 0), refinements, verdict(*best), score, tokens_per_batch=64
    )
    return rollout, refinements, groups


def test_the_best_refinement_is_the_last_of_its_group_and_the_rest_is_as_it_was() -> None:
    rollout, refinements, groups = joined()
    for name in ("tokens", "mask", "ended"):
        new = getattr(groups.rollout, name).unflatten(0, (2, GROUP + 1))
        assert torch.equal(new[:, :GROUP].flatten(0, 1), getattr(rollout, name))
    tokens = groups.rollout.tokens[groups.refined]
    assert torch.equal(tokens[1], refinements.tokens[5])
    assert any(torch.equal(tokens[0], refinements.tokens[i]) for i in (1, 2))
    assert groups.refined.tolist() == [False] * 3 + [True] + [False] * 3 + [True]
    assert groups.rollout.prompts == rollout.prompts
    assert groups.rewards.total.tolist() == [0, 0, 1, 1, 0, 0, 0, 1]
    assert groups.rewards.per_function["form"].tolist() == [10, 10, 11, 11, 10, 10, 10, 11]


@pytest.mark.parametrize("ended", [(True, True, True), (False, True, True), (False, False, True)])
def test_of_equal_refinements_the_first_that_ended_is_taken(ended: tuple[bool, ...]) -> None:
    _, refinements, _ = joined()
    rollout = roll(PLAIN, GROUP)
    cut = Rollout(
        refinements.prompts,
        refinements.tokens,
        refinements.logps,
        refinements.mask,
        torch.tensor(ended * 2),
        1,
    )
    equal = verdict(*[0.5] * 6)
    groups = join_best(rollout, equal, cut, equal, score, tokens_per_batch=64)
    first = ended.index(True)
    expected = refinements.tokens[[first, 3 + first]]
    assert torch.equal(groups.rollout.tokens[groups.refined], expected)


def test_a_refinement_counts_under_the_plain_prompt() -> None:
    rollout, _, groups = joined()
    for row in groups.refined.nonzero()[:, 0].tolist():
        tokens = groups.rollout.tokens[row][groups.rollout.mask[row]]
        prompt = groups.rollout.prompts[row // (GROUP + 1)]
        logits = random_llama()(torch.tensor([[*prompt, *tokens.tolist()]])).logits[0]
        logps = logits[len(prompt) - 1 : -1].log_softmax(1).gather(1, tokens[:, None])[:, 0]
        assert torch.allclose(groups.rollout.logps[row, : len(tokens)], logps, atol=1e-5)
    plain = groups.rollout.logps[~groups.refined]
    assert torch.equal(plain, rollout.logps)
    assert not groups.rollout.logps[~groups.rollout.mask].any()


def test_joining_leaves_what_was_sampled_untouched() -> None:
    rollout, refinements, _ = joined()
    assert torch.equal(rollout.logps, roll(PLAIN, GROUP).logps)
    assert torch.equal(
        refinements.logps, roll([(*PLAIN[i // 3], 20, 21, i) for i in range(6)], 1).logps
    )


def test_joined_groups_go_through_packing_and_the_loss() -> None:
    _, _, groups = joined()
    advantages = compute_advantages("dr_grpo", groups.rewards.total, GROUP + 1)
    assert advantages.reshape(2, -1).sum(1) == pytest.approx([0, 0])
    (batch,) = pack(groups.rollout, range(8), tokens_per_batch=10**6)
    rows = batch.completions
    loss = compute_loss(
        "critique_grpo",
        score(groups.rollout, batch),
        groups.rollout.logps[rows],
        torch.from_numpy(advantages).float()[rows],
        groups.rollout.mask[rows],
        refined=groups.refined[rows],
    ).loss
    p = groups.rollout.logps.exp()
    weight = torch.where(groups.refined[:, None], p / (p + 0.1), torch.ones(()))
    by_hand = -(weight * torch.from_numpy(advantages).float()[:, None] * groups.rollout.mask).sum()
    assert float(loss) == pytest.approx(float(by_hand) / (8 * WIDTH), abs=1e-5)


ROW = PromptRow("max 312=", {"answer": "3"})


def ask(limit: int, completion: str = "12345678") -> str:
    tokenizer = tiny_base().tokenizer
    ids = torch.tensor([tokenizer(completion, add_special_tokens=False)["input_ids"]])
    whole = torch.ones_like(ids, dtype=torch.bool)
    rollout = Rollout(((1,),), ids, ids * 0.0, whole, whole[:, 0], 1)
    short = "{prompt}{completion}{critique}"
    (prompt,) = refinement_prompts(
        tokenizer,
        [ROW],
        rollout,
        np.zeros(1),
        lambda row, text, reward: "=",
        template=short,
        limit=limit,
    )
    return str(tokenizer.decode(list(prompt), skip_special_tokens=True))


def test_a_long_completion_is_shown_without_its_beginning() -> None:
    whole = ask(100)
    assert whole == "max 312=12345678="
    assert ask(len(whole) - 3) in {f"max 312={'12345678'[n:]}=" for n in (3, 4)}


def test_a_critique_that_leaves_no_room_is_refused_without_quoting_anyone() -> None:
    with pytest.raises(DataError, match="prompt 1 of the step") as caught:
        ask(3)
    assert "312" not in str(caught.value)
    assert "1234" not in str(caught.value)


def test_critique_tells_right_from_wrong_and_the_answer_only_if_told_to() -> None:
    telling, silent = indicative_critique(1.0, "answer"), indicative_critique(1.0, None)
    assert telling(ROW, "x", 1.0) == "The solution is correct. The reference answer is 3."
    assert silent(ROW, "x", 0.5) == "The solution is incorrect."


def test_template_fills_texts_and_the_last_message_of_a_chat() -> None:
    system = {"role": "system", "content": "Be brief."}
    chat = PromptRow((system, {"role": "user", "content": "How many {legs}?"}))
    filled = fill_prompt(chat, "{prompt} Hint: {answer}", answer="{8}")
    assert filled == [system, {"role": "user", "content": "How many {legs}? Hint: {8}"}]
    assert fill_prompt(ROW, "{prompt} {answer}", answer="3") == "max 312= 3"


def test_a_template_with_other_fields_is_refused() -> None:
    fields = ("prompt", "completion", "critique")
    assert check_fields("grpo.refinement_template", TEMPLATE, fields) == TEMPLATE
    for wrong in ("{prompt} {completion}", TEMPLATE + "{answer}"):
        with pytest.raises(SettingsError, match=r"grpo\.refinement_template"):
            check_fields("grpo.refinement_template", wrong, fields)


def test_rows_without_the_answer_are_refused_by_number() -> None:
    rows = [ROW, PromptRow("secret", {"answer": None}), PromptRow("secret")]
    with pytest.raises(DataError, match="prompt 2 has no 'answer'") as caught:
        require_column(rows, "answer", "the informed prompt")
    assert "secret" not in str(caught.value)
    require_column(rows[:1], "answer", "the informed prompt")
