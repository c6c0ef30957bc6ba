"""Where it is looked at: an address of this machine, and a password of its owner's."""

from __future__ import annotations

import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.ground.errors import RunError, SettingsError
from fedgrpo.ground.files import make_file

PASSWORD = "status.password"
"""File in the folder of who is watched."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True)
class Place:
    """An address to listen at.

    Attributes
    ----------
    host, port:
        IPv6 without its brackets.
    """

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Place:
        """Read ``HOST:PORT``; raises SettingsError if it is none."""
        found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\]:(\d{1,5})|([^\s:/@]+):(\d{1,5})", text)
        if not found or int(found[2] or found[4]) > 65535:
            raise SettingsError(
                f"status_bind = {text!r} is no HOST:PORT", cure='write "127.0.0.1:8450"'
            )
        return cls(found[1] or found[3], int(found[2] or found[4]))

    @property
    def name(self) -> str:
        """The host as a browser names it."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def on_loopback(self) -> bool:
        """Whether other machines cannot reach it."""
        return self.name in LOOPBACK

    @property
    def address(self) -> str:
        """What a browser is told. Elsewhere than on loopback it is TLS."""
        return f"http{'' if self.on_loopback else 's'}://{self.name}:{self.port}/"

    def listen(self) -> socket.socket:
        """Take the port; raises RunError if it cannot be taken."""
        try:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            return socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            raise RunError(
                f"the status page cannot listen at {self.name}:{self.port}: {error.strerror}",
                cure="end who listens there, or name another address as status_bind",
            ) from None


def kept_password(folder: Path) -> str:
    """The password of a folder, which is drawn once; its owner alone can read it.

    Raises
    ------
    RunError
        If it cannot be kept, or others can read it.
    """
    file = folder / PASSWORD
    try:
        make_file(file, secrets.token_urlsafe(32).encode() + b"\n")
        shown, mode = file.read_text("ascii").strip(), file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"the password {file} cannot be kept ({type(error).__name__})",
            cure="see whether the disk is full, or remove the file",
        ) from None
    if mode & 0o077 or len(shown) < 20:
        raise RunError(
            f"the password {file} is too short, or others can read it",
            cure="remove it: another one is drawn at the next start",
        )
    return shown
