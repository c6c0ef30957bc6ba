"""A committee's member: its key, its port, and the way to and from the other members."""

from __future__ import annotations

import errno
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6, create_connection, create_server, gaierror

from fedgrpo.federation.deployment.doctor.finding import Findings, fine, said, trouble
from fedgrpo.federation.deployment.doctor.line import CONNECT_S, address_of
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import Identity
from fedgrpo.settings.protocols.committee.members import fingerprint
from fedgrpo.site.node_folder import running


@dataclass(frozen=True)
class Membership:
    """What a site's file and the settings say of its place in a committee.

    Attributes
    ----------
    keys:
        Public ones, 128 hex digits.
    listed:
        Members' keys and addresses by their numbers in the settings, from 1; empty addresses where
        the server relays.
    listen:
        Where this member listens, ``HOST:PORT``; empty where nobody says.
    """

    keys: str
    listed: tuple[tuple[str, str], ...]
    listen: str

    @property
    def own(self) -> str | None:
        """Its address in the settings; None if it is not listed."""
        return dict(self.listed).get(self.keys)


def membership(here: Surroundings) -> Membership | None:
    """None of a site that is no member; raises ProtocolError if its key cannot be used."""
    if not (file := here.config.get("committee-key")):
        return None
    public = Identity.read(Path(str(file))).public
    named = here.settings.aggregation.committee if here.settings else ()
    pairs = (name.partition("@") for name in named)
    found = Membership(
        (public.signing + public.agreement).hex(), tuple((k, a) for k, _, a in pairs), ""
    )
    own = str(here.config.get("committee-listen", ""))
    return Membership(found.keys, found.listed, own or found.own or "")


@check(17, "own port")
def own_port(here: Surroundings) -> Findings:
    """That a member's port is free; a node listens at no other one."""
    try:
        member = membership(here)
    except ProtocolError:
        member = None  # Which the next check says.
    at = address_of(member.listen) if member else None
    if not at:
        yield fine("a node listens at none")
    elif here.folder and running(here.folder):
        # Not tried: the node may want to listen this very moment.
        yield fine("a node runs here, and listens while a round computes")
    else:
        yield from _free(*at)


def _free(host: str, port: int) -> Findings:
    try:
        with closing(create_server((host, port), family=_family(host))):
            yield fine(f"{host}, port {port}, is free")
    except OSError as error:
        if not isinstance(error, gaierror) and error.errno == errno.EADDRINUSE:
            yield trouble("port-taken", host=host, port=port)
        else:
            yield trouble("address-foreign", host=host, port=port, why=error.strerror)


@check(18, "committee")
def committee(here: Surroundings) -> Findings:
    """A member's key, its own address as others reach it, and theirs."""
    try:
        member = membership(here)
    except ProtocolError as error:
        yield said("member-key", error)
        return
    if not member:
        yield fine("this site is no member")
    elif not here.settings:
        yield fine(f"its key is {fingerprint(member.keys)}; the settings are not known here")
    elif not member.listed:
        yield fine(f"its key is {fingerprint(member.keys)}; the settings are of no committee")
    elif member.own is None:
        file = here.config["committee-key"]
        yield trouble("member-unlisted", fingerprint=fingerprint(member.keys), file=file)
    elif not member.own:
        yield fine("listed; the server relays what members say")
    else:
        yield from _reached(here, member, member.own)


def _reached(here: Surroundings, member: Membership, own: str) -> Findings:
    """Whether others reach this member, as far as that shows from here, and it them."""
    if not (here.folder and running(here.folder)):
        yield from _hears(own, member.listen)
    others = [(n, a) for n, (k, a) in enumerate(member.listed, 1) if k != member.keys]
    lost = {(n, a): why for n, a in others if (why := _unreachable(a))}
    yield from (
        trouble("member-unreached", member=n, address=a, why=w) for (n, a), w in lost.items()
    )
    if not lost:
        yield fine(f"listed; {len(others)} others can be reached")


def _hears(own: str, listen: str) -> Findings:
    """Listen for a moment, and dial oneself by the address that the others have."""
    at = address_of(listen)
    if not at:
        return
    try:
        with closing(create_server(at, family=_family(at[0]))):
            why = _unreachable(own, refused="it is refused")
    except OSError:
        return  # Which the check before says.
    if why:
        yield trouble(
            "member-deaf", address=own, why=why, port=own.rpartition(":")[2], listen=listen
        )


def _unreachable(address: str, refused: str = "") -> str:
    """Why nothing at an address can be connected to; empty if something can. A machine that refuses
    is there: members listen only while a round computes.
    """
    try:
        create_connection(address_of(address) or ("", 0), CONNECT_S).close()
    except ConnectionRefusedError:
        return refused
    except TimeoutError:
        return "it does not answer"
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _family(host: str) -> int:
    return AF_INET6 if ":" in host else AF_INET
