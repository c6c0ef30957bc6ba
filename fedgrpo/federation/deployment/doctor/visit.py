"""The doctor's visits to a node: before it starts, and every hour while it runs. As a
process, it makes one visit.

What is yellow or red goes to the site's log. What does not follow from prompts is kept in the
node's own folder besides, for the site's ``fedgrpo status``. Nothing is ever said to a server, and
no answer of the node depends on it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedgrpo.federation.deployment.children import told_once
from fedgrpo.federation.deployment.doctor.examine import Examined, examine
from fedgrpo.federation.deployment.doctor.finding import Finding
from fedgrpo.federation.deployment.doctor.registry import as_json
from fedgrpo.federation.deployment.doctor.surroundings import Moment, Surroundings
from fedgrpo.federation.deployment.site.checks import check_app, check_site
from fedgrpo.federation.deployment.site.greeting import greet
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.ground.errors import FedGRPOError, PolicyError, RunError
from fedgrpo.ground.files import replace_file
from fedgrpo.site.node_folder import FINDINGS
from fedgrpo.site.site import site_of

LOG = logging.getLogger(__name__)


def before_start(site: SiteFile, *, no_policy: bool = False) -> None:
    """Have a look before a node starts; raises RunError with the first thing that must not be.

    Parameters
    ----------
    site:
        Of the node.
    no_policy:
        Whether it is meant to start without a policy.
    """
    for finding in visit(Surroundings(site, moment=Moment.START)):
        if finding.stops and not (no_policy and finding.code == "policy-missing"):
            raise RunError(f"{finding.line} [{finding.code}]", cure=finding.cure)


def main() -> None:
    """Do what came on standard input as a line of JSON: look at a node before its ``start``,
    ``greet`` its server, or look ``hourly``. What must not be is said as a line of JSON.
    """
    said = told_once()
    site = SiteFile(**said["site"])
    if said["what"] == Moment.HOURLY:
        visit(Surroundings(site, moment=Moment.HOURLY))
        _add_up(site)
        return
    try:
        if said["what"] == Moment.START:
            _check(site, no_policy=said["no_policy"])
        greet(site.server, Path(site.ca), Path(site.key))
        problem, cure = "", ""
    except FedGRPOError as error:
        problem, cure = error.problem, error.cure
    print(json.dumps({"problem": problem, "cure": cure} if problem else {}))


def _check(site: SiteFile, *, no_policy: bool) -> None:
    """Everything that must be right here; raises FedGRPOError if it is not."""
    check_site(site.node_config, no_policy=no_policy, own_app=site.own_app)
    check_app(site.app)
    before_start(site, no_policy=no_policy)


def _add_up(site: SiteFile) -> None:
    """Have the account's epsilon at hand for who only looks; this process ends soon."""
    with contextlib.suppress(PolicyError):
        if own := site_of(site.node_config):
            own.standing()


def visit(here: Surroundings) -> list[Finding]:
    """Make all checks that take no time, tell the site's log, and keep what may be kept."""
    examined = list(examine(here))
    found = [finding for each in examined for finding in each.findings]
    for finding in found:
        if not (finding.is_good or finding.waits):
            told = {"code": finding.code, "cure": finding.cure}
            LOG.warning("%s: %s", finding.light, finding.line, extra=told)
    _keep(here, examined)
    return found


def _keep(here: Surroundings, examined: Sequence[Examined]) -> None:
    folder = here.folder
    if not folder or not folder.is_dir():
        return
    public = [(e.check, f) for e in examined if not e.check.private for f in e.findings]
    hello = here.line.hello if here.line else None
    said = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "drift_s": round(hello.drift_s, 3) if hello else None,
        "findings": [as_json(check, f) for check, f in public if not f.waits],
    }
    try:
        content = json.dumps(said, indent=1).encode()
        replace_file(folder / FINDINGS, content, mode=0o600)
    except OSError as error:
        code, kind = {"code": "visit-unkept"}, type(error).__name__
        LOG.warning("the doctor's findings cannot be kept: %s", kind, extra=code)


if __name__ == "__main__":
    main()
