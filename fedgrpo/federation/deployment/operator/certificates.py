"""Certificates: of the federation's own authority, of the server that sites see, and of the
SuperLink behind the gateway, which nobody but this machine ever sees.

Every one begins a day ago, so that a clock which is late can connect.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import replace_file

LOOPBACK = ipaddress.ip_address("127.0.0.1")
YEARS = 10
"""Of the authority, and of the certificate behind the gateway."""
OUTER_DAYS = 820
"""Of the certificate that sites see: some systems refuse longer ones."""
SOON_DAYS = 30
"""Before a certificate's end, every status says so."""
AUTHORITY, OUTER = ("ca.crt", "ca.key"), ("server.pem", "server.key")
_EC_USAGE = x509.KeyUsage(True, False, False, False, False, True, True, False, False)


def write_inner(certificate: Path, key: Path) -> None:
    """Draw a key and write a certificate for 127.0.0.1 that stands for itself. It is made anew at
    every start.

    Parameters
    ----------
    certificate, key:
        Files to write, PEM; the key with mode 0600.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    public, name = private.public_key(), _name("fedgrpo inner")
    builder = _builder(name, name, public, 365 * YEARS)
    names = x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)])
    _write(certificate, key, private, _extended(builder, public, public, names), private)


def write_authority(certificate: Path, key: Path) -> None:
    """Draw the key of a federation's own authority, and write its root certificate.

    Parameters
    ----------
    certificate, key:
        Files to write, PEM; the key with mode 0600.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    public, name = private.public_key(), _name("fedgrpo federation")
    builder = _builder(name, name, public, 365 * YEARS)
    extensions = x509.BasicConstraints(ca=True, path_length=0), _EC_USAGE
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    _write(certificate, key, private, builder, private)


def write_outer(folder: Path, host: str) -> None:
    """Draw the key that sites meet, and have the authority of the folder sign its certificate, for
    the host, ``localhost`` and 127.0.0.1.

    Parameters
    ----------
    folder:
        Of the server, with the authority's files.
    host:
        Name or address.

    Raises
    ------
    RunError
        If the authority's files cannot be read.
    """
    try:
        root = x509.load_pem_x509_certificate((folder / AUTHORITY[0]).read_bytes())
        signer = serialization.load_pem_private_key((folder / AUTHORITY[1]).read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
    except (OSError, ValueError, TypeError, AssertionError):
        raise RunError(
            f"{folder} has no authority of its own that could sign a certificate",
            cure="a public authority's certificate is renewed where it came from",
        ) from None
    private = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(host), root.subject, private.public_key(), OUTER_DAYS)
    names = x509.SubjectAlternativeName(_names(host))
    built = _extended(builder, private.public_key(), signer.public_key(), names)
    _write(folder / OUTER[0], folder / OUTER[1], private, built, signer)


def days_left(certificate: Path, now: datetime.datetime) -> float:
    """Days until the first certificate of a PEM file ends.

    Raises
    ------
    RunError
        If it cannot be read.
    """
    try:
        read = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        raise RunError(
            f"certificate {certificate} cannot be read", cure="name a PEM file"
        ) from None
    return (read.not_valid_after_utc - now) / datetime.timedelta(days=1)


def _names(host: str) -> Sequence[x509.GeneralName]:
    always: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(LOOPBACK)]
    try:
        own: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        own = x509.DNSName(host)
    return always if own in always else [own, *always]


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    begins = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=public,
        serial_number=x509.random_serial_number(),
        not_valid_before=begins,
        not_valid_after=begins + datetime.timedelta(days=days),
    )


def _extended(
    builder: x509.CertificateBuilder,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    names: x509.SubjectAlternativeName,
) -> x509.CertificateBuilder:
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (names, False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), False),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder


def _write(
    certificate: Path,
    key: Path,
    private: ec.EllipticCurvePrivateKey,
    builder: x509.CertificateBuilder,
    signer: ec.EllipticCurvePrivateKey,
) -> None:
    """Write key and certificate, the key first: one without the other is found out at the start."""
    encoded = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    replace_file(key, encoded, mode=0o600)
    signed = builder.sign(signer, hashes.SHA256())
    replace_file(certificate, signed.public_bytes(serialization.Encoding.PEM), mode=0o644)
