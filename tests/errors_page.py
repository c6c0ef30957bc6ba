"""``python -m tests.errors_page > docs/errors.md``: every error class, from the error tree."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

from fedgrpo.cli.outcome import _exit_code
from fedgrpo.ground.errors import FaultsError, FedGRPOError
from tests.rooms import modules

HEAD = """# Errors

Every error that fedgrpo raises on purpose has a class of its own, says what is wrong with name and
value, and ends with a cure that works: `error.problem` and `error.cure` in Python, two lines in a
terminal. Each is also an error of Python's own kind, so that `except ValueError` finds it. None
quotes a prompt or a completion. Whatever else comes up is a bug, and is reported as one with a file
that has the traceback.

A command ends with 2 if it was refused before its start, 1 if it failed on the way, 130 if it was
interrupted.

This page is written by `python -m tests.errors_page`.
"""

PAGES = {
    "SettingsError": "[settings](settings.md)",
    "DataError": "[settings, data](settings.md#data)",
    "RewardError": "[rewards](rewards.md)",
    "ModelError": "[settings, model](settings.md#model)",
    "AdapterError": "[settings, adapter](settings.md#adapter)",
    "PrivacyError": "[privacy](privacy.md)",
    "PolicyError": "[the site decides](deployment.md#the-site-decides)",
    "ProtocolError": "[threat model](threat-model.md)",
    "MemberLostError": "[a committee](deployment.md#a-committee)",
    "LedgerError": "[the ledger](deployment.md#the-ledger)",
    "CohortError": "[robustness](robustness.md)",
}
"""Where an error's subject is explained."""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Text of docs/errors.md."""
    return "\n".join([HEAD, *(section(kind) for kind in classes())])


def classes() -> list[type[FedGRPOError]]:
    """All public classes of the tree, each after its base."""
    for name in definers():
        importlib.import_module(name)
    return [kind for kind in _below(FedGRPOError) if not kind.__name__.startswith("_")]


def definers() -> list[str]:
    """Modules that define an error."""
    return [name for name, file in modules().items() if "Error(" in file.read_text()]


def section(kind: type[FedGRPOError]) -> str:
    """What there is to say of a class."""
    bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
    about = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    more = f" More: {PAGES[kind.__name__]}." if kind.__name__ in PAGES else ""
    return f"## {kind.__name__}\n\n{about}\n\nIs a {bases}. {_ends(kind)}{more}\n"


def _ends(kind: type[FedGRPOError]) -> str:
    if kind in (FedGRPOError, FaultsError):
        return "A command ends with the code that fits."
    return f"A command ends with {_exit_code(kind.__new__(kind))}."


def _below(kind: type[FedGRPOError]) -> Iterator[type[FedGRPOError]]:
    yield kind
    for inner in sorted(kind.__subclasses__(), key=lambda each: each.__name__):
        if inner.__module__.startswith("fedgrpo."):
            yield from _below(inner)


if __name__ == "__main__":
    main()
