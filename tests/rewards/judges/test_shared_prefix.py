from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.rewards.judges.forward import last_logits
from fedgrpo.rewards.judges.shared_prefix import Family, batches, find_families
from tests.models import tiny_base

BASE = tiny_base()
SEQUENCES = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=9), min_size=1, max_size=8)


def _cost(families: list[Family], sequences: list[list[int]]) -> int:
    rests = sum(len(sequences[i]) - f.shared for f in families for i in f.members)
    return sum(f.shared for f in families) + rests


def test_a_group_shares_its_prompt_and_the_next_prompt_begins_a_family() -> None:
    first, second = [9, 3, 3, 3, 3, 3], [9, 4, 4, 4, 4, 4]
    sequences = [[*first, 5], [*first, 6, 6], [*first, 7], [*second, 5], [*second, 6]]
    assert find_families(sequences) == [Family(range(3), 6, 8), Family(range(3, 5), 6, 7)]


@given(SEQUENCES)
def test_families_cover_all_share_what_they_say_and_never_cost_more(
    sequences: list[list[int]],
) -> None:
    families = find_families(sequences)
    assert [i for family in families for i in family.members] == list(range(len(sequences)))
    for family in families:
        members = [sequences[i] for i in family.members]
        assert all(ids[: family.shared] == members[0][: family.shared] for ids in members)
        assert all(len(ids) > family.shared for ids in members)
        assert family.longest == max(map(len, members))
    assert _cost(families, sequences) <= sum(map(len, sequences))


@given(SEQUENCES, st.integers(1, 40))
def test_batches_keep_families_whole_and_to_the_budget(
    sequences: list[list[int]], budget: int
) -> None:
    families = find_families(sequences)
    made = list(batches(families, budget))
    flat = [family for batch in made for family in batch]
    assert sorted(flat, key=lambda f: f.members.start) == families
    for batch in made:
        rows = sum(len(family.members) for family in batch)
        assert len(batch) == 1 or rows * max(f.longest for f in batch) <= budget


@pytest.mark.slow
@settings(max_examples=15)
@given(SEQUENCES, st.sampled_from([1, 25, 10**6]))
def test_sharing_changes_no_logit(sequences: list[list[int]], budget: int) -> None:
    found = last_logits(BASE, sequences, [3, 30, 47], budget)
    with torch.no_grad():
        plain = [BASE.model(torch.tensor([ids])).logits[0, -1, [3, 30, 47]] for ids in sequences]
    np.testing.assert_allclose(found, torch.stack(plain), atol=1e-4)


def test_a_shared_beginning_goes_through_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    backbone = BASE.model.model
    plain = backbone.forward

    def counting(*, input_ids: torch.Tensor, **rest: object) -> object:
        seen.append(input_ids.numel())
        return plain(input_ids=input_ids, **rest)

    monkeypatch.setattr(backbone, "forward", counting)
    last_logits(BASE, [[5] * 40 + [6 + i] for i in range(8)], [3], 10**6)
    assert seen == [40, 8]
