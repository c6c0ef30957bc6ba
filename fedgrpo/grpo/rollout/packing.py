"""Shared-prefix packing: one row ``[prompt | completion 1 | ... | completion G]`` instead of G
padded copies.

Each completion's positions restart behind the prompt, and the attention mask lets it see the prompt
and itself only, so the packed forward equals the padded one (tests/grpo/rollout/test_packing.py) at
a fraction of the tokens. A group that does not fit into ``max_row_tokens`` is spread over several
rows, in the extreme one completion a row: the padded form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.model.kernels.attention import additive_mask
from fedgrpo.model.kernels.packed_attention import Block, Packing

MAX_ROW_TOKENS = 2048
"""The mask of a row takes S^2 memory, so longer groups are spread."""

GPU_COLUMNS = 64
"""What rows are filled up to a multiple of on a GPU."""

PROMPT, FILLER = 0, -1


@dataclass(frozen=True)
class PackedBatch:
    """Rows that go through the model together. R rows, S columns, N completions, K completion
    tokens.

    Attributes
    ----------
    ids, positions, segments:
        int64, shape (R, S). Segment 0 is the prompt, 1, 2, ... its completions, -1 filler.
    prompt_of_row:
        int64, shape (R,): index into the rollout's prompts.
    completions:
        int64, shape (N,): rows of the rollout, in the order of ``token_completion``.
    row, column, targets:
        int64, shape (K,): the position whose output predicts each completion token, and that token.
    token_completion, token_index:
        int64, shape (K,): which of the N completions, and which of its tokens.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    prompt_of_row: Tensor
    completions: Tensor
    row: Tensor
    column: Tensor
    targets: Tensor
    token_completion: Tensor
    token_index: Tensor

    def attention_mask(self, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
        """Additive mask, shape (R, 1, S, S), made where it is used: own segment and prompt, causal;
        a filler sees only itself.
        """
        segments = self.segments.to(device)
        columns = torch.arange(segments.shape[1], device=device)
        query, key = segments[:, :, None], segments[:, None, :]
        causal = columns[None, :, None] >= columns[None, None, :]
        allowed = ((query == key) | (key == PROMPT)) & causal & (key != FILLER)
        allowed |= torch.eye(len(columns), dtype=torch.bool, device=device)
        return additive_mask(allowed, dtype)[:, None]

    def packing(self, where: Tensor, dtype: torch.dtype) -> Packing:
        """The same for an attention that skips what the mask forbids.

        Parameters
        ----------
        where:
            int64, shape (R * S,): number of each token among those that go through the model.
        dtype:
            Of the masks.
        """
        where = where.view(self.ids.shape)
        prompt, completion = self.segments == PROMPT, self.segments > PROMPT
        own_row = torch.zeros(len(self.completions), dtype=torch.long)
        own_row[self.token_completion] = completion.nonzero()[:, 0]
        lengths = torch.bincount(self.token_completion, minlength=len(self.completions))
        row, column = prompt.nonzero().T
        own = _causal(lengths)
        seen = prompt[own_row, None, : int(prompt.sum(1).max())].expand(-1, own.shape[1], -1)
        return Packing(
            _block(where[prompt], row, column, _causal(prompt.sum(1)), dtype),
            _block(
                where[completion],
                self.token_completion,
                self.token_index,
                torch.cat([seen, own], 2),
                dtype,
            ),
            own_row,
        )


def _causal(lengths: Tensor) -> Tensor:
    """Who may look at whom in sequences of these lengths, bool, shape (B, Q, Q)."""
    size = int(lengths.max())
    triangle = torch.ones(size, size, dtype=torch.bool).tril_()
    return triangle & (torch.arange(size) < lengths[:, None])[:, None]


def _block(
    put: Tensor, sequence: Tensor, index: Tensor, allowed: Tensor, dtype: torch.dtype
) -> Block:
    """Block of the tokens ``put``, each the ``index``-th of its ``sequence``."""
    taken = sequence * allowed.shape[1] + index
    take = torch.zeros(allowed.shape[0] * allowed.shape[1], dtype=torch.long)
    return Block(
        take.index_copy_(0, taken, put), put, taken, additive_mask(allowed[:, None], dtype)
    )


@dataclass(frozen=True)
class _Row:
    prompt: int
    completions: tuple[int, ...]
    width: int


def pack(
    rollout: Rollout,
    keep: Sequence[int],
    *,
    tokens_per_batch: int,
    max_row_tokens: int = MAX_ROW_TOKENS,
    columns: int = 1,
) -> Iterator[PackedBatch]:
    """Pack the completions ``keep`` (rows of the rollout) into batches of at most
    ``tokens_per_batch`` tokens.

    All rows of a prompt are in one batch, which per-prompt clipping relies on; a prompt that is
    larger than the budget makes a batch of its own. Rows of similar width go together, filled up to
    a multiple of ``columns``: few widths are few plans of a GPU's libraries.
    """
    lengths = rollout.lengths().tolist()
    groups: dict[int, list[int]] = {}
    for completion in keep:
        groups.setdefault(completion // rollout.group_size, []).append(completion)
    packed = [
        _rows(rollout, prompt, members, lengths, max_row_tokens)
        for prompt, members in groups.items()
    ]
    packed.sort(key=lambda rows: max(row.width for row in rows))
    batch: list[_Row] = []
    for rows in packed:
        widest = max(row.width for row in [*batch, *rows])
        if batch and widest * (len(batch) + len(rows)) > tokens_per_batch:
            yield _build(rollout, batch, lengths, columns)
            batch = []
        batch.extend(rows)
    if batch:
        yield _build(rollout, batch, lengths, columns)


def _rows(
    rollout: Rollout, prompt: int, members: list[int], lengths: list[int], limit: int
) -> list[_Row]:
    """Spread one prompt's completions over as few rows of at most ``limit`` tokens as first-fit
    finds.
    """
    start = len(rollout.prompts[prompt])
    rows: list[_Row] = []
    chosen: list[int] = []
    width = start
    for completion in members:
        if chosen and width + lengths[completion] > limit:
            rows.append(_Row(prompt, tuple(chosen), width))
            chosen, width = [], start
        chosen.append(completion)
        width += lengths[completion]
    return [*rows, _Row(prompt, tuple(chosen), width)]


def _build(rollout: Rollout, rows: list[_Row], lengths: list[int], columns: int = 1) -> PackedBatch:
    width = -(-max(row.width for row in rows) // columns) * columns
    completions = [completion for row in rows for completion in row.completions]
    texts = rollout.tokens[completions].tolist()
    taken: Iterator[list[int]] = (
        text[: lengths[completion]] for text, completion in zip(texts, completions, strict=True)
    )
    # Plain lists until the end: a tensor operation for each completion costs more than its tokens.
    ids, positions, segments = [], [], []
    at_row: list[int] = []
    at_column: list[int] = []
    targets: list[int] = []
    which: list[int] = []
    index: list[int] = []
    number = 0
    for r, row in enumerate(rows):
        prompt = rollout.prompts[row.prompt]
        start, column = len(prompt), len(prompt)
        row_ids, row_positions, row_segments = list(prompt), list(range(start)), [PROMPT] * start
        for segment, tokens in enumerate(islice(taken, len(row.completions)), start=1):
            size = len(tokens)
            row_ids += tokens
            row_positions += range(start, start + size)
            row_segments += [segment] * size
            at_row += [r] * size
            at_column += [start - 1, *range(column, column + size - 1)]
            targets += tokens
            which += [number] * size
            index += range(size)
            column, number = column + size, number + 1
        filler = width - column
        ids.append(row_ids + [0] * filler)
        positions.append(row_positions + [0] * filler)
        segments.append(row_segments + [FILLER] * filler)
    prompts = [row.prompt for row in rows]
    by_row = (ids, positions, segments, prompts, completions)
    by_token = (at_row, at_column, targets, which, index)
    return PackedBatch(*map(torch.tensor, (*by_row, *by_token)))
