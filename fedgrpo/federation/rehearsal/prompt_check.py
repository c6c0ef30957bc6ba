"""A site's own people hold its prompts against its own figures, before any server asks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.data.curation.manifest import check_manifest
from fedgrpo.data.files.row_limits import RowLimit
from fedgrpo.data.sources import Source
from fedgrpo.data.survey import Survey, survey_source
from fedgrpo.data.units import check_unit_column, units_of
from fedgrpo.ground.chats import Prompt
from fedgrpo.ground.errors import DataError, FedGRPOError
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site import Policy, Refusal, declared_by
from fedgrpo.site.checked import (
    Checked,
    files_stamp,
    keep_checked,
    looked_at,
    proposed,
    with_columns,
)
from fedgrpo.site.declared import FINISH_S, declared_in
from fedgrpo.site.node_folder import STATE, folder_beside
from fedgrpo.site.places import at_home

_ANY_LENGTH = 10**9
_SLOW = "takes the model's template or tokenizer longer than a node waits"


@dataclass(frozen=True)
class Found:
    """What there is in a site's prompts. For the site's own people: nothing of it is noised.

    Attributes
    ----------
    rows, units:
        How many.
    stamp:
        Of the files that were looked at.
    looked_at:
        How.
    column:
        That makes the units; the text if empty.
    longest:
        Tokens of the longest prompt.
    too_long:
        Rows above the declared length.
    unusable:
        Rows that cannot be read, by reason.
    uncurated:
        Why they are not as they were curated; empty if they are. None: nobody asked.
    """

    rows: int
    units: int
    stamp: str
    looked_at: str
    column: str
    longest: int
    too_long: int
    unusable: Mapping[str, int]
    uncurated: str | None = None


def find(config: Mapping[str, Scalar], settings: Settings, policy: Policy) -> Found:
    """Look at every row.

    Parameters
    ----------
    config:
        The node's own: ``prompts``, a file or folder, and what it calls columns and where it has
        the model, if it says so.
    settings:
        Name the model whose tokens count, and the column that makes units.
    policy:
        The site's.

    Raises
    ------
    DataError
        If the prompts, or a line of them, cannot be read at all, rows have no value in the column
        that makes units, or the files changed meanwhile.
    ModelError
        If the model cannot be loaded.
    """
    prompts = str(config["prompts"])
    settings = with_columns(settings, str(config.get("columns", "")))
    stamp = files_stamp(prompts)
    survey = surveyed(prompts, at_home(settings, config), policy)
    if files_stamp(prompts) != stamp:
        raise DataError(f"{prompts} changed while it was looked at", cure="check it again")
    limit = policy.longest_prompt_tokens or _ANY_LENGTH
    return Found(
        rows=survey.count,
        units=len(units_of(survey.rows, settings.data.unit)),
        stamp=stamp,
        looked_at=looked_at(settings),
        column=settings.data.unit,
        longest=max(survey.lengths, default=0),
        too_long=sum(length > limit for length in survey.lengths),
        unusable=survey.refused,
        uncurated=_uncurated(prompts) if policy.curated else None,
    )


def _uncurated(prompts: str) -> str:
    try:
        check_manifest(Path(prompts).expanduser())
    except FedGRPOError as error:
        return f"{error.problem}\n  cure: {error.cure}"
    return ""


def surveyed(prompts: str, settings: Settings, policy: Policy) -> Survey:
    """Look at every row and keep those that can be used, with their lengths; see :func:`find`. The
    settings are at home here.
    """
    longest = min(policy.longest_prompt_tokens or _ANY_LENGTH, settings.grpo.max_prompt_length)
    rows = survey_source(Source.of(settings.data, prompts), _one, _ANY_LENGTH, RowLimit(longest))
    survey = _measured(rows, settings, policy)
    check_unit_column(survey.rows, settings.data.unit, prompts)
    return survey


def _one(_: Prompt) -> int:
    """A length for a prompt that is yet to be measured."""
    return 1


def _measured(survey: Survey, settings: Settings, policy: Policy) -> Survey:
    """Measure rows, and tell those apart that the model's tokenizer takes too long over."""
    lengths = _lengths([row.prompt for row in survey.rows], settings, policy)
    fine = [i for i, length in enumerate(lengths) if length]
    refused = Counter(survey.refused)
    refused[_SLOW] += lengths.count(None)
    refused["has no token"] += lengths.count(0)
    rows = tuple(survey.rows[i] for i in fine)
    return Survey(rows, tuple(lengths[i] or 0 for i in fine), dict(+refused))


def _lengths(prompts: Sequence[Prompt], settings: Settings, policy: Policy) -> list[int | None]:
    """Tokens of each prompt; None where a node would not wait for it."""
    from fedgrpo.federation.node.clients.prompt_client import encoding_limits
    from fedgrpo.grpo.isolated.apart import Limits, answers_apart, can_fork
    from fedgrpo.model.base import load_base
    from fedgrpo.model.chat_style import ChatStyle
    from fedgrpo.model.encoding import encode_prompt
    from fedgrpo.model.quiet import quiet_loading

    with quiet_loading():
        base = load_base(settings.model, any_weights=policy.any_weights)
    style = ChatStyle.of(settings.data)

    def length(number: int) -> int:
        return len(encode_prompt(base.tokenizer, prompts[number], style))

    def told(number: int) -> bytes:
        try:
            return b"%d" % length(number)
        except Exception:
            return b""

    row_s = encoding_limits(declared_in(policy, settings)).item_s
    answers = answers_apart(told, len(prompts), Limits(row_s, math.inf)) if can_fork() else None
    if answers is None:
        return [length(number) for number in range(len(prompts))]
    # What a prompt raises is raised here, in front of the people whose it is.
    return [
        None if answer is None else int(answer or length(i)) for i, answer in enumerate(answers)
    ]


def problems(found: Found, policy: Policy) -> Iterator[str]:
    """Say what keeps a node from answering with these prompts, with a cure for each."""
    for reason, rows in found.unusable.items():
        yield f"{rows} rows cannot be used: each {reason}\n  cure: mend or remove them"
    if found.uncurated:
        yield found.uncurated
    if found.units > policy.prompts_declared:
        yield (
            f"prompts_declared = {policy.prompts_declared}, and there are {found.units} units\n"
            f"  cure: prompts_declared = {proposed(found.units)}"
        )
    if not policy.longest_prompt_tokens:
        yield (
            "longest_prompt_tokens is missing\n"
            f"  cure: longest_prompt_tokens = {proposed(found.longest)}"
        )


def words(found: Found, prompts: str, model: str) -> Iterator[str]:
    """Say what was found."""
    units = f"values of {found.column!r}" if found.column else "different texts"
    yield (
        f"{prompts}: {found.rows} rows, {found.units} units ({units}), the longest prompt has "
        f"{found.longest} tokens of {model}"
    )
    if found.too_long:
        yield f"{found.too_long} rows are above longest_prompt_tokens and will contribute nothing"


def order_seconds(config: Mapping[str, Scalar], settings: Settings) -> float:
    """Most seconds that an order of this run can take here, as a node works it out before it
    charges for one; 0 where nothing is sized.

    Parameters
    ----------
    config:
        The node's own, with its policy.
    settings:
        Of the run.

    Raises
    ------
    ModelError, RewardError
        What cannot be loaded.
    """
    from fedgrpo.federation.node.clients.local_clients import LocalClients
    from fedgrpo.federation.node.clients.resident import resident
    from fedgrpo.model.quiet import quiet_loading

    declared = declared_by(config, settings)
    with quiet_loading():
        home = at_home(settings, config)
        start = resident(home, any_weights=declared.any_weights).state()
        return LocalClients().prepare(settings, config, start, declared)


def time_problems(seconds: float, policy: Policy) -> Iterator[str]:
    """Say so if an order can take longer than the policy has an answer wait."""
    needed = math.ceil(seconds + FINISH_S)
    if policy.answer_after_s and needed > policy.answer_after_s:
        yield (
            f"refused, {Refusal.ANSWER_TIME}: answer_after_s = {policy.answer_after_s:g} is "
            f"shorter than an order can take\n  cure: answer_after_s = {proposed(needed)}.0"
        )


def leave_stamp(config: Mapping[str, Scalar], found: Found) -> None:
    """Let the node answer with these prompts, as they were when they were looked at.

    Parameters
    ----------
    config:
        The node's own: ``prompts``, and ``state`` if it names a folder.
    found:
        In them.

    Raises
    ------
    DataError, RunError, OSError
        If the stamp cannot be kept.
    """
    folder = Path(str(config[STATE])).expanduser() if STATE in config else None
    folder = folder or folder_beside(Path(str(config["prompts"])))
    curated = found.uncurated == ""
    keep_checked(folder, Checked(found.stamp, {found.looked_at: found.units}, curated))
