"""``fedgrpo join`` and ``leave``: a site comes into a federation, and goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedgrpo.cli.outcome import explained
from fedgrpo.ground.errors import DataError, InvitationError, RunError, SettingsError

if TYPE_CHECKING:
    from fedgrpo.federation.deployment.invitation.invitation import Invitation
    from fedgrpo.federation.deployment.site.joining.site_folder import SiteFolder
    from fedgrpo.federation.deployment.site.site_file import SiteFile
    from fedgrpo.settings import Scalar, Settings

NOT_ACCEPTED = "nothing was sent, and nobody was told"


def join(  # noqa: PLR0913 - Typer makes an option of each argument.
    invitation: Annotated[
        str,
        typer.Argument(help="The operator's file, or the line, in quotes.", show_default=False),
    ],
    *,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="This site's prompts: a file or folder.  [default: those of its site.toml]",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The agreed model on this machine.  [default: where the settings name it]",
            show_default=False,
        ),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="File of an agreed reward here: rewards.py:correct=/opt/rewards.py. May be "
            "repeated.  [default: the settings' own, where you are]",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            help="What columns are called in the prompts: prompt=question,answer=key.",
            show_default=False,
        ),
    ] = "",
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
    despite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="Join although the doctor finds this. May be repeated.",
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

    The doctor looks first. The node's key is made here and never leaves; a policy is proposed that
    allows exactly what was agreed, and nothing of this site is sent before somebody has said yes.
    Run again it repairs what is missing.
    """
    with explained():
        from fedgrpo.cli.site.first_look import look_first
        from fedgrpo.federation.deployment.invitation.fingerprint import heard
        from fedgrpo.federation.deployment.invitation.invitation import Invitation
        from fedgrpo.federation.deployment.site.joining.site_folder import SiteFolder
        from fedgrpo.federation.rehearsal import accepting

        accepted = tuple(map(heard, accept or ()))
        read = Invitation.read(invitation)
        folder = SiteFolder((directory or Path(read.site)).expanduser().absolute())
        settings = _checked(read, joined_before=folder.key.exists())
        _compare(read, accepted)
        told = _told(folder, settings, prompts, model, reward or [], columns, listen)
        made = folder.planned(read, told | _there(folder, policy))
        _check_prompts(made)
        look_first(read, settings, made.node_config, _not_asked(folder, made, despite or []))
        folder = SiteFolder.of(folder.path)
        if account:
            folder.take_account(account)
        if member or folder.member_key.exists():
            made = _member(folder, made, settings)
        made = _policy(folder, settings, made, read, accepted)
        folder.agreed.write_text(read.settings)
        _enrol(folder, read)
        memory = accepting.most_memory(Path(made.policy), settings, made.node_config)
        folder.write_site_file(read, made, memory=memory)
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


def _told(
    folder: SiteFolder,
    settings: Settings,
    prompts: Path | None,
    model: Path | None,
    rewards: list[str],
    columns: str,
    listen: str,
) -> dict[str, object]:
    """Keys of site.toml that somebody has told now. Files of rewards that lie where this is run are
    named by their full paths, so that the node finds them wherever it is started.
    """
    from fedgrpo.settings.sections.table import read_table, to_text

    before = folder.site_file_before()
    kept = before.rewards if before else {}
    try:
        named = {name: str(to) for name, to in read_table(str(to_text(columns))).items()}
    except ValueError as error:
        raise SettingsError(f"--columns {columns!r} {error}", cure="write a=b,c=d") from None
    found = {
        "prompts": str(prompts.expanduser().absolute()) if prompts else "",
        "models": {settings.model.name: str(model.expanduser().absolute())} if model else {},
        "rewards": {**_lying_here(settings), **kept, **_told_rewards(settings, rewards)},
        "columns": named,
        "committee_listen": listen,
    }
    return {key: value for key, value in found.items() if value}


def _lying_here(settings: Settings) -> dict[str, str]:
    """Files of rewards that the settings name and that lie where this is run, by their names."""
    from fedgrpo.site.places import reward_file, reward_key

    files = {reward_key(name): reward_file(name, {}) for name in settings.reward.functions}
    return {key: str(file.absolute()) for key, file in files.items() if file and file.is_file()}


def _told_rewards(settings: Settings, rewards: list[str]) -> dict[str, str]:
    from fedgrpo.site.places import reward_key

    known, found = [*filter(None, map(reward_key, settings.reward.functions))], {}
    for pair in rewards:
        name, equals, place = pair.partition("=")
        if not equals or name not in known:
            raise SettingsError(
                f"--reward {pair!r} is no NAME=FILE of a reward of the settings",
                cure=f"rewards of modules or files there: {', '.join(known) or 'none'}",
            )
        found[name] = str(Path(place).expanduser().absolute())
    return found


def _there(folder: SiteFolder, given: Path | None) -> dict[str, object]:
    """Keys of site.toml for what is there: a policy, and a member's keys."""
    if given and not given.exists():
        raise DataError(f"{given} does not exist", cure="name your policy: --policy FILE")
    policy = given or (folder.policy if folder.policy.exists() else None)
    found = {"policy": policy, "committee_key": folder.member_key}
    return {key: str(file.absolute()) for key, file in found.items() if file and file.exists()}


def _check_prompts(made: SiteFile) -> None:
    if not made.prompts or not Path(made.prompts).exists():
        what = f"{made.prompts} does not exist" if made.prompts else "no prompts are named"
        raise DataError(what, cure="name your prompts: --prompts FILE")


def _not_asked(folder: SiteFolder, made: SiteFile, despite: list[str]) -> set[str]:
    """Codes of findings that do not stop this join."""
    from fedgrpo.cli.site.first_look import ASKED_LATER, JOINED_BEFORE

    before = JOINED_BEFORE if folder.key.exists() else frozenset[str]()
    own = ASKED_LATER if made.policy == str(folder.policy) else frozenset[str]()
    return {*despite, *before, *own}


def _checked(invitation: Invitation, *, joined_before: bool) -> Settings:
    """The settings of an invitation that can be used here and now. Whether one that has expired was
    used before is the server's to say.
    """
    import time

    from fedgrpo.federation.wire.versions import VERSION

    invitation.check(0.0 if joined_before else time.time(), VERSION)
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
    made: SiteFile,
    invitation: Invitation,
    accepted: tuple[str, ...],
) -> SiteFile:
    """The site's file with a policy that somebody has accepted, and that lets the run be answered
    with these prompts.
    """
    from fedgrpo.federation.rehearsal import accepting
    from fedgrpo.site import Site
    from fedgrpo.site.site import find_policy

    # Settings that were agreed before may be those of a run that is under way, and half paid for.
    whole_run = not folder.agreed.exists() or folder.agreed.read_text() != invitation.settings
    config, ready = made.node_config, find_policy(made.node_config)
    # Another one is proposed only where its account goes on.
    own = ready == folder.policy and Site.open(ready).spending.path == folder.account
    if ready and not (own and accepting.stale(ready, settings, config, whole_run=whole_run)):
        typer.echo(f"policy {ready} is taken as it is")
    else:
        ready = _accepted_proposal(folder, settings, config, accepted)
        whole_run = True
    accepting.accept(ready.absolute(), settings, config, whole_run=whole_run)
    return made.model_copy(update={"policy": str(ready.absolute())})


def _accepted_proposal(
    folder: SiteFolder,
    settings: Settings,
    config: Mapping[str, Scalar],
    accepted: tuple[str, ...],
) -> Path:
    """Propose a policy for what was agreed, in the place of one that would refuse it, and have it
    accepted.
    """
    from fedgrpo.federation.deployment.invitation.fingerprint import fingerprint
    from fedgrpo.federation.rehearsal import accepting
    from fedgrpo.site import Site, SpendingFile, explain

    if folder.policy.exists():
        typer.echo(f"policy {folder.policy} would refuse what is agreed now; proposed instead:")
    counted = SpendingFile(folder.account).read().counted
    if not accepting.proposed_for(folder.proposal, settings, config):
        typer.echo("looking at the prompts, and at how long an order takes here ...")
        accepting.write_proposal(folder.proposal, settings, config, counted)
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
    if folder.policy.exists():
        folder.policy.replace(folder.former_policy)
    return folder.proposal.rename(folder.policy)


def _yes(question: str, fingerprint: str, accepted: tuple[str, ...]) -> bool:
    if fingerprint in accepted:
        return True
    typer.echo(f"{question} [y/N] ", nl=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _member(folder: SiteFolder, made: SiteFile, settings: Settings) -> SiteFile:
    """The site's file with a member's keys, which are drawn once.

    Raises
    ------
    RunError
        If the settings list a committee, and not these keys.
    """
    from fedgrpo.cli.site.committee_key import kept_line
    from fedgrpo.settings.protocols.committee.members import keys_of
    from fedgrpo.site import fingerprint

    line = kept_line(folder.member_key)
    at = f"@{made.committee_listen}" if made.committee_listen else ""
    typer.echo(f"this member's line, for the operator and the other sites:\n{line}{at}")
    typer.echo(f"its fingerprint:  {fingerprint(line)}")
    listed = keys_of(settings)
    if listed and line not in listed:
        raise RunError(
            f"the settings of the invitation list a committee without this member, whose keys "
            f"{folder.member_key} has; {NOT_ACCEPTED}",
            cure="send the operator this line, and join with an invitation whose settings list it; "
            f"or, if this site is to be no member, move {folder.member_key} away",
        )
    return made.model_copy(update={"committee_key": str(folder.member_key)})


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
