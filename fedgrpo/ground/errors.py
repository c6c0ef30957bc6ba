"""One tree of errors: each names the thing, its value and the cure, and is a standard error too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

MOVING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
"""What moves a terminal's cursor or turns its direction, but for new lines and tabs."""


class FedGRPOError(Exception):
    """Base of every error that fedgrpo raises on purpose.

    Parameters
    ----------
    problem:
        What is wrong, naming the thing and its value. Never contains prompt or completion text.
    cure:
        What the reader can do about it.

    Both are shown on terminals, and servers, sites and files have a part in them: what would move a
    cursor is a question mark.
    """

    def __init__(self, problem: str, *, cure: str = "") -> None:
        problem, cure = MOVING.sub("?", problem), MOVING.sub("?", cure)
        super().__init__(f"{problem}\n  cure: {cure}" if cure else problem)
        self.problem = problem
        self.cure = cure


class FaultsError(FedGRPOError, ValueError):
    """Several things are wrong at once, each with its own cure.

    Parameters
    ----------
    faults:
        At least two.
    """

    def __init__(self, faults: Sequence[FedGRPOError]) -> None:
        self.faults = tuple(faults)
        listed = "".join(f"\n{number}. {fault}" for number, fault in enumerate(faults, start=1))
        super().__init__(f"{len(self.faults)} things are wrong:{listed}")


def all_at_once(checks: Iterable[Callable[[], object]]) -> None:
    """Make every check, and say all that is wrong at once.

    Raises
    ------
    FedGRPOError
        The fault itself if there is one, :class:`FaultsError` if there are several.
    """
    found: dict[str, FedGRPOError] = {}
    for check in checks:
        try:
            check()
        except FedGRPOError as error:
            parts = error.faults if isinstance(error, FaultsError) else (error,)
            found |= {str(part): part for part in parts}
    faults = list(found.values())
    if faults:
        raise faults[0] if len(faults) == 1 else FaultsError(faults)


class SettingsError(FedGRPOError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or impossible beside another one."""


class DataError(FedGRPOError, ValueError):
    """A prompt source is missing, empty, or has rows that cannot be used."""


class RewardError(FedGRPOError, RuntimeError):
    """A reward function cannot be found, raised, or did not return one number a completion."""


class ModelError(FedGRPOError, ValueError):
    """A base model or its tokenizer cannot be loaded or used."""


class AdapterError(FedGRPOError, ValueError):
    """An adapter vector or its frozen basis does not belong to this model and these settings."""


class PrivacyError(FedGRPOError, ValueError):
    """A guarantee cannot be given, or the budget would be exceeded."""


class PolicyError(FedGRPOError, RuntimeError):
    """A site's own policy refuses what a server asks, or cannot be read.

    Parameters
    ----------
    problem, cure:
        For the site's own log.
    code:
        All that the server learns: a :class:`fedgrpo.site.Refusal`.
    """

    def __init__(self, problem: str, *, code: str, cure: str = "") -> None:
        super().__init__(problem, cure=cure)
        self.code = code


class ProtocolError(FedGRPOError, RuntimeError):
    """A peer broke the secure aggregation protocol, or asked a node to break it."""


class VersionError(ProtocolError):
    """A peer speaks another protocol, or runs another version of fedgrpo."""


class TurnError(ProtocolError):
    """A message of another run or round, or one that a node has answered already."""


class BoundsError(ProtocolError):
    """A peer sent numbers that are not finite, or beyond what they may be."""


class MemberLostError(ProtocolError):
    """A committee member crashed, was cut off or fell silent; nothing says that it cheated.

    Parameters
    ----------
    member:
        Its number.
    problem, cure:
        As for :class:`FedGRPOError`.

    Attributes
    ----------
    confirmed:
        Whether the member that noticed had confirmed the round by then: another one may have
        opened it.
    """

    def __init__(self, member: int, problem: str, *, cure: str = "") -> None:
        super().__init__(problem, cure=cure)
        self.member = member
        self.confirmed = False


class OpenedError(ProtocolError):
    """A committee's round failed after its result may have been opened: it counts as released."""


class CohortError(FedGRPOError, RuntimeError):
    """Too few clients for the configured buckets and attackers, or too few in time."""


class LedgerError(FedGRPOError, ValueError):
    """A ledger, or a file that it names, is not what was written."""


class InvitationError(FedGRPOError, ValueError):
    """An invitation to a federation cannot be read, was changed, or can no longer be used."""


class RunError(FedGRPOError, RuntimeError):
    """A run failed, was interrupted, or cannot be resumed."""


class RunFailedError(RunError):
    """A run began and did not come to its end."""


class RunInterruptedError(RunError):
    """A run was stopped by the user and can be resumed."""
