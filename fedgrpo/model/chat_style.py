"""How chats are rendered, besides what the tokenizer itself says."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from transformers import PreTrainedTokenizerBase

from fedgrpo.ground.errors import DataError, SettingsError
from fedgrpo.settings import DataSettings

_TODAY = DataSettings().today
_ASKS = re.compile(r"""strftime_now\s*\(\s*(?P<quote>['"])(?P<form>[^'"]*)(?P=quote)\s*\)""")
"""A template's question for the time."""


@dataclass(frozen=True)
class ChatStyle:
    """What decides how a chat is rendered.

    Attributes
    ----------
    template:
        Text of a template, or the name of one of the tokenizer's own; empty takes its default.
    kwargs:
        What the template is told besides the messages, as JSON.
    today:
        Date (ISO) that it is told if it asks for the time: the same at every rendering of a run.
    """

    template: str = ""
    kwargs: str = ""
    today: str = _TODAY

    @classmethod
    def of(cls, data: DataSettings) -> Self:
        """What the settings say."""
        return cls(data.chat_template, data.chat_template_kwargs, data.today)

    def template_of(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Text of the template.

        Raises
        ------
        DataError
            If the tokenizer has none, or several and none is the default.
        SettingsError
            If it has none of this name.
        """
        if found := self.own_template(tokenizer):
            return _dated(found, self.today)
        named = _named(tokenizer)
        has = f"has the templates {', '.join(sorted(named))}" if named else "has no chat template"
        if self.template:
            raise SettingsError(
                f"data.chat_template = {self.template!r}: the model's tokenizer {has}",
                cure="name one that it has, or a .jinja file",
            )
        if named:
            raise DataError(
                f"prompts are chat messages, and the model's tokenizer {has}: none is its default",
                cure=f"choose one: data.chat_template = {min(named)!r}",
            )
        raise DataError(
            "prompts are chat messages, but the model's tokenizer has no chat template",
            cure="use text prompts, a model with a chat template, or data.chat_template with the "
            ".jinja file of one",
        )

    def own_template(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The template as it was written, with its questions for the time; empty if none fits."""
        if "{" in self.template:
            return self.template
        return _named(tokenizer).get(self.template or "default", "")

    def arguments(self) -> dict[str, Any]:
        """What the template is told besides the messages."""
        return dict(json.loads(self.kwargs)) if self.kwargs else {}


def _named(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The tokenizer's own templates by name."""
    own: Any = tokenizer.chat_template
    return dict(own) if isinstance(own, dict) else {"default": str(own)} if own else {}


@lru_cache(maxsize=8)
def _dated(template: str, today: str) -> str:
    """A template that tells this date in the place of that of its rendering.

    Raises
    ------
    DataError
        If it asks for the time in a form that is not written in the template.
    """
    date = datetime.date.fromisoformat(today)
    told = _ASKS.sub(lambda found: json.dumps(date.strftime(found["form"])), template)
    if re.search(r"strftime_now\s*\(", told):
        raise DataError(
            "the model's chat template asks for the time in a form that cannot be fixed, so that "
            "no run could go on another day",
            cure="give another template with data.chat_template, with the date in its text",
        )
    return told


PLAIN = ChatStyle()
"""The tokenizer's own."""
