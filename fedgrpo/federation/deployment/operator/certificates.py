"""The certificate of the SuperLink behind the gateway: nobody but this machine ever sees it."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedgrpo.ground.files import replace_file

LOOPBACK = ipaddress.ip_address("127.0.0.1")
YEARS = 10


def write_inner(certificate: Path, key: Path) -> None:
    """Draw a key and write a certificate for 127.0.0.1 that stands for itself.

    It is made anew at every start, and begins a day ago, so that no clock matters.

    Parameters
    ----------
    certificate, key:
        Files to write, PEM; the key with mode 0600.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    replace_file(key, _private_pem(private), mode=0o600)
    signed = _builder(private.public_key()).sign(private, hashes.SHA256())
    replace_file(certificate, signed.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _builder(public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedgrpo inner")])
    begins = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=public,
        serial_number=x509.random_serial_number(),
        not_valid_before=begins,
        not_valid_after=begins + datetime.timedelta(days=365 * YEARS),
    )
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder
