"""The folder of a site: everything of it in one place, and nothing of it is ever made twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedgrpo.federation.deployment.invitation.invitation import SYSTEM, Invitation
from fedgrpo.federation.deployment.site.greeting import read_key
from fedgrpo.federation.deployment.site.site_file import KEYS, SiteFile, known_authorities
from fedgrpo.federation.deployment.units import (
    Service,
    addresses_of,
    resolvers,
    unit,
    user_unit,
)
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import is_open_to_others, make_file, replace_file
from fedgrpo.site import SpendingFile
from fedgrpo.site.node_folder import chosen_folder

SITE_FILE, SPENT = "site.toml", "spent.jsonl"


@dataclass(frozen=True)
class SiteFolder:
    """Where a site keeps what is its own. Nobody else can open it.

    Attributes
    ----------
    path:
        Absolute.
    """

    path: Path

    @classmethod
    def of(cls, path: Path) -> SiteFolder:
        """Make it, or narrow it to mode 0700; raises RunError if it cannot be had."""
        cure = "name a folder of your own: --directory FOLDER"
        return cls(chosen_folder(path, "the site's folder", cure))

    @property
    def key(self) -> Path:
        """Private key of the node."""
        return self.path / "node.key"

    @property
    def ca(self) -> Path:
        """Root certificate of the server."""
        return self.path / "ca.crt"

    @property
    def policy(self) -> Path:
        """What the site allows. Its account lies beside it."""
        return self.path / "policy.toml"

    @property
    def proposal(self) -> Path:
        """A policy that nobody has accepted yet."""
        return self.path / "policy.proposed.toml"

    @property
    def former_policy(self) -> Path:
        """The policy that was in force before the last one was accepted."""
        return self.path / "policy.before.toml"

    @property
    def account(self) -> Path:
        """What was spent, where the policy names no other file."""
        return self.path / SPENT

    @property
    def agreed(self) -> Path:
        """Settings of the invitation."""
        return self.path / "agreed.toml"

    @property
    def state(self) -> Path:
        """What the node keeps: its secret and its releases."""
        return self.path / "state"

    @property
    def member_key(self) -> Path:
        """Private keys of a committee's member."""
        return self.path / "member.key"

    @property
    def service(self) -> Path:
        """Unit by which systemd keeps the node running."""
        return self.path / "fedgrpo-node.service"

    @property
    def user_service(self) -> Path:
        """The same for a user's own systemd, where there is no root."""
        return self.path / "user" / self.service.name

    @property
    def site_file(self) -> Path:
        """What the node is started with."""
        return self.path / SITE_FILE

    def kept_node_key(self) -> ec.EllipticCurvePrivateKey:
        """The node's key, which is drawn here, once, and never leaves; raises RunError if it cannot
        be read, or others can read it.
        """
        drawn = ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        make_file(self.key, drawn)
        if is_open_to_others(self.key):
            raise RunError(
                f"others can read the node's key {self.key}",
                cure=f"chmod 600 {self.key}; if somebody may have read it, move it away and ask "
                "for a new invitation",
            )
        return read_key(self.key)

    def take_account(self, account: Path) -> None:
        """Go on with the account of another machine.

        Raises
        ------
        PolicyError, RunError
            If it cannot be read or was changed, or there is one here.
        """
        SpendingFile(account).read()
        if not account.exists():
            raise RunError(
                f"there is no account {account}",
                cure="name the spent.jsonl of the old machine, or leave --account out",
            )
        if not make_file(self.account, account.read_bytes()):
            raise RunError(
                f"there is an account in {self.path} already",
                cure="leave --account out: it is gone on with",
            )

    def write_root(self, invitation: Invitation) -> Path:
        """Write the server's root certificate; returns the file that has it."""
        if invitation.ca == SYSTEM:
            return Path(known_authorities())
        replace_file(self.ca, invitation.ca.encode(), mode=0o644)
        return self.ca

    def site_file_before(self) -> SiteFile | None:
        """The site's file as it is; None before it has joined. Raises SettingsError if it cannot be
        read.
        """
        return SiteFile.read(self.site_file) if self.site_file.exists() else None

    def planned(self, invitation: Invitation, told: Mapping[str, object]) -> SiteFile:
        """What ``site.toml`` is to be. What people have added to one that is there stays.

        Parameters
        ----------
        invitation:
            Names the server.
        told:
            Keys of the file that were told anew.

        Raises
        ------
        SettingsError
            If the file that is there, or what was told, cannot be used.
        """
        before = self.site_file_before()
        own = before.model_dump() if before else {}
        found = {
            "server": invitation.server,
            "ca": SYSTEM if invitation.ca == SYSTEM else str(self.ca),
            "key": str(self.key),
            "state": own.get("state") or str(self.state),
        }
        return SiteFile.made({**own, **found, **told})

    def write_site_file(
        self, invitation: Invitation, made: SiteFile, *, memory: int = 0
    ) -> SiteFile:
        """Write ``site.toml`` and units for systemd, and return the former as it is read.

        Parameters
        ----------
        invitation:
            Names the site.
        made:
            What :meth:`planned` has found.
        memory:
            Most bytes that the node may take; 0 for no limit.
        """
        service = self._service(invitation, made, memory)
        replace_file(self.service, unit(service, self.service).encode())
        replace_file(self.user_service, user_unit(service, self.user_service).encode())
        head = f"# Site {invitation.site}. Start its node: fedgrpo node {self.site_file}\n"
        replace_file(self.site_file, (head + made.written()).encode(), mode=0o600)
        return SiteFile.read(self.site_file)

    def _service(self, invitation: Invitation, site: SiteFile, memory: int) -> Service:
        keys = {name: Path(path) for name in KEYS if (path := getattr(site, name))}
        members = invitation.agreed().aggregation.committee
        places = [invitation.server, *(name.partition("@")[2] for name in members)]
        return Service(
            about=f"fedgrpo site {invitation.site}",
            words=["node", str(self.site_file)],
            here=Path.cwd(),
            # The account lies beside the policy, wherever that is.
            writes=[*dict.fromkeys([self.path, Path(site.policy).parent])],
            reads=[Path(site.prompts)],
            keys=keys,
            reach=[*addresses_of(filter(None, places)), *resolvers()],
            memory=memory,
        )
