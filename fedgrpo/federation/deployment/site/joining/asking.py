"""Asking a server to let a site in, and waiting for its operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from fedgrpo.federation.deployment.flower_internals.control import public_bytes
from fedgrpo.federation.deployment.invitation.fingerprint import fingerprint
from fedgrpo.federation.deployment.invitation.invitation import Invitation
from fedgrpo.federation.deployment.site.greeting import (
    WaitingError,
    asked,
    credentials,
    foreign,
    greet,
    read_key,
    refused,
)

LOOK_S = 3.0
"""Between two questions whether the operator has confirmed the key."""


@dataclass(frozen=True)
class Asked:
    """What a server said to a site that asked to be let in.

    Attributes
    ----------
    confirmed:
        Whether the operator has confirmed the key.
    before:
        Whether a site of this name took part before, with another key.
    """

    confirmed: bool
    before: bool


def key_fingerprint(key: Path) -> str:
    """Fingerprint of a node's public key, as the operator sees it."""
    return fingerprint(public_bytes(read_key(key)))


def ask_in(invitation: Invitation, root: Path, key: Path) -> Asked:
    """Have a node's key wait at the server. The same key may ask again.

    Parameters
    ----------
    invitation:
        Of the site.
    root:
        File of the server's root certificate.
    key:
        File of the node's private key.

    Raises
    ------
    RunError
        If the server cannot be reached, or does not let the site in.
    """
    shown = credentials(read_key(key))
    answer = asked(invitation.server, root, shown, "/join", invitation.question)
    if answer.status_code != httpx.codes.OK:
        raise refused(invitation.server, answer)
    try:
        said = answer.json()
        return Asked(bool(said["confirmed"]), bool(said["before"]))
    except (ValueError, KeyError, TypeError):
        raise foreign(invitation.server) from None


def leave(server: str, root: Path, key: Path) -> None:
    """Have the server let this key in no more; raises RunError if it cannot be told."""
    answer = asked(server, root, credentials(read_key(key)), "/leave", b"{}")
    if answer.status_code != httpx.codes.OK:
        raise refused(server, answer)


def until_confirmed(
    server: str, root: Path, key: Path, sleep: Callable[[float], object] = time.sleep
) -> Iterator[str]:
    """Ask until the operator has confirmed the key; yields what to tell while it has not.

    Raises
    ------
    RunError, VersionError
        If the server cannot be reached, or refuses for another reason.
    """
    while True:
        try:
            greet(server, root, key)
        except WaitingError as waiting:
            yield waiting.problem
        else:
            return
        sleep(LOOK_S)
