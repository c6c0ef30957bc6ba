"""A step of decoding is what a CUDA graph can replay: nothing moves, nothing waits for the device;
and memory decides how rows are cut, not what is drawn.
"""

from typing import Any

import pytest
import torch

from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.rollout import memory, sampling
from fedgrpo.grpo.rollout.choice.drawing import uniforms
from fedgrpo.grpo.rollout.decoding import Decoder, Decoding, decode, row_bucket
from fedgrpo.grpo.rollout.sampling import SamplingPlan, sample
from fedgrpo.grpo.rollout.streams import FixedStream, Prefilled
from tests.models import random_llama
from tests.recorded import WAITS, Called

PROMPTS = [[5, 6, 7], [9, 4, 4, 8, 2, 11], [3], [12, 13, 14, 15]]
DECODING = Decoding(8, 1.0, (1, 7))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def decoder(rows: int, contexts: int = 1, columns: int = 32) -> tuple[Decoder, list[Prefilled]]:
    model = random_llama()
    seen = [Prefilled(model, PROMPTS, 0) for _ in range(contexts)]
    streams = [FixedStream(model, each, rows, columns) for each in seen]
    return Decoder(streams, rows, DECODING), seen


def spoil(made: Decoder) -> None:
    """Leave in its buffers what memory that was never written may hold."""
    for buffer in (b for layer in made.streams[0]._layers for b in layer.buffers):  # type: ignore[union-attr]
        buffer.fill_(torch.nan)


@torch.no_grad()
@pytest.mark.parametrize("contexts", [1, 2])
def test_a_step_moves_no_buffer_and_waits_for_nothing(contexts: int) -> None:
    made, seen = decoder(16, contexts)
    made.begin(seen, [1 / contexts] * contexts, 3, uniforms((12, 8), generator()))
    layers = [layer for stream in made.streams for layer in stream._layers]  # type: ignore[union-attr]
    buffers = [*made.state(), *(buffer for layer in layers for buffer in layer.buffers)]
    before = [buffer.data_ptr() for buffer in buffers]
    with Called() as called:
        for _ in range(7):
            made.step()
    after = [*made.state(), *(buffer for layer in layers for buffer in layer.buffers)]
    assert [buffer.data_ptr() for buffer in after] == before
    assert not [name for name in called.names if any(wait in name for wait in WAITS)]
    assert any("index_copy" in name for name in called.names), "the mode sees the step"


@torch.no_grad()
def test_a_decoder_of_more_rows_and_columns_used_before_gives_the_same() -> None:
    """What a GPU does: buffers of a bucket's size, with what an earlier batch left in them."""
    uniform = uniforms((12, 8), generator())
    model = random_llama()
    seen = [Prefilled(model, PROMPTS, 0)]
    tokens, logps = decode(model, seen, [1.0], 3, uniform, Decoding(8, 1.0, (47,)))
    made, _ = decoder(16)
    spoil(made)
    made.begin(seen, [1.0], 3, uniform)
    for _ in range(7):
        made.step()
    assert torch.equal(made.tokens[:12], tokens)
    assert torch.allclose(made.logps[:12], logps, atol=1e-5)


@torch.no_grad()
def test_rows_that_move_into_a_smaller_decoder_go_on_as_they_were() -> None:
    uniform = uniforms((12, 8), generator())
    large, seen = decoder(16)
    small, _ = decoder(8)
    spoil(small)
    keep = torch.tensor([1, 4, 5, 11])
    large.begin(seen, [1.0], 3, uniform)
    large.step()
    small.take(large, keep)
    for _ in range(6):
        large.step()
        small.step()
    assert torch.equal(small.tokens[:4], large.tokens[keep])
    assert torch.allclose(small.logps[:4], large.logps[keep], atol=1e-5)
    assert not small.running[4:].any()


@pytest.mark.parametrize("rows", [1, 32, 33, 100, 129, 700])
def test_a_gpus_batches_have_few_sizes(rows: int) -> None:
    assert rows <= row_bucket(rows) < max(33, 2 * rows)
    assert row_bucket(rows) % 32 == 0
    assert len({row_bucket(n) for n in range(1, 1025)}) <= 18


def test_the_memory_budget_cuts_rows_and_changes_no_completion() -> None:
    plan = SamplingPlan(2, 6, 1.0, (1,), 0)
    whole = sample(random_llama(), PROMPTS, plan, generator())
    per_row = memory.row_bytes(random_llama(), 12)
    tight = SamplingPlan(2, 6, 1.0, (1,), 0, memory_gb=2 * per_row / memory.GIB)
    cut = sample(random_llama(), PROMPTS, tight, generator())
    assert memory.fitting_rows(random_llama(), 12, 2 * per_row) == 2
    assert torch.equal(whole.tokens, cut.tokens)
    assert torch.allclose(whole.logps, cut.logps, atol=1e-5)


class Short:
    """Lets a real allocation fail for batches of more than so many prompts."""

    def __init__(self, most: int) -> None:
        self.most, self.tried, self.decode = most, list[int](), sampling.decode

    def __call__(self, *args: Any) -> Any:
        prompts = len(args[1][0].real)
        self.tried.append(prompts)
        if prompts > self.most:
            torch.empty(2**60)
        return self.decode(*args)


def test_out_of_memory_halves_the_rows_once_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = SamplingPlan(2, 6, 1.0, (1,), 0)
    whole = sample(random_llama(), PROMPTS, plan, generator())
    monkeypatch.setattr(sampling, "decode", short := Short(2))
    with pytest.warns(ResourceWarning, match="going on with 2 at once"):
        halved = sample(random_llama(), PROMPTS, plan, generator())
    assert short.tried == [4, 2, 2]
    assert torch.equal(whole.tokens, halved.tokens)
    monkeypatch.setattr(sampling, "decode", Short(1))
    with (
        pytest.warns(ResourceWarning),
        pytest.raises(ModelError, match="memory ran out while completions of 2 prompts"),
    ):
        sample(random_llama(), PROMPTS, plan, generator())
