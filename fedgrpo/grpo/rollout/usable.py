"""Which prompts a model can take, as token ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from fedgrpo.data.failing import check_failing
from fedgrpo.data.prompts import PromptRow, collate_columns
from fedgrpo.ground.errors import DataError
from fedgrpo.ground.mishaps import at_most, pass_on_interrupt
from fedgrpo.model.base import model_source
from fedgrpo.model.chat_style import ChatStyle
from fedgrpo.model.encoding import encode_prompt
from fedgrpo.model.loading import load_tokenizer
from fedgrpo.rewards.apart.mixture import guarded_mixture
from fedgrpo.rewards.composite import RewardMixture, check_columns
from fedgrpo.settings import Settings

Rows = Sequence[PromptRow]

ROW_S = 10.0
"""Seconds after which a template or tokenizer is taken to never end at a row."""
LATE = 3
"""Rows of that kind after which no more are tried."""
LOOKED_AT = 2000
"""Rows that are encoded before anything starts; all are when their trainer is made."""


@dataclass(frozen=True)
class Usable:
    """Rows that can be used, and why others cannot.

    Attributes
    ----------
    rows, encoded:
        Usable ones, and their token ids.
    failures:
        Of each other row: names it by its number in its source, and no value.
    """

    rows: list[PromptRow]
    encoded: list[tuple[int, ...]]
    failures: list[DataError]


def usable_rows(
    tokenizer: PreTrainedTokenizerBase, style: ChatStyle, rows: Sequence[PromptRow], limit: int
) -> Usable:
    """Encode rows with at most ``limit`` tokens; chat messages go through the template.

    Raises
    ------
    DataError
        If several rows take longer than ``ROW_S`` each.
    """
    found, late = Usable([], [], []), 0
    for place, row in enumerate(rows, start=1):
        name, began = f"row {row.number or place} of the prompts", time.monotonic()
        try:
            with at_most(ROW_S):
                ids = tuple(encode_prompt(tokenizer, row.prompt, style))
            _check_length(ids, limit)
        except DataError as error:
            found.failures.append(DataError(f"{name}: {error.problem}", cure=error.cure))
        except BaseException as error:
            # Tokenizers raise what they like, and may quote what they choke on.
            pass_on_interrupt(error)
            problem = f"{name}: the tokenizer refuses it ({type(error).__name__})"
            found.failures.append(DataError(problem, cure="mend the row or take it out"))
        else:
            found.rows.append(row)
            found.encoded.append(ids)
        late += time.monotonic() - began > ROW_S
        if late == LATE:
            raise DataError(
                f"{name}, and others before it, take longer than {ROW_S:g} s to encode",
                cure="see whether the chat template ends: tokenizer.apply_chat_template by hand",
            )
    return found


def check_encoding(settings: Settings, rows: Sequence[PromptRow]) -> None:
    """Encode rows by the tokenizer alone, long before the model is loaded. That of a model on the
    Hub is left to the run.

    Raises
    ------
    DataError
        If too many of them cannot be used.
    ModelError
        If the tokenizer cannot be loaded.
    """
    source = model_source(settings.model.name)
    if not Path(source).is_dir():
        return
    seen = rows[:: max(1, len(rows) // LOOKED_AT)]
    tokenizer = load_tokenizer(source, settings.model.revision or "main", padding_side="left")
    style, limit = ChatStyle.of(settings.data), settings.grpo.max_prompt_length
    found = usable_rows(tokenizer, style, seen, limit)
    check_failing(found.failures, len(seen), settings.data.max_failing)


def check_start(
    settings: Settings, training: Callable[[], Rows], held_out: Callable[[], Rows]
) -> list[Callable[[], object]]:
    """What can be known of prompts, rewards and tokenizer before the model is loaded, as checks.

    Rewards judge in the process in which they would, or in the trainer's under prompt-level
    privacy, whose own process is the node's affair.

    Parameters
    ----------
    settings:
        Of the run.
    training, held_out:
        Read the prompts: all that there are, and those that are held out.
    """
    reward = settings.reward
    apart = settings.privacy.unit != "prompt"
    load = guarded_mixture if apart else RewardMixture.from_settings
    return [
        lambda: check_columns(
            load(reward, settings.privacy.own_metrics), collate_columns(training())
        ),
        lambda: check_columns(
            guarded_mixture(reward, evaluation=True), collate_columns(held_out())
        ),
        lambda: check_encoding(settings, training()),
        lambda: _check_by(settings, held_out()),
    ]


def _check_by(settings: Settings, held_out: Rows) -> None:
    """Refuse a column that somebody names and no held-out prompt has; the one that is named by
    default belongs to built-in tasks alone.
    """
    by, usual = settings.evaluation.by, type(settings.evaluation).model_fields["by"].default
    columns = collate_columns(held_out)
    if by and by != usual and by not in columns:
        raise DataError(
            f"evaluation.by = {by!r} is a column that no held-out prompt has; beside prompt they "
            f"have {', '.join(sorted(columns)) or 'none'}",
            cure="name one of these, or leave it out",
        )


def held_out_reward(settings: Settings, trained: RewardMixture) -> RewardMixture:
    """What judges held-out prompts: what training is judged by, unless the settings name others."""
    own = bool(settings.reward.evaluation)
    return guarded_mixture(settings.reward, evaluation=True) if own else trained


def _check_length(ids: Sequence[int], limit: int) -> None:
    if not 0 < len(ids) <= limit:
        raise DataError(
            f"it has {len(ids)} tokens, allowed are 1 to {limit}",
            cure="shorten it, or raise grpo.max_prompt_length",
        )
