"""The doctor's visits to a node: before it starts, and every hour while it runs.

What is yellow or red goes to the site's log. What does not follow from prompts is kept in the
node's own folder besides, for the site's ``fedgrpo status``. Nothing is ever said to a server, and
no answer of the node depends on it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from fedgrpo.federation.deployment.doctor.examine import Examined, examine
from fedgrpo.federation.deployment.doctor.finding import Finding
from fedgrpo.federation.deployment.doctor.registry import as_json
from fedgrpo.federation.deployment.doctor.surroundings import Moment, Surroundings
from fedgrpo.federation.deployment.log import log_to_stderr
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.ground.errors import PolicyError, RunError
from fedgrpo.ground.files import replace_file
from fedgrpo.site.node_folder import FINDINGS
from fedgrpo.site.site import site_of

LOG = logging.getLogger(__name__)

_WAITS = "after-others"


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
    """Have a look at a node that runs, whose file comes on standard input as a line of JSON."""
    site = SiteFile(**json.loads(sys.stdin.readline()))
    log_to_stderr()
    visit(Surroundings(site, moment=Moment.HOURLY))
    _add_up(site)


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
        if not finding.is_good and finding.code != _WAITS:
            told = {"code": finding.code, "cure": finding.cure}
            LOG.warning("%s: %s", finding.light, finding.line, extra=told)
    _keep(here, examined)
    return found


def _keep(here: Surroundings, examined: Sequence[Examined]) -> None:
    folder = here.folder
    if not folder or not folder.is_dir():
        return
    told = [as_json(e.check, f) for e in examined if not e.check.private for f in e.findings]
    hello = here.line.hello if here.line else None
    said = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "drift_s": round(hello.drift_s, 3) if hello else None,
        "findings": told,
    }
    try:
        content = json.dumps(said, indent=1).encode()
        replace_file(folder / FINDINGS, content, mode=0o600)
    except OSError as error:
        code, kind = {"code": "visit-unkept"}, type(error).__name__
        LOG.warning("the doctor's findings cannot be kept: %s", kind, extra=code)


if __name__ == "__main__":
    main()
