"""Which committees a site agrees to be dealt to, and what that means in plain words.

Adversary: a server that chooses the settings, and with them the members. Two members together see
every update that is dealt to them, so a site that left the choice to the server could as well show
it the update: there is no way to write "any members".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedgrpo.settings.sections.tree import Tree as Settings

MEMBERS = 4
"""Members of a committee that compute a round."""
MEMBER_KEYS = "[0-9a-f]{128}"
"""Pattern of a member's two public keys, as ``fedgrpo committee-key`` prints them."""

_GROUP, _SHOWN = 4, 32


def check_members(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the keys of members if they can be those of a committee, or of none; raises ValueError
    if a name is no pair of keys, is there twice, or there are some but fewer than four.
    """
    if not all(re.fullmatch(MEMBER_KEYS, name) for name in names):
        raise ValueError(
            "give each member as the 128 hex digits that 'fedgrpo committee-key' prints, without "
            "an address"
        )
    if len(set(names)) != len(names):
        raise ValueError("name each member once")
    if 0 < len(names) < MEMBERS:
        raise ValueError(f"{len(names)} members make no committee of {MEMBERS}")
    return names


def signing_keys(settings: Settings) -> set[str]:
    """Signing keys (hex) of the members that the settings name."""
    return {name[:64] for name in settings.aggregation.committee}


def keys_of(settings: Settings) -> tuple[str, ...]:
    """Keys (128 hex digits) of the members that the settings name, without their addresses."""
    return tuple(dict.fromkeys(n.partition("@")[0] for n in settings.aggregation.committee))


def committee_problem(agreed: tuple[str, ...], settings: Settings) -> str | None:
    """Say what is wrong with the committee that a run's settings name; None if nothing is.

    Parameters
    ----------
    agreed:
        Keys (128 hex digits) of the members to whom the site may be dealt.
    settings:
        The run's. Where members are reached makes no difference, only their keys.
    """
    named = set(keys_of(settings))
    if len(named) < MEMBERS:
        return f"aggregation.committee names {len(named)} different members, not {MEMBERS} or more"
    if strangers := sorted(named - set(agreed)):
        return "this site does not agree to be dealt to " + ", ".join(map(fingerprint, strangers))
    return None


def fingerprint(keys: str) -> str:
    """Shorten a member's keys (128 hex digits) to what two people can compare over the telephone.

    The first 128 bits of SHA-256 over both keys: to find other keys of the same fingerprint takes
    2^128 tries.
    """
    digest = hashlib.sha256(bytes.fromhex(keys)).hexdigest()
    return "-".join(digest[at : at + _GROUP] for at in range(0, _SHOWN, _GROUP))


def committee_words(agreed: tuple[str, ...]) -> Iterator[str]:
    """Explain a committee to a lawyer, in paragraphs."""
    yield (
        "This policy allows runs with a committee: four participants who hold your update in "
        "shares. This machine splits it into four lists that look like random numbers, and sends "
        "each member three of them, encrypted so that nobody else can read them, the server "
        "included. One member by itself learns nothing from its shares. ANY TWO MEMBERS TOGETHER "
        "SEE YOUR UPDATE, without noise: all must be organisations that you trust not to "
        "conspire. On shares, the four work out the average of all participants' updates without "
        "the extreme ones, put random noise on it, and show the result alone. One curious member "
        "can take a part of that noise off again; every release is counted by what such a member "
        "could learn."
    )
    if not agreed:
        yield "This policy names no members, so every run with a committee is refused."
        return
    yield (
        "Members that this site agrees to, by the fingerprints of their keys: "
        f"{', '.join(map(fingerprint, agreed))}. A run whose committee is not made up of them is "
        f"refused. {_seats(len(agreed))}"
    )


def _seats(agreed: int) -> str:
    """Say who of them computes, and what becomes of a round in which one falls silent."""
    silent = "If one of the four falls silent, the round ends without a result"
    if agreed == MEMBERS:
        return f"{silent}, and so does every round until it is back."
    return (
        f"Four of these {agreed} compute a round, and others may take over in a later one: over a "
        f"run, ANY TWO OF ALL {agreed} could see every update if they conspire. {silent}, and is "
        "not dealt to others."
    )
