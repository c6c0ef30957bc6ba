"""Which completions answer the same prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from fedgrpo.ground.chats import Chat


def same_prompt_runs(prompts: Sequence[str | Chat]) -> list[slice]:
    """Cut a batch where the prompt changes.

    TRL's convention repeats a group's prompt side by side and passes no group size, so runs of
    equal prompts are the groups. Two neighbouring rows that ask the same question share one run,
    which is one larger vote. Under prompt-level privacy every row is judged in a call of its own.

    Parameters
    ----------
    prompts:
        n prompts, one a completion.

    Returns
    -------
    list of slice
        One for each run, in order; together they cover ``range(n)``.
    """
    runs, start = [], 0
    for _, members in groupby(prompts):
        stop = start + sum(1 for _ in members)
        runs.append(slice(start, stop))
        start = stop
    return runs
