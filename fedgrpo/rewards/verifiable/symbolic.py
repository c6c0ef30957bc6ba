"""Equality of mathematical expressions through math-verify (the ``symbolic`` extra)."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.registry import register_reward
from fedgrpo.rewards.verifiable.verifiers import completion_text

TIMEOUT_S = 2
"""CPU seconds for reading one expression, and for comparing two: it may be a tower of powers.

The clock on the wall would let a busy machine, or another prompt's work, decide what is right.
"""
_NO_ALGEBRA = (
    *(f"sympy.{name}" for name in ("benchmarks", "codegen", "conftest", "crypto", "diffgeom")),
    *(
        f"sympy.{name}"
        for name in ("galgebra", "interactive", "liealgebras", "parsing", "plotting")
    ),
    *(f"sympy.{name}" for name in ("sandbox", "stats", "testing", "this", "vector")),
    *(f"sympy.physics.{name}" for name in "bcghoqsv"),
    "sympy.physics.paulialgebra",
    "sympy.physics.pring",
    "sympy.physics.wigner",
    "sympy.polys.benchmarks",
    "sympy.utilities.runtests",
)
"""How the names of sympy's modules begin that no expression needs."""


@register_reward("symbolic_match")
def symbolic_match(
    prompts: Sequence[str | Chat],
    completions: Sequence[str | Chat],
    answer: Sequence[Any],
    **_: object,
) -> list[float | None]:
    r"""Reward 1 for a completion whose final expression equals ``answer``: ``1/2``, ``\frac12``.

    A completion's expression is looked for in ``\boxed{}``, between dollar signs, and in plain
    numbers. The answer may be bare LaTeX. A row whose answer is None or cannot be read is left to
    the other rewards. What takes longer than :data:`TIMEOUT_S` CPU seconds is wrong.

    Raises
    ------
    RewardError
        If math-verify is not installed, or this is not the process's main thread: the time limit
        is an alarm signal.
    """
    library = _math_verify()
    return [
        None if wanted is None else _same(library, completion_text(given), str(wanted))
        for given, wanted in zip(completions, answer, strict=True)
    ]


def _same(library: ModuleType, given: str, wanted: str) -> float | None:
    is_marked = "$" in wanted or "\\boxed" in wanted
    target = _read(library, wanted if is_marked else f"${wanted}$")
    if not target:
        return None
    found = _read(library, given)
    return float(any(_equal(library, one, other) for one in target for other in found))


def _read(library: ModuleType, text: str) -> list[Any]:
    """Expressions of a text; none if reading takes too long."""
    with _cpu_limit():
        found: list[Any] = library.parse(text, parsing_timeout=None)
        return found
    return []


def _equal(library: ModuleType, one: object, other: object) -> bool:
    with _cpu_limit():
        return bool(library.verify(one, other, timeout_seconds=None))
    return False


class _TimeoutError(BaseException):
    """Not an Exception, which math-verify and sympy would swallow."""


@contextmanager
def _cpu_limit() -> Iterator[None]:
    """Leave the block after :data:`TIMEOUT_S` seconds of this process's CPU time."""

    def stop(*_: object) -> None:
        raise _TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    # Again and again: a bare except somewhere inside may swallow the first.
    signal.setitimer(signal.ITIMER_VIRTUAL, TIMEOUT_S, 0.1)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _TimeoutError:
        # Perhaps before the timer was stopped.
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)


def _warm_up() -> None:
    """Load math-verify and what it may ever need, before any prompt is there.

    sympy imports much of itself where an expression first needs it, and math-verify takes an import
    that fails for an expression that is not equal.
    """
    symbolic_match(["p"], [r"so $\frac{1}{2}$ is \boxed{0.5}"], answer=["1/2"])
    with warnings.catch_warnings():
        # Some are old names, and some want libraries that need not be there.
        warnings.simplefilter("ignore")
        for name in sorted(_parts_of("sympy")):
            with suppress(Exception):
                importlib.import_module(name)


def _parts_of(package: str) -> Iterator[str]:
    """Modules of a package and the packages in it, but for what computes nothing."""
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if not found.name.startswith(_NO_ALGEBRA) and ".tests" not in found.name:
            yield found.name
            if found.ispkg:
                yield from _parts_of(found.name)


symbolic_match.warm_up = _warm_up  # type: ignore[attr-defined]
symbolic_match.apart = True  # type: ignore[attr-defined]


def _math_verify() -> ModuleType:
    # Here, because each of them costs a process that forks a tenth of a millisecond and more.
    import logging
    import threading

    if threading.current_thread() is not threading.main_thread():
        raise RewardError(
            "symbolic_match was called outside the main thread, where it has no time limit",
            cure="judge completions in the process's main thread",
        )
    try:
        library = importlib.import_module("math_verify")
    except ModuleNotFoundError as error:
        raise RewardError(
            f"symbolic_match needs {error.name!r}",
            cure="pip install 'fedgrpo[symbolic]', or use numeric_match",
        ) from None
    # It logs the texts that it cannot read.
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return library
