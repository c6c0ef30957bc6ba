"""The operator's state folder: whose it is, what lies in it, and one server at a time."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import replace_file
from fedgrpo.site.node_folder import chosen_folder, owned_folder

NAME = "server"
"""Name by which Flower's command line knows the SuperLink."""

_ACCOUNT, _ACCESS = "flower.account-auth.", ".oidc-access-token"


@dataclass(frozen=True)
class StateFolder:
    """Where a server keeps everything but its runs. Nobody else can open it.

    Attributes
    ----------
    path:
        Absolute.
    """

    path: Path

    @classmethod
    def of(cls, path: Path) -> StateFolder:
        """Make it, or narrow it to mode 0700; raises RunError if it cannot be had."""
        cure = "name a folder of your own: fedgrpo server FOLDER"
        return cls(chosen_folder(path, "state folder", cure))

    @property
    def log(self) -> Path:
        """What the server's processes have said."""
        return self.path / "logs" / "server.log"

    @property
    def database(self) -> Path:
        """Of the SuperLink: registered nodes, runs, messages."""
        return self.path / "superlink.db"

    @property
    def certificate(self) -> Path:
        """Of the SuperLink."""
        return self.path / "inner.pem"

    @property
    def key(self) -> Path:
        """Private key of that."""
        return self.path / "inner.key"

    @property
    def bundle(self) -> Path:
        """What is submitted with a run."""
        return self.path / "fedgrpo-app"

    @property
    def flower(self) -> Path:
        """FLWR_HOME of who submits runs."""
        return self.path / "flwr"

    def read_access(self) -> tuple[str, str]:
        """Address and secret of the SuperLink; raises RunError if no server was ever started."""
        try:
            kept = json.loads((self.flower / "credentials.yaml").read_text("utf-8"))
            (name,) = (name for name in kept if name.endswith(_ACCESS))
            address = name.removeprefix(_ACCOUNT).removesuffix(_ACCESS)
            return address, base64.b64decode(kept[name]).decode()
        except (OSError, ValueError, KeyError, AttributeError):
            raise RunError(
                f"the server of {self.path} is not running",
                cure=f"start it: fedgrpo server {self.path}",
            ) from None

    def write_access(self, address: str, bearer: str) -> None:
        """Let Flower's command line in: where the SuperLink is, and the secret that opens it.

        Flower keeps tokens of an account there, and sends the first one as a bearer. Both names of
        the file are Flower's.
        """
        owned_folder(self.flower)
        config = (
            f'[superlink]\ndefault = "{NAME}"\n\n[superlink.{NAME}]\naddress = "{address}"\n'
            f"root-certificates = {json.dumps(str(self.certificate))}\n"
        )
        replace_file(self.flower / "config.toml", config.encode(), mode=0o600)
        account = f"{_ACCOUNT}{address}"
        tokens = {
            f"{account}.authn-type": "oidc",
            f"{account}{_ACCESS}": bearer,
            f"{account}.oidc-refresh-token": bearer,
        }
        encoded = {name: base64.b64encode(t.encode()).decode() for name, t in tokens.items()}
        content = json.dumps(encoded).encode()  # Which is YAML, too.
        replace_file(self.flower / "credentials.yaml", content, mode=0o600)
