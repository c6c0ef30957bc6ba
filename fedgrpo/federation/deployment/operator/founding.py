"""``fedgrpo server init``: a folder with all that a server needs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fedgrpo.federation.deployment.invitation.invitation import SYSTEM
from fedgrpo.federation.deployment.operator.certificates import write_authority, write_outer
from fedgrpo.federation.deployment.operator.federation_file import FILE, KEY, FederationFile
from fedgrpo.federation.deployment.units import Service, unit
from fedgrpo.ground.errors import RunError, SettingsError
from fedgrpo.ground.files import replace_file

SERVICE = "fedgrpo-server.service"
_TEMPLATE = """\
# How this federation's server runs. The folder is yours alone: it holds private keys.
host = {host}    # name or address at which sites reach this machine
port = {port}
listen = "0.0.0.0"    # "::" for IPv6
certificate = {certificate}
key = {key}
ca = {ca}    # root certificate for the sites; "system" for a public authority's
runs = "runs"
status_bind = "127.0.0.1:8450"    # status page and metrics; "" for none
"""


def renew(folder: Path) -> None:
    """Write a new certificate and key for the server; raises RunError if it has no authority of
    its own.
    """
    federation = FederationFile.read(folder)
    if federation.ca == SYSTEM:
        raise RunError(
            "this server's certificate is of a public authority",
            cure="renew it where it came from, and start the server again",
        )
    write_outer(folder, federation.host)


def found(folder: Path, host: str, port: int, *, public: tuple[Path, Path] | None) -> None:
    """Make the folder.

    Parameters
    ----------
    folder:
        Must not exist.
    host, port:
        Where sites reach the server.
    public:
        Certificate chain and private key of a public authority, which stay where they are. None
        makes an authority of the federation's own.

    Raises
    ------
    RunError, SettingsError
        If the folder exists, or something cannot be used.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:]+", host):
        raise SettingsError(
            f"--host {host!r} is neither a name nor an address",
            cure="name the machine as sites reach it: --host fed.example",
        )
    for file in public or ():
        if not file.is_file():
            raise SettingsError(f"{file} does not exist", cure="name the PEM file")
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise RunError(
            f"{folder} exists, and nothing in it was touched",
            cure=f"start the server that is there: fedgrpo server {folder}; or name a new folder",
        ) from None
    if public is None:
        write_authority(folder / "ca.crt", folder / "ca.key")
        write_outer(folder, host)
    certificate, key = public or (Path("server.pem"), Path("server.key"))
    written = _TEMPLATE.format(
        host=json.dumps(host),
        port=port,
        certificate=json.dumps(str(certificate.absolute() if public else certificate)),
        key=json.dumps(str(key.absolute() if public else key)),
        ca=json.dumps(SYSTEM if public else "ca.crt"),
    )
    replace_file(folder / FILE, written.encode(), mode=0o600)
    write_service(folder, host, key)


def write_service(folder: Path, host: str, key: Path, *, at: Path | None = None) -> None:
    """Write the unit by which systemd keeps a server running.

    Parameters
    ----------
    folder:
        To write to.
    host:
        Of the server, for people.
    key:
        Its private key, which the service gets a copy of; relative to its folder.
    at:
        The server's folder, if it is to be another one.
    """
    here = (at or folder).absolute()
    words, keys = ["server", str(here)], {KEY: here / key}
    service = Service(f"fedgrpo server {host}", words, here, [here], keys=keys)
    replace_file(folder / SERVICE, unit(service, here / SERVICE).encode())
