"""The model card of an adapter: what a stranger must know before using it, and nothing of this
machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.files import replace_file
from fedgrpo.ground.parts.names import PartName
from fedgrpo.ground.records import Guarantee
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of

CARD = "README.md"
"""Where the Hub and everybody else looks for the card."""

CHAT_TEMPLATE = "chat_template.jinja"
"""Where transformers keeps a template."""

METHODS = {"lora": "LoRA", "ffa_lora": "FFA-LoRA (A is frozen)", "tiny_lora": "TinyLoRA"}


_PERSONAL = (
    "This is a personal adapter: it lies over the shared one in `adapter-shared` beside it and is "
    "of no use without that. `fedgrpo export RUN --merged DIR` puts both into one model."
)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is known once an adapter was trained.

    Attributes
    ----------
    settings:
        Of the run.
    rounds:
        Rounds, or optimiser steps of training alone, that the adapter has taken.
    privacy:
        What is guaranteed; empty without differential privacy.
    layout:
        Of the adapter: see :class:`fedgrpo.model.adapter.AdapterState`.
    alone:
        Whether no federation took part.
    root:
        ``ROOT:SIZE`` of the ledger before its end, which holds the hash of the card itself.
    personal:
        Whether it lies over a shared adapter, which is no part of it.
    """

    settings: Settings
    rounds: int
    privacy: Sequence[Guarantee] = ()
    layout: str = ""
    alone: bool = False
    root: str = ""
    personal: bool = False


def hub_name(name: str) -> str:
    """The name that others may be told of a base: that of the Hub, or none of a place on this
    machine.
    """
    plain = name.count("/") <= 1 and not name.startswith((".", "/", "~")) and "\\" not in name
    return name if plain and name not in ("", "tiny") and not Path(name).exists() else ""


def write_card(folder: Path, facts: RunFacts) -> None:
    """Put the card of a trained adapter into its folder, in the place of any other."""
    replace_file(folder / CARD, run_card(facts).encode())


def run_card(facts: RunFacts) -> str:
    """Card of an adapter that came out of a run."""
    settings = facts.settings
    rows = list(_method(facts))
    parts = [_opening(facts), _table(rows)]
    if not facts.alone:
        parts += ["## Privacy", "\n".join(_privacy(facts)), "## Record", _record(facts)]
    # Whoever put a personal one on the base alone would get neither model.
    base = "" if facts.personal else hub_name(settings.model.name)
    use = _PERSONAL if facts.personal else _use(base, "\n".join(_prompts(settings)))
    return _page(base, facts.layout, [*parts, "## Use", use], federated=not facts.alone)


def plain_card(base: str, kind: str, rank: int, layout: str) -> str:
    """Card of an adapter of which no run is known.

    Parameters
    ----------
    base:
        Name of its base model on the Hub, or empty.
    kind, rank:
        As in the settings.
    layout:
        See :class:`RunFacts`.
    """
    rows = [("Base model", base or _NO_BASE), ("Adapter", f"{METHODS[kind]}, rank {rank}")]
    parts = [_ABOUT, _table(rows), "## Use", _use(base, "")]
    return _page(base, layout, parts, federated=False)


def stated_layout(folder: Path) -> str:
    """Layout that the card of an adapter states; empty if there is none."""
    card = folder / CARD
    return str(ModelCard.load(card).data.get(_LAYOUT) or "") if card.is_file() else ""


def shown_part(text: str) -> str:
    """Name of a part as a setting has it, without the folders that it may name."""
    try:
        name = PartName.read(text, "part")
    except SettingsError:
        return "a part of its own"
    options = ", ".join(f"{key}={_shown_value(value)}" for key, value in name.options.items())
    place = f"{Path(name.place).name}:" if name.place else ""
    return f"{place}{name.name}{f'({options})' if options else ''}"


def _shown_value(value: object) -> str:
    """An option, of which a path is told by its last name alone."""
    if isinstance(value, str) and Path(value).expanduser().is_absolute():
        value = Path(value).name
    return repr(value)


_LAYOUT = "fedgrpo_layout"
_NO_BASE = "a local model that is not on the Hub"
_ABOUT = "An adapter that fedgrpo trained by GRPO."


def _page(base: str, layout: str, parts: Sequence[str], *, federated: bool) -> str:
    kinds = ["grpo", "reinforcement-learning", "lora", "fedgrpo"]
    own: dict[str, Any] = {_LAYOUT: layout} if layout else {}
    data = ModelCardData(
        base_model=base or None,
        **own,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=sorted([*kinds, *(["federated-learning"] if federated else [])]),
    )
    title = "# Adapter trained with fedgrpo"
    return "\n\n".join([f"---\n{data.to_yaml()}\n---", title, *parts]) + "\n"


def _opening(facts: RunFacts) -> str:
    if facts.alone:
        return (
            f"{_ABOUT} It was trained on one machine, without any privacy: it is as private as the "
            "prompts that it was trained on."
        )
    return (
        "Clients trained this adapter together by GRPO. Their prompts and completions stayed with "
        "them."
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _method(facts: RunFacts) -> Iterator[tuple[str, str]]:
    settings, grpo, adapter = facts.settings, facts.settings.grpo, facts.settings.adapter
    base = hub_name(settings.model.name)
    revision = f", revision {settings.model.revision}" if settings.model.revision else ""
    yield "Base model", f"{base}{revision}" if base else _NO_BASE
    yield "Adapter", f"{METHODS[adapter.kind]}, rank {adapter.rank}"
    yield (
        "Method",
        f"GRPO, advantage {shown_part(grpo.advantage)}, loss {shown_part(grpo.loss)}, "
        f"{grpo.group_size} completions a prompt",
    )
    yield "Steps" if facts.alone else "Rounds", str(facts.rounds)
    names = [shown_part(name) for name in settings.reward.functions]
    weights = settings.reward.weights or (1.0,) * len(names)
    pairs = zip(names, weights, strict=True)
    yield "Rewards", ", ".join(f"{name} (weight {weight:g})" for name, weight in pairs)
    yield "Version", f"fedgrpo {version('fedgrpo')}, settings {settings.fingerprint()}"


def _privacy(facts: RunFacts) -> Iterator[str]:
    settings = facts.settings
    for held in facts.privacy:
        yield (
            f"* epsilon {held.epsilon:.2f} at delta {held.delta:g} for one {_unit(settings, held)},"
            f" against {held.adversary}"
        )
    if not facts.privacy:
        yield "* no differential privacy: what was learnt from one prompt can be found in it"
    privacy, robust = settings.privacy, settings.robust
    moving = ", adapted from round to round" if privacy.adaptive else ""
    yield f"* clipping: L2 norm {privacy.clipping_norm:g} for one unit{moving}"
    if facts.privacy:
        place = protocol_of(settings).noise_place(settings)
        yield f"* noise multiplier {privacy.noise_multiplier:g}, added by: {place}"
    yield f"* robust rule: {shown_part(robust.rule)}, trim {robust.trim}"
    yield f"* protocol {settings.aggregation.protocol}: the server is shown " + (
        protocol_of(settings).shows
    )


def _unit(settings: Settings, held: Guarantee) -> str:
    if held.unit == "prompt" and settings.data.unit:
        return f"{settings.data.unit} with all its rows"
    return held.unit


def _record(facts: RunFacts) -> str:
    if not facts.root:
        return "No ledger was kept."
    return (
        f"Ledger root before the end of the run: `{facts.root}`. With the run's directory, "
        f"`fedgrpo ledger verify RUN --expect {facts.root}` checks every round; the ledger's last "
        "entry has the hashes of this folder's files."
    )


def _use(base: str, prompts: str) -> str:
    name = json.dumps(base or "FOLDER_OF_THE_BASE_MODEL")
    code = (
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({name}), ".")\n'
        "```"
    )
    return f"{prompts}\n\n{code}".strip()


def _prompts(settings: Settings) -> Iterator[str]:
    """How prompts were rendered, where that is not the base model's own way."""
    data = settings.data
    if data.system_prompt:
        yield f"Prompts began with the system prompt {json.dumps(data.system_prompt)}."
    if data.chat_template_kwargs:
        yield f"The chat template was told `{data.chat_template_kwargs}`."
    longest = settings.grpo.max_completion_length
    yield f"Trained at temperature {settings.grpo.temperature:g}, up to {longest} tokens."
