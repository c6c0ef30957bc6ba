"""The model card of an adapter: what PEFT leaves as a form to fill in, filled in, without a path of
this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedgrpo.settings import AdapterSettings

_NAMES = {"lora": "LoRA", "ffa_lora": "FFA-LoRA", "tiny_lora": "TinyLoRA"}


def hub_name(name: str) -> str:
    """The name that a card may give a base: that of the Hub, or none of a place on this machine."""
    plain = name.count("/") <= 1 and not name.startswith((".", "/", "~")) and "\\" not in name
    return name if plain and name and not Path(name).exists() else ""


def adapter_card(base: str, settings: AdapterSettings, facts: Mapping[str, str]) -> str:
    """Markdown with the head that the Hub reads.

    Parameters
    ----------
    base:
        What the model was loaded as.
    settings:
        Of the adapter.
    facts:
        What else there is to say, such as method, rounds, rewards and the privacy spent: a line
        each, in this order.
    """
    name = hub_name(base)
    head = ["---", "library_name: peft", "pipeline_tag: text-generation", "tags:"]
    head += ["- fedgrpo", "- grpo", "- lora", *([f"base_model: {name}"] if name else []), "---"]
    kind = _NAMES[settings.kind]
    told = {
        "Base model": name or "a model that is not on the Hub",
        "Adapter": f"{kind} of rank {settings.rank}",
        **facts,
    }
    lines = [f"* **{key}**: {value}" for key, value in told.items()]
    return "\n".join([*head, "", f"# {kind} adapter by fedgrpo", "", *lines, ""])
