"""The commands of docs/operator.md and docs/site.md, as they stand there."""

from __future__ import annotations

import re
import shlex

from tests.federation.deployment.operated import ROOT

OPERATOR, SITE = ((ROOT / "docs" / name).read_text() for name in ("operator.md", "site.md"))


def blocks(page, kind):
    """Fenced blocks of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


def commands(page):
    """Words of each fedgrpo command, without ``fedgrpo`` and without comments."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in found if words[:1] == ["fedgrpo"]]


def command(page, *beginning):
    """The one command that begins so."""
    (found,) = [words for words in commands(page) if words[: len(beginning)] == list(beginning)]
    return found


def agreed():
    """The settings that the operator's page shows."""
    (block,) = blocks(OPERATOR, "toml")
    return block
