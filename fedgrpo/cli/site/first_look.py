"""The doctor's checks before a site joins: what is red stops it, and what is yellow is told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import typer

from fedgrpo.ground.errors import RunError

if TYPE_CHECKING:
    from fedgrpo.federation.deployment.doctor.finding import Finding
    from fedgrpo.federation.deployment.invitation.invitation import Invitation
    from fedgrpo.settings import Scalar, Settings

JOINED_BEFORE = frozenset({"invitation-used", "invitation-expired", "invitation-ends"})
"""What the server decides by the key of a site that has joined before."""
ASKED_LATER = frozenset({"policy-forbids", "account-spent", "account-nearly"})
"""What is said where the site's own policy is held against the run, and another one is proposed."""


def look_first(
    invitation: Invitation,
    settings: Settings,
    config: Mapping[str, Scalar],
    despite: Collection[str],
) -> None:
    """Make every check that needs no key of this site, and tell what a person should know.

    Nothing is written, and the server is greeted.

    Parameters
    ----------
    invitation, settings:
        That somebody has accepted, and its settings.
    config:
        What the node's own is to be.
    despite:
        Codes of findings that do not stop this.

    Raises
    ------
    RunError
        If something is red.
    """
    from fedgrpo.federation.deployment.doctor.examine import examine
    from fedgrpo.federation.deployment.doctor.registry import CHECKS
    from fedgrpo.federation.deployment.doctor.surroundings import Surroundings

    typer.echo(f"looking at this machine: {len(CHECKS)} checks ...")
    found = [
        finding
        for each in examine(Surroundings(invitation, config, settings))
        for finding in each.findings
    ]
    for finding in found:
        if not (finding.is_good or finding.waits or finding.code in despite):
            typer.echo(
                f"{finding.light}: {finding.line} [{finding.code}]\n    cure: {finding.cure}"
            )
    if red := sorted({f.code for f in found if _stops(f, despite)}):
        raise RunError(
            f"this machine cannot take part yet, see above: {', '.join(red)}; the server was "
            "greeted, and nothing else was sent, or written",
            cure="mend what is red, and join again; if you know better, with --despite CODE",
        )


def _stops(finding: Finding, despite: Collection[str]) -> bool:
    return finding.light == "red" and finding.code not in despite
