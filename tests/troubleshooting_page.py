"""``python -m tests.troubleshooting_page > docs/troubleshooting.md``: codes and cures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping

from fedgrpo.federation.deployment.doctor import examine  # noqa: F401 - makes all checks known
from fedgrpo.federation.deployment.doctor.registry import CHECKS
from fedgrpo.federation.deployment.doctor.troubles import FLOWER_SAYS, TROUBLES_OF, Trouble
from fedgrpo.federation.deployment.log.codes import ANYWHERE, AT_A_SITE, ON_THE_SERVER
from fedgrpo.site import CURES
from tests.errors_page import classes

HEAD = """# Troubleshooting

```bash
fedgrpo doctor hospital-a.invitation --prompts prompts.jsonl    # before joining
fedgrpo doctor site.toml                                        # afterwards
fedgrpo doctor site.toml --rehearse                             # and samples, for minutes
```

The doctor looks at 21 things, says of each whether it is green, yellow or red, and what to do. It
changes nothing and sends nothing but a greeting to the server and, before joining, the
invitation's site and token, to ask whether it is still open. It ends with 0 if all is green, with
2 if something is yellow, with 1 if something is red; `--json` prints a list for programs. A node
makes the checks that take no time itself, before it starts and every hour. What is yellow or red
then is in the site's log, as `yellow: ... [code]; cure: ...`; what does not follow from prompts is
also in `doctor.json` in the node's folder. Nothing of it is told to the server, and no answer of
the node depends on it.

Look for the code in brackets. A node does not start while a code marked **stops** is red. Words in
capitals stand for values.

This page is written by `python -m tests.troubleshooting_page`.
"""

FLOWER = """## What Flower's own programs say

A node's log has lines of Flower's SuperNode, too. `fedgrpo doctor site.toml` finds out which of
the causes it is.

| in the log | what it is | see |
|---|---|---|
"""

LOGS = """## Logs and status

What `fedgrpo status`, the status page and the logs of server and node say besides, with their
codes: [monitoring.md](monitoring.md).

| code | where | what it is | cure |
|---|---|---|---|
"""

REFUSALS = """## Refusals

A node refuses an order by one of these codes: all that the server learns. What is wrong exactly is
in the site's own log. The cures are the operator's.

| code | cure |
|---|---|
"""

ERRORS = """## Errors

Commands end with an error that says its cure. [errors.md](errors.md) has every class.

| class | what it means |
|---|---|
"""


WHERE = {"server": ON_THE_SERVER, "site": AT_A_SITE, "both": ANYWHERE}
"""Groups of codes, by whose log has them."""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Text of docs/troubleshooting.md."""
    return "\n".join([HEAD, *(section(*pair) for pair in TROUBLES_OF.items()), *lists()])


def section(number: int, troubles: Mapping[str, Trouble]) -> str:
    """What one check can find."""
    title = f"{number}. {CHECKS[number].name}" if number else "Any check"
    about = inspect.cleandoc(CHECKS[number].look.__doc__ or "") if number else ""
    about = f"{about}\n\n".replace("\n", " ").strip() + "\n\n" if about else ""
    rows = "".join(row(*pair) for pair in troubles.items())
    head = "| code | light | what is said | cure |\n|---|---|---|---|\n"
    return f"## {title[0].upper()}{title[1:]}\n\n{about}{head}{rows}"


def row(code: str, trouble: Trouble) -> str:
    """One code."""
    light = f"{trouble.light}, **stops**" if trouble.stops else str(trouble.light)
    problem = trouble.about or shown(trouble.problem)
    cure = "as it says" if trouble.cure == "{cure}" else shown(trouble.cure)
    return f"| `{code}` | {light} | {problem} | {cure} |\n"


def shown(text: str) -> str:
    """A text with capitals for what stands in braces."""
    named = re.sub(r"\{(\w+)[^}]*\}", lambda found: found[1].upper(), text)
    return named.replace("|", "\\|")


def lists() -> Iterator[str]:
    """Flower's words, refusals and errors."""
    yield FLOWER + "".join(
        f"| `{words}` | {meaning} | {', '.join(f'`{code}`' for code in codes)} |\n"
        for words, (meaning, codes) in FLOWER_SAYS.items()
    )
    yield LOGS + "".join(
        f"| `{code}` | {where} | {shown(each.about)} | {shown(each.cure)} |\n"
        for where, group in WHERE.items()
        for code, each in group.items()
    )
    yield REFUSALS + "".join(f"| `{code}` | {shown(cure)} |\n" for code, cure in CURES.items())
    yield ERRORS + "".join(
        f"| [`{kind.__name__}`](errors.md#{kind.__name__.lower()}) | {_about(kind)} |\n"
        for kind in classes()
    )


def _about(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    main()
