"""Keys and certificates of a deployment on loopback, made the way an operator makes them."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as wire
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PLAIN = wire.NoEncryption()
HOUR = datetime.timedelta(hours=1)


def superlink_files(
    folder: Path,
    *,
    name: str = "localhost",
    begins_in: datetime.timedelta = -HOUR,
    ends_in: datetime.timedelta = 23 * HOUR,
) -> tuple[Path, Path, Path]:
    """Write a root certificate, and a SuperLink's certificate and private key."""
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _certificate("root", root, "root", root).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    issuer = issuer.add_extension(usage, critical=True).add_extension(
        x509.SubjectKeyIdentifier.from_public_key(root.public_key()), critical=False
    )
    loopback = ipaddress.ip_address("127.0.0.1")
    names = [x509.DNSName(name), x509.IPAddress(loopback)]
    now = datetime.datetime.now(datetime.UTC)
    dated = _certificate(name, own, "root", root, now + begins_in, now + ends_in)
    issued = dated.add_extension(x509.SubjectAlternativeName(names), critical=False)
    issued = issued.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False
    )
    files = folder / "ca.crt", folder / "server.pem", folder / "server.key"
    for file, builder in zip(files, (issuer, issued), strict=False):
        signed = builder.sign(root, hashes.SHA256())
        file.write_bytes(signed.public_bytes(wire.Encoding.PEM))
    files[2].write_bytes(own.private_bytes(wire.Encoding.PEM, wire.PrivateFormat.PKCS8, _PLAIN))
    return files


def node_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Write the private and the public key by which a SuperLink knows a SuperNode."""
    key = ec.generate_private_key(ec.SECP384R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(wire.Encoding.PEM, wire.PrivateFormat.OpenSSH, _PLAIN))
    public.write_bytes(
        key.public_key().public_bytes(wire.Encoding.OpenSSH, wire.PublicFormat.OpenSSH)
    )
    return private, public


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    begins: datetime.datetime | None = None,
    ends: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    begins = begins or datetime.datetime.now(datetime.UTC) - HOUR
    return x509.CertificateBuilder(
        issuer_name=_name(issuer),
        subject_name=_name(subject),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=begins,
        not_valid_after=ends or begins + 24 * HOUR,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
