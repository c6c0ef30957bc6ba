from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerBase,
)

from fedgrpo.ground.errors import RewardError
from fedgrpo.model.base import TINY
from fedgrpo.rewards import (
    PreferencePair,
    RewardMixture,
    RewardModel,
    preference_accuracy,
    preference_loss,
    train_reward_model,
)


def _classifier(outputs: int = 1) -> tuple[LlamaForSequenceClassification, PreTrainedTokenizerBase]:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=outputs,
    )
    return LlamaForSequenceClassification(config).eval(), tokenizer


def _pairs(count: int, seed: int) -> list[PreferencePair]:
    """Whoever rates here likes digits and dislikes letters."""
    draw = random.Random(seed)
    texts = [
        ["".join(draw.choices(kind, k=draw.randint(3, 8))) for kind in ("0123456789", "abcdefgh")]
        for _ in range(count)
    ]
    return [PreferencePair(f"task {i % 7}=", good, bad) for i, (good, bad) in enumerate(texts)]


@pytest.mark.slow
def test_training_finds_what_was_preferred_on_pairs_it_never_saw() -> None:
    held_out = _pairs(64, seed=1)
    model, tokenizer = _classifier()
    before = preference_accuracy(RewardModel.of(model, tokenizer), held_out)
    trained = train_reward_model(
        (model, tokenizer), _pairs(96, seed=0), epochs=3, learning_rate=3e-3, device="cpu"
    )
    assert trained.losses[0] < 2 * math.log(2)
    assert trained.losses[-1] < 0.2
    assert preference_accuracy(trained.reward, held_out) >= max(0.95, before)


def test_the_same_seed_trains_the_same_model() -> None:
    rewards = []
    for _ in range(2):
        trained = train_reward_model(_classifier(), _pairs(16, 0), learning_rate=1e-3, device="cpu")
        rewards.append(trained.reward(["p"], ["123"]))
    assert rewards[0] == rewards[1]


@pytest.mark.slow
def test_a_language_model_can_be_the_base_and_come_back_from_disk(tmp_path: Path) -> None:
    trained = train_reward_model("tiny", _pairs(16, 0), learning_rate=1e-3, device="cpu")
    trained.reward.save(str(tmp_path))
    loaded = RewardModel(str(tmp_path), device="cpu", batch=2)
    texts = ["12", "abc", "1b"]
    assert loaded(["p"] * 3, texts) == pytest.approx(trained.reward(["p"] * 3, texts), abs=1e-5)


def test_loss_by_hand() -> None:
    loss = preference_loss(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    assert float(loss) == pytest.approx((math.log(1 + math.exp(-1)) + math.log(2)) / 2)


def test_a_tie_is_half_a_hit() -> None:
    pair = PreferencePair("p", "1", "1")
    assert preference_accuracy(RewardModel.of(*_classifier()), [pair]) == 0.5


def test_a_reward_depends_on_its_own_completion_and_equals_a_plain_forward() -> None:
    model, tokenizer = _classifier()
    texts = ["1", "abcdefg", "12 3", "abc"]
    together = RewardModel.of(model, tokenizer, batch=3)(["sort="] * 4, texts)
    for text, reward in zip(texts, together, strict=True):
        with torch.no_grad():
            plain = model(torch.tensor([tokenizer("sort=" + text)["input_ids"]])).logits
        assert reward == pytest.approx(float(plain), abs=1e-5)
    mixture = RewardMixture([("rm", RewardModel.of(model, tokenizer), 1.0)])
    assert mixture(["sort="] * 4, texts, {}).total == pytest.approx(together, abs=1e-5)


def test_what_is_too_long_loses_its_beginning() -> None:
    model, tokenizer = _classifier()
    short = RewardModel.of(model, tokenizer, max_length=4)(["p"], ["1234567"])
    assert short == pytest.approx(RewardModel.of(model, tokenizer)(["p"], ["567"]), abs=1e-6)


def test_a_chat_template_is_used_where_there_is_one() -> None:
    model, tokenizer = _classifier()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }};{% endfor %}"
    reward = RewardModel.of(model, tokenizer)
    asked = [{"role": "user", "content": "a"}]
    given = [{"role": "assistant", "content": "b"}]
    with torch.no_grad():
        plain = model(torch.tensor([tokenizer("a;b;")["input_ids"]])).logits
    assert reward(["a", asked], ["b", given]) == pytest.approx([float(plain)] * 2, abs=1e-5)


def test_one_of_several_outputs_is_read_as_a_probability() -> None:
    model, tokenizer = _classifier(3)
    parts = [RewardModel.of(model, tokenizer, label=i)(["p"], ["1"])[0] for i in range(3)]
    assert sum(parts) == pytest.approx(1.0)


@pytest.mark.parametrize(("outputs", "label"), [(3, None), (3, 3), (1, 0)])
def test_a_label_that_does_not_fit_is_refused(outputs: int, label: Any) -> None:
    with pytest.raises(RewardError, match=f"{outputs} outputs"):
        RewardModel.of(*_classifier(outputs), label=label)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(RewardError, match="no preference pairs"):
        train_reward_model("tiny", [])
    with pytest.raises(RewardError, match="no preference pairs"):
        preference_accuracy(RewardModel.of(*_classifier()), [])


def test_a_base_with_several_outputs_is_refused() -> None:
    with pytest.raises(RewardError, match="num_labels=1"):
        train_reward_model(_classifier(2), _pairs(2, 0))


def test_a_folder_without_a_classifier_is_explained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RewardError, match="cannot be loaded"):
        RewardModel(str(tmp_path))


def test_texts_are_not_shown_in_the_representation_of_a_pair() -> None:
    assert "secret" not in repr(PreferencePair("secret", "secret", "secret"))
