"""A completion ends at the token that completes a text, however it is looked at."""

from functools import lru_cache

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from fedgrpo.grpo.rollout.choice.stops import Stops
from fedgrpo.model.base import load_base
from fedgrpo.settings import ModelSettings


@lru_cache(maxsize=1)
def tokenizer() -> PreTrainedTokenizerBase:
    return load_base(ModelSettings(device="cpu")).tokenizer


def ids(text: str) -> list[int]:
    return list(tokenizer().encode(text, add_special_tokens=False))


@pytest.mark.parametrize("since", [0, 2])
def test_it_ends_at_the_first_token_that_completes_any_of_the_texts(since: int) -> None:
    tokens = torch.tensor([ids("12345634"), ids("99999999"), ids("56123434")])
    stops = Stops(tokenizer(), ["34", "61"])
    assert stops.reached(tokens, [8, 8, 8], [since] * 3) == [4, 0, 3]
    assert stops.reached(tokens, [3, 8, 2], [since] * 3) == [0, 0, 0]
    marks = stops.marks(tokens, torch.tensor([8, 8, 2]))
    assert marks.nonzero().tolist() == [[0, 3]]


def test_its_trial_does_the_work_and_finds_nothing() -> None:
    tokens = torch.tensor([ids("1234")])
    assert Stops(tokenizer(), ["2"]).never().reached(tokens, [4], [0]) == [0]


def test_a_row_that_cannot_be_decoded_stops_no_other() -> None:
    tokens = torch.tensor([[2**40] * 4, ids("1234")])
    assert Stops(tokenizer(), ["23"]).reached(tokens, [4, 4], [0, 0]) == [0, 3]
