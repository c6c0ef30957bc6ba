"""``federation.toml``: how a server that ``fedgrpo server init`` made is to run."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedgrpo.federation.deployment.invitation.invitation import SYSTEM
from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.files import own_copy, toml_of
from fedgrpo.report.watch.place import Place
from fedgrpo.settings.reading import faults

FILE = "federation.toml"
KEY = "key"
"""What of the file is a private key, also the name of its copy in a service."""


class FederationFile(BaseModel):
    """The file's keys. Paths are relative to its folder.

    Attributes
    ----------
    host:
        Name or address at which sites reach the server.
    port:
        There, and where it listens.
    listen:
        Address to listen on.
    certificate, key:
        Of TLS: PEM files.
    ca:
        Root certificate that sites are given, or ``system`` for a public authority's.
    runs:
        Folder of run directories.
    status_bind:
        ``HOST:PORT`` of the status page and the metrics; empty for none.
    app:
        The server app that runs, installed here: ``package.module:name``; empty for fedgrpo's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: str
    port: int = Field(ge=1, le=65535)
    listen: str = "0.0.0.0"
    certificate: str = "server.pem"
    key: str = "server.key"
    ca: str = "ca.crt"
    runs: str = "runs"
    status_bind: str = "127.0.0.1:8450"
    app: str = ""

    @classmethod
    def read(cls, folder: Path) -> FederationFile:
        """Read the file of a server's folder, and make its paths absolute.

        Raises
        ------
        SettingsError
            If there is none, or it has a key or value that cannot be used.
        """
        path = folder.expanduser().absolute() / FILE
        try:
            found = cls.model_validate(toml_of(path))
        except (FileNotFoundError, NotADirectoryError):
            raise SettingsError(
                f"{folder} is no federation's folder: it has no {FILE}",
                cure="name the folder that 'fedgrpo server init' made with --server, in the "
                "environment variable FEDGRPO_SERVER, or work in it",
            ) from None
        except ValidationError as error:
            problem = faults(error)
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problem = str(error)
        else:
            return found._beside(path.parent)
        raise SettingsError(f"{path}: {problem}", cure="mend that line")

    def _beside(self, folder: Path) -> FederationFile:
        names = ["certificate", "key", "runs", *(["ca"] if self.ca != SYSTEM else [])]
        paths = {name: str(folder / Path(getattr(self, name)).expanduser()) for name in names}
        paths[KEY] = str(own_copy(KEY, Path(paths[KEY])))
        return self.model_copy(update=paths)

    @property
    def server(self) -> str:
        """``HOST:PORT``, as sites dial it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def page(self) -> str:
        """Address of the status page; empty where there is none. Raises SettingsError."""
        return Place.of(self.status_bind).address if self.status_bind else ""

    def root(self) -> str:
        """What an invitation carries: the certificate as text, or ``system``."""
        return self.ca if self.ca == SYSTEM else Path(self.ca).read_text("ascii")
