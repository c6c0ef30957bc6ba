"""TLS 1.3 between members who know each other's keys: certificates that only carry a key.

A member's certificate is signed by itself and a function of its Ed25519 key. Members show each
other theirs before the handshake; each checks that the key in it is the pinned one and then accepts
this certificate and no other. That the peer has the private key is what the handshake proves.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from fedgrpo.secure.committee.keys.identity import Identity

_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedgrpo committee member")])
_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
"""Certificates do not run out: a key is trusted for as long as it is pinned."""


def certificate(identity: Identity) -> bytes:
    """Return the member's certificate, DER; the same bytes every time."""
    key = Ed25519PrivateKey.from_private_bytes(identity.signing)
    digest = hashlib.sha256(identity.public.signing).digest()
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(digest[:16], "big") >> 1 | 1)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, None)
        .public_bytes(serialization.Encoding.DER)
    )


def signing_key(der: bytes) -> bytes:
    """Return the Ed25519 key in a certificate, 32 bytes; nothing if there is none."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else b""


def tls_context(identity: Identity, peer: bytes, server: bool) -> ssl.SSLContext:
    """Prepare one TLS 1.3 handshake in which both sides prove their keys.

    Adversary: anybody on the network. It can neither read, alter nor insert anything, nor pose as
    either side without its private key. There is no older version, no resumption (each handshake
    has fresh keys: forward secrecy) and no certificate but ``peer``, so no authority to deceive.

    Parameters
    ----------
    peer:
        The one certificate to accept, DER, whose key was found to be pinned.
    server:
        Whether this side is the one that was dialled.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=peer)
    if server:
        context.num_tickets = 0
    _load_key(context, identity)
    return context


def _load_key(context: ssl.SSLContext, identity: Identity) -> None:
    """Give the context the private key, for which Python's ssl wants a file: an encrypted one."""
    password = os.urandom(32).hex().encode()
    pem = Ed25519PrivateKey.from_private_bytes(identity.signing).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key.pem"
        path.write_bytes(pem + ssl.DER_cert_to_PEM_cert(certificate(identity)).encode())
        context.load_cert_chain(path, password=password)
