"""What leaves a node in the place of an answer: a fixed code, whatever went wrong and wherever.

Adversary: a server that reads what comes back. The class or the text of an error may tell what it
choked on, so neither leaves: both are for the node's own log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Context, Message, RecordDict

from fedgrpo.federation.wire.codec import Header, encode, read_header
from fedgrpo.federation.wire.messages import Refused
from fedgrpo.ground.errors import (
    AdapterError,
    BoundsError,
    CohortError,
    DataError,
    FedGRPOError,
    LedgerError,
    ModelError,
    OpenedError,
    PolicyError,
    ProtocolError,
    RewardError,
    RunError,
    SettingsError,
    TurnError,
    VersionError,
)
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.site.refusals import Refusal

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""

Handler = Callable[[Message, Context], RecordDict]

CODES: tuple[tuple[type[Exception], Refusal], ...] = (
    (VersionError, Refusal.VERSION),
    (TurnError, Refusal.OUT_OF_TURN),
    (BoundsError, Refusal.BOUNDS),
    (OpenedError, Refusal.OPENED),
    (ProtocolError, Refusal.MESSAGE),
    (CohortError, Refusal.MESSAGE),
    (SettingsError, Refusal.SETTINGS),
    (AdapterError, Refusal.ADAPTER),
    (ModelError, Refusal.MODEL_LOAD),
    (RewardError, Refusal.REWARD_LOAD),
    (DataError, Refusal.UNCHECKED),
    (LedgerError, Refusal.LEDGER),
    (RunError, Refusal.STATE),
    (OSError, Refusal.STATE),
)
"""Codes of errors that carry none, the closest class first."""


def refusal_of(error: BaseException) -> Refusal:
    """Code of an error."""
    if isinstance(error, PolicyError):
        return Refusal(error.code)
    return next((code for kind, code in CODES if isinstance(error, kind)), Refusal.FAILED)


def answering(handler: Handler) -> Callable[[Message, Context], Message]:
    """Turn a handler's failure into a refusal by code, and tell the node's log all about it."""

    def answer(message: Message, context: Context) -> Message:
        try:
            content = handler(message, context)
        except BaseException as error:
            pass_on_interrupt(error)
            code = refusal_of(error)
            log_failure(f"{message.metadata.message_type} refused, {code}", error, code)
            content = encode(_header_of(message, context), Refused(code))
        return Message(content, reply_to=message)

    return answer


def log_failure(what: str, error: BaseException, code: str) -> None:
    """Tell the node's own log, by a code of docs/troubleshooting.md; an error of foreign code with
    its traceback.
    """
    ours = isinstance(error, FedGRPOError)
    said = str(error) if ours else type(error).__name__
    traced = not ours or error.__cause__ is not None
    LOG.warning("%s: %s", what, said, exc_info=error if traced else None, extra={"code": code})


def _header_of(message: Message, context: Context) -> Header:
    """What to answer: the message's own header, or that of no round where it cannot be read."""
    try:
        return read_header(message.content)
    except ProtocolError:
        return Header(context.run_id, 0)
