"""Whether a server is there, is the right one, and knows this node: asked before a node starts."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from fedgrpo.federation.deployment.flower_internals.control import AGE_S, sign
from fedgrpo.federation.deployment.invitation.invitation import SYSTEM
from fedgrpo.federation.deployment.site.site_file import known_authorities
from fedgrpo.federation.wire.versions import PROTOCOL, TOLD_VERSION, VERSION
from fedgrpo.ground.errors import RunError, VersionError

PATIENCE_S = 15.0
MOST_FAST_S, MOST_SLOW_S = -AGE_S[0], AGE_S[1]
"""How far a node's clock may be ahead of the server's, and behind it with its request's way."""


class WaitingError(RunError):
    """A site has joined, and its operator has yet to confirm its key; or the server only starts."""


def greet(server: str, root: Path, key: Path) -> None:
    """Ask a server for its version with this node's credentials, and tell it this node's.

    Parameters
    ----------
    server:
        ``host:port``.
    root:
        File of its root certificate.
    key:
        File of this node's private key.

    Raises
    ------
    RunError, VersionError
        With what is wrong, and a cure.
    """
    told = {TOLD_VERSION: VERSION}
    answer = asked(server, root, credentials(read_key(key)) | told)
    if answer.status_code != httpx.codes.OK:
        raise refused(server, answer)
    try:
        said = answer.json()
        theirs = said["fedgrpo"], said["protocol"]
    except (ValueError, KeyError, TypeError):
        raise foreign(server) from None
    if theirs != (VERSION, PROTOCOL):
        raise VersionError(
            f"the server runs fedgrpo {theirs[0]}, protocol {theirs[1]}; this node {VERSION}, "
            f"protocol {PROTOCOL}",
            cure="install the same version on both sides",
        )


def read_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """Read a node's private key; raises RunError if it is none that Flower takes."""
    try:
        key = load_ssh_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RunError(
            f"node key {file} cannot be read: {type(error).__name__}",
            cure="make one without a passphrase: ssh-keygen -t ecdsa -b 384 -N '' -f node.key",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RunError(
            f"node key {file} is of a kind that Flower does not take",
            cure="make another one: ssh-keygen -t ecdsa -b 384 -N '' -f node.key",
        )
    return key


def credentials(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """What a node shows with a request: its public key, and its signature on the time."""
    now = datetime.now(UTC).isoformat()
    public, signature = sign(key, now.encode())
    return {
        "flwr-public-key": b64encode(public).decode(),
        "flwr-timestamp": now,
        "flwr-signature": b64encode(signature).decode(),
    }


def asked(
    server: str, root: Path, headers: dict[str, str], path: str = "/hello", body: bytes = b""
) -> httpx.Response:
    """Ask a server for something, or send it something.

    Parameters
    ----------
    server, root:
        ``HOST:PORT``, and the file of its root certificate.
    headers:
        What the node shows.
    path, body:
        What is asked for; with a body it is a POST.

    Raises
    ------
    RunError
        If there is no answer, with a cure.
    """
    try:
        trust = trusting(str(root))
    except (OSError, ValueError):
        raise RunError(
            f"root certificate {root} cannot be read",
            cure="name the file that the operator gave you: ca = ... in site.toml",
        ) from None
    try:
        return request(server, trust, headers, path, body)
    except httpx.HTTPError as error:
        raise _unreachable(server, error) from None
    except httpx.InvalidURL:
        raise RunError(
            f"server = {server!r} is no HOST:PORT", cure="write server = 'fed.example:8443'"
        ) from None


def trusting(root: str) -> ssl.SSLContext:
    """Trust what a root certificate vouches for: its file, the certificate itself (PEM), or
    ``system``. Raises OSError or ValueError if it cannot be read.
    """
    if root.startswith("-----BEGIN"):
        trust = ssl.create_default_context(cadata=root)
    else:
        trust = ssl.create_default_context(cafile=known_authorities() if root == SYSTEM else root)
    trust.minimum_version = ssl.TLSVersion.TLSv1_3
    return trust


def request(
    server: str, trust: ssl.SSLContext, headers: Mapping[str, str], path: str, body: bytes
) -> httpx.Response:
    """Ask a server, with a body by POST: as the node itself does, through no proxy that this does
    not go through. Raises httpx.HTTPError or httpx.InvalidURL.
    """
    with httpx.Client(verify=trust, timeout=PATIENCE_S) as client:
        method = "POST" if body else "GET"
        return client.request(
            method, f"https://{server}{path}", headers=headers, content=body or None
        )


def _unreachable(server: str, error: httpx.HTTPError) -> RunError:
    said = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return RunError(
            f"{server} shows a certificate that the root certificate does not vouch for: {said}",
            cure="do not go on. Ask the operator, by telephone, for the right certificate: a proxy "
            "may stand in between, or an impostor",
        )
    if "SSL" in said or "TLS" in said:
        return RunError(f"{server} does not speak TLS 1.3: {said}", cure="check host and port")
    return RunError(
        f"{server} cannot be reached: {said or type(error).__name__}",
        cure="check host and port; is the server up, and may this machine reach it (TCP)?",
    )


def refused(server: str, answer: httpx.Response) -> RunError:
    """What a server's refusal says."""
    try:
        said = answer.json()
        waits = answer.status_code in (httpx.codes.LOCKED, httpx.codes.SERVICE_UNAVAILABLE)
        kind = WaitingError if waits else RunError
        return kind(f"{server} refuses this node: {said['detail']}", cure=said["extra"])
    except (ValueError, KeyError, TypeError):
        return foreign(server)


def foreign(server: str) -> RunError:
    """Whoever answers is none of ours."""
    return RunError(f"{server} is no fedgrpo server", cure="check server = ... in site.toml")
