"""The way to the server, step by step, as far as it leads: name, port, TLS, a greeting.

Nothing of this site is sent: a connection, a handshake, and ``GET /hello`` to a server whose
certificate the site trusts.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from socket import (
    SOCK_STREAM,
    create_connection,
    gaierror,
    getaddrinfo,
    socket,
)
from urllib.request import getproxies, proxy_bypass

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from fedgrpo.federation.deployment.doctor.finding import Finding, trouble
from fedgrpo.federation.deployment.site.greeting import request, trusting

CONNECT_S = 5.0
"""Longest wait for a connection."""
NAME, PORT, TLS, SERVER, PROXY = 2, 3, 4, 5, 19
"""Numbers of the checks whose steps these are."""
_EARLY, _EXPIRED, _OTHER_NAME, _OTHER_IP = 9, 10, 62, 64
"""OpenSSL's codes of certificates that it refuses."""
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
)


@dataclass(frozen=True)
class Certificate:
    """A server's."""

    names: tuple[str, ...]
    issuer: str
    digest: str
    """SHA-256 (hex), in pairs."""
    begins: datetime
    ends: datetime

    @classmethod
    def of(cls, der: bytes) -> Certificate:
        """Read it."""
        found = x509.load_der_x509_certificate(der)
        return cls(
            names=tuple(_names(found)),
            issuer=_issuer(found),
            digest=":".join(f"{byte:02X}" for byte in found.fingerprint(hashes.SHA256())),
            begins=found.not_valid_before_utc,
            ends=found.not_valid_after_utc,
        )


@dataclass(frozen=True)
class Hello:
    """What a server says of itself.

    Attributes
    ----------
    drift_s:
        How many seconds this machine's clock is ahead of the server's.
    doubt_s:
        Half of the seconds that the answer took.
    """

    fedgrpo: str
    protocol: int
    drift_s: float
    doubt_s: float


@dataclass(frozen=True)
class Line:
    """How far the way led.

    Attributes
    ----------
    proxy:
        Variable and address of a proxy that the environment names for this host; empty texts where
        there is none.
    address:
        Of this host, that was connected to.
    broken:
        Number of the check whose step failed, with what is wrong.
    """

    host: str
    port: int
    proxy: tuple[str, str] = ("", "")
    addresses: tuple[str, ...] = ()
    address: str = ""
    certificate: Certificate | None = None
    hello: Hello | None = None
    broken: tuple[int, Finding] | None = field(default=None)

    @property
    def server(self) -> str:
        """``HOST:PORT``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Broken(Exception):  # noqa: N818 -- It never leaves this file.
    """A step that failed."""

    def __init__(self, step: int, code: str, **values: object) -> None:
        super().__init__()
        self.found = step, trouble(code, **values)


def walk(host: str, port: int, root: str, clock: Callable[[], float]) -> Line:
    """Go as far as the way leads.

    Parameters
    ----------
    host, port:
        Of the server.
    root:
        File of its root certificate, the certificate itself (PEM), or ``system``.
    clock:
        This machine's, in Unix time.
    """
    line = Line(host, port, proxy_for(host))
    try:
        direct = not line.proxy[0]
        if direct:
            line = replace(line, addresses=_addresses(line))
            line = replace(line, address=_connected(line))
        trust = _trust(root)
        if direct:
            line = replace(line, certificate=_shown(line, trust))
        return replace(line, hello=_hello(line, trust, clock))
    except _Broken as broken:
        return replace(line, broken=broken.found)


def address_of(server: str) -> tuple[str, int] | None:
    """Host and port of a server; None if it is no ``HOST:PORT``."""
    host, _, port = server.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        return None
    return host.strip("[]"), int(port)


def proxy_for(host: str) -> tuple[str, str]:
    """Variable and address of the proxy that the environment names for a host, as a node's
    transport takes it; empty texts where there is none.
    """
    named = getproxies()
    if proxy_bypass(host):
        return "", ""
    for kind in ("https", "all"):
        if named.get(kind):
            # Without the name and password that may stand in it.
            return f"{kind}_proxy".upper(), named[kind].rpartition("@")[2]
    return "", ""


def _trust(root: str) -> ssl.SSLContext:
    try:
        return trusting(root)
    except (OSError, ValueError) as error:
        name = "of the invitation" if root.startswith("-----BEGIN") else root
        raise _Broken(TLS, "ca-unreadable", file=name, why=type(error).__name__) from None


def _addresses(line: Line) -> tuple[str, ...]:
    try:
        found = getaddrinfo(line.host, line.port, type=SOCK_STREAM)
    except (gaierror, UnicodeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise _Broken(NAME, "name-unknown", host=line.host, why=why) from None
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))


def _connected(line: Line) -> str:
    """The first address that lets itself be connected to."""
    failed: dict[str, OSError] = {}
    for address in line.addresses:
        try:
            create_connection((address, line.port), CONNECT_S).close()
        except OSError as error:
            failed[address] = error
        else:
            return address
    refusing = [a for a, error in failed.items() if isinstance(error, ConnectionRefusedError)]
    address = (refusing or list(failed))[0]
    code, why = "port-refused" if refusing else "port-blocked", _why(failed[address])
    raise _Broken(PORT, code, address=address, port=line.port, why=why)


def _shown(line: Line, trust: ssl.SSLContext) -> Certificate:
    """The server's certificate, if it is one of those that are trusted."""
    try:
        with _handshake(line, trust) as secured:
            return _peer(secured)
    except ssl.SSLCertVerificationError as error:
        raise _refused(line, error) from None
    except ssl.SSLError as error:
        if error.reason in _NO_TLS:
            raise _plain(line) from None
        why = error.reason or type(error).__name__
        raise _Broken(TLS, "tls-version", why=why) from None
    except OSError as error:
        raise _Broken(TLS, "tls-version", why=_why(error)) from None


@contextlib.contextmanager
def _handshake(line: Line, trust: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    bare: socket = create_connection((line.address, line.port), CONNECT_S)
    with bare, trust.wrap_socket(bare, server_hostname=line.host) as secured:
        yield secured


def _peer(secured: ssl.SSLSocket) -> Certificate:
    der = secured.getpeercert(binary_form=True)
    assert der is not None
    return Certificate.of(der)


def _plain(line: Line) -> _Broken:
    return _Broken(SERVER, "plain-text", address=line.address, port=line.port)


def _refused(line: Line, error: ssl.SSLCertVerificationError) -> _Broken:
    """Say what is wrong with a certificate, of which only a handshake without trust tells more."""
    loose = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    loose.check_hostname, loose.verify_mode = False, ssl.CERT_NONE
    try:
        with _handshake(line, loose) as secured:
            shown = _peer(secured)
    except OSError as again:
        return _Broken(TLS, "tls-version", why=_why(again))
    when = f"{shown.ends:%Y-%m-%d %H:%M} UTC"
    if error.verify_code == _EXPIRED:
        return _Broken(TLS, "certificate-expired", when=when)
    if error.verify_code == _EARLY:
        begins, here = f"{shown.begins:%Y-%m-%d %H:%M}", datetime.now(UTC)
        return _Broken(TLS, "certificate-early", when=begins, now=f"{here:%Y-%m-%d %H:%M} UTC")
    if error.verify_code in (_OTHER_NAME, _OTHER_IP):
        named = ", ".join(shown.names) or "nobody"
        return _Broken(TLS, "certificate-name", host=line.host, names=named)
    return _Broken(
        TLS, "certificate-foreign", host=line.host, issuer=shown.issuer, digest=shown.digest
    )


def _hello(line: Line, trust: ssl.SSLContext, clock: Callable[[], float]) -> Hello:
    """Greet as the node itself does: through a proxy, if the environment names one."""
    try:
        began = clock()
        answer = request(line.server, trust, {}, "/hello", b"")
        ended = clock()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        if line.proxy[0]:
            raise _proxied(line, why) from None
        raise _Broken(SERVER, "not-fedgrpo", host=line.host, port=line.port, why=why) from None
    return _read(line, answer, began, ended)


def ask(
    line: Line, root: str, headers: Mapping[str, str], path: str = "/hello", body: bytes = b""
) -> Mapping[str, object]:
    """Ask a server that was found to be the right one for more.

    Parameters
    ----------
    line:
        That led to it.
    root:
        As for :func:`walk`.
    headers:
        A node's credentials, or none.
    path, body:
        What is asked for; with a body it is a POST.

    Raises
    ------
    RefusedError
        With what the server says, if it is no.
    """
    try:
        answer = request(line.server, _trust(root), headers, path, body)
        said = dict(answer.json())
    except (httpx.HTTPError, ValueError, TypeError) as error:
        raise RefusedError(0, f"it was reached and is gone ({type(error).__name__})", "") from None
    if answer.status_code != httpx.codes.OK:
        raise RefusedError(
            answer.status_code, str(said.get("detail", "")), str(said.get("extra", ""))
        )
    return said


class RefusedError(Exception):
    """A server that says no.

    Parameters
    ----------
    status:
        Of HTTP; 0 where there is no answer.
    problem, cure:
        In the server's words.
    """

    def __init__(self, status: int, problem: str, cure: str) -> None:
        super().__init__(problem)
        self.status, self.problem, self.cure = status, problem, cure


def _proxied(line: Line, why: str) -> _Broken:
    variable, proxy = line.proxy
    return _Broken(PROXY, "proxy-breaks", variable=variable, proxy=proxy, host=line.host, why=why)


def _read(line: Line, answer: httpx.Response, began: float, ended: float) -> Hello:
    if answer.status_code in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS):
        raise _Broken(SERVER, "server-unwell", why=f"HTTP {answer.status_code}")
    try:
        said = answer.json()
        their = float(said["time"])
        version, protocol = str(said["fedgrpo"]), int(said["protocol"])
    except (ValueError, KeyError, TypeError):
        why = f"it answers HTTP {answer.status_code} to /hello"
        if line.proxy[0]:
            raise _proxied(line, why) from None
        raise _Broken(SERVER, "not-fedgrpo", host=line.host, port=line.port, why=why) from None
    return Hello(version, protocol, (began + ended) / 2 - their, (ended - began) / 2)


def _names(found: x509.Certificate) -> Iterator[str]:
    with contextlib.suppress(x509.ExtensionNotFound, ValueError):
        listed = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        yield from listed.get_values_for_type(x509.DNSName)
        yield from map(str, listed.get_values_for_type(x509.IPAddress))


def _issuer(found: x509.Certificate) -> str:
    """Common name and organisation of who issued it."""
    named = [
        str(part.value)
        for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
        for part in found.issuer.get_attributes_for_oid(kind)
    ]
    return ", ".join(dict.fromkeys(named)) or found.issuer.rfc4514_string() or "nobody"


def _why(error: OSError) -> str:
    return "it does not answer" if isinstance(error, TimeoutError) else str(error.strerror or error)
