"""``fedgrpo join`` and ``leave``: a site comes into a federation, and goes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedgrpo.cli.outcome import explained
from fedgrpo.ground.errors import DataError, InvitationError, RunError

if TYPE_CHECKING:
    from fedgrpo.federation.deployment.invitation.invitation import Invitation
    from fedgrpo.federation.deployment.site.joining.site_folder import SiteFolder
    from fedgrpo.settings import Settings

NOT_ACCEPTED = "nothing was sent, and nobody was told"


def join(  # noqa: PLR0913 - Typer makes an option of each argument.
    invitation: Annotated[
        str,
        typer.Argument(help="The operator's file, or the line, in quotes.", show_default=False),
    ],
    *,
    prompts: Annotated[
        Path, typer.Option(help="This site's prompts: a file or folder.", show_default=False)
    ],
    directory: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the site: key, policy, account.  [default: the site's name]",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="A policy that is ready.  [default: one that allows what was agreed]",
            show_default=False,
        ),
    ] = None,
    account: Annotated[
        Path | None,
        typer.Option(
            help="The spent.jsonl of the machine that was this site before.", show_default=False
        ),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FINGERPRINT",
            help="Answer yes in advance, to the invitation or to the policy of this fingerprint. "
            "May be repeated.",
            show_default=False,
        ),
    ] = None,
    member: Annotated[
        bool, typer.Option("--member", help="Make the keys of a committee's member, too.")
    ] = False,
    listen: Annotated[
        str,
        typer.Option(help="Where the member listens: 0.0.0.0:7443.", show_default=False),
    ] = "",
    start: Annotated[
        bool, typer.Option(help="Go on as this site's node, as 'fedgrpo node' does.")
    ] = True,
) -> None:
    """Join a federation with an operator's invitation.

    The node's key is made here and never leaves; a policy is proposed that allows exactly what was
    agreed, and nothing is sent before somebody has said yes. Run again it repairs what is missing.
    """
    with explained():
        from fedgrpo.federation.deployment.invitation.fingerprint import heard
        from fedgrpo.federation.deployment.invitation.invitation import Invitation
        from fedgrpo.federation.deployment.site.joining.site_folder import SiteFolder

        accepted = tuple(map(heard, accept or ()))
        read = Invitation.read(invitation)
        settings = _checked(read)
        _compare(read, accepted)
        if not prompts.exists():
            raise DataError(f"{prompts} does not exist", cure="name your prompts: --prompts FILE")
        folder = SiteFolder.of(directory or Path(read.site))
        if account:
            folder.take_account(account)
        chosen = _policy(folder, settings, prompts.absolute(), policy, accepted)
        if member:
            _member(folder)
        folder.agreed.write_text(read.settings)
        _enrol(folder, read)
        from fedgrpo.federation.rehearsal import accepting

        folder.write_site_file(
            read,
            prompts.absolute(),
            chosen,
            member=member,
            listen=listen,
            memory=accepting.most_memory(chosen, settings),
        )
        typer.echo(f"joined as {read.site}; the next round will ask this machine")
        typer.echo(f"its node is started by: fedgrpo node {folder.site_file}")
        typer.echo(f"or as a service, by root: systemctl enable --now {folder.service}")
        typer.echo(
            "or without root: loginctl enable-linger; systemctl --user enable --now "
            f"{folder.user_service}"
        )
        if start:
            # In the place of this process, which has loaded a model to try it.
            command = [sys.executable, "-m", "fedgrpo.cli.app", "node", str(folder.site_file)]
            sys.stdout.flush()
            os.execv(command[0], command)


def _checked(invitation: Invitation) -> Settings:
    """The settings of an invitation that can be used here and now."""
    import time

    from fedgrpo.federation.wire.versions import VERSION

    invitation.check(time.time(), VERSION)
    return invitation.agreed()


def _compare(invitation: Invitation, accepted: tuple[str, ...]) -> None:
    typer.echo(f"invitation of {invitation.site} to {invitation.server}")
    typer.echo(f"its fingerprint:  {invitation.fingerprint}")
    if not _yes("Is this what the operator reads to you?", invitation.fingerprint, accepted):
        raise InvitationError(
            f"the invitation is not accepted; {NOT_ACCEPTED}",
            cure="telephone the operator, compare the fingerprint, and join again (or with "
            f"--accept {invitation.fingerprint}); if it differs, do not use the invitation",
        )


def _policy(
    folder: SiteFolder,
    settings: Settings,
    prompts: Path,
    given: Path | None,
    accepted: tuple[str, ...],
) -> Path:
    """A policy that somebody has accepted, and that lets the run be answered with these prompts."""
    from fedgrpo.federation.deployment.invitation.fingerprint import fingerprint
    from fedgrpo.federation.rehearsal import accepting
    from fedgrpo.site import Site, explain
    from fedgrpo.site.site import POLICY_FILE

    places = (folder.policy, prompts.with_name(POLICY_FILE))
    ready = given or next((place for place in places if place.exists()), None)
    if ready:
        typer.echo(f"policy {ready} is taken as it is")
        accepting.accept(ready.absolute(), settings, str(prompts), folder.state)
        return ready.absolute()
    if not folder.proposal.exists() or accepting.stale(folder.proposal, settings):
        typer.echo("looking at the prompts, and at how long an order takes here ...")
        accepting.write_proposal(folder.proposal, settings, str(prompts))
    site = Site.open(folder.proposal)
    typer.echo(explain(site.policy, site.spending.read().counted))
    mark = fingerprint(folder.proposal.read_bytes())
    typer.echo(f"policy {folder.proposal}, fingerprint {mark}")
    if not _yes("Shall this be allowed, and no more?", mark, accepted):
        raise RunError(
            f"the policy is not accepted; {NOT_ACCEPTED}",
            cure=f"let whoever answers for the prompts read it, and join again (or with --accept "
            f"{mark}); or write your own: --policy FILE",
        )
    folder.proposal.rename(folder.policy)
    accepting.accept(folder.policy, settings, str(prompts), folder.state)
    return folder.policy


def _yes(question: str, fingerprint: str, accepted: tuple[str, ...]) -> bool:
    if fingerprint in accepted:
        return True
    typer.echo(f"{question} [y/N] ", nl=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _member(folder: SiteFolder) -> None:
    from fedgrpo.cli.site.committee_key import kept_line
    from fedgrpo.site import fingerprint

    line = kept_line(folder.member_key)
    typer.echo(f"this member's line, for the operator and the other sites:\n{line}")
    typer.echo(f"its fingerprint:  {fingerprint(line)}")


def _enrol(folder: SiteFolder, invitation: Invitation) -> None:
    """Have the node's key let in, and wait for the operator's confirmation."""
    from fedgrpo.federation.deployment.site.joining import asking

    folder.kept_node_key()
    root = folder.write_root(invitation)
    said = asking.ask_in(invitation, root, folder.key)
    mark = asking.key_fingerprint(folder.key)
    if said.before:
        typer.echo(
            f"a machine of the name {invitation.site} took part before. What it spent with these "
            "prompts counts only if its account is here: join once with --account OLD/spent.jsonl"
        )
    if not said.confirmed:
        typer.echo(f"the key of this machine:  {mark}")
        typer.echo("Read this to the operator, who types:")
        typer.echo(f"    fedgrpo sites --confirm {invitation.site} {mark}")
        typer.echo("waiting for that (Ctrl-C ends it; the same command goes on) ...")
    for _ in asking.until_confirmed(invitation.server, root, folder.key):
        pass


def leave(
    directory: Annotated[
        Path, typer.Argument(help="Folder of the site, with its site.toml.")
    ] = Path("."),
) -> None:
    """Leave a federation: the server lets this site's key in no more. Account and policy stay."""
    with explained():
        from fedgrpo.federation.deployment.site.joining import asking
        from fedgrpo.federation.deployment.site.joining.site_folder import SITE_FILE
        from fedgrpo.federation.deployment.site.site_file import SiteFile

        site = SiteFile.read(directory / SITE_FILE)
        asking.leave(site.server, Path(site.ca), Path(site.key))
        key = Path(site.key)
        key.rename(key.with_name(f"{key.name}.left"))
        typer.echo("left: the server lets this site's key in no more. End its node where it runs.")
        typer.echo(
            f"keep for good:  {site.policy}, and the account beside it: what the prompts cost"
        )
        typer.echo(f"keep until the run is over:  {site.state}")
        typer.echo(f"may be deleted:  {key}.left, {site.ca}, {directory / SITE_FILE}")
