"""Everything that a log or a status says and somebody should act on, once: what it is, the cure.

What the doctor finds has codes of its own, in :mod:`fedgrpo.federation.deployment.doctor.troubles`,
and refusals in :mod:`fedgrpo.site.refusals`. docs/troubleshooting.md has all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Logged:
    """One kind of line.

    Attributes
    ----------
    about:
        What it means.
    cure:
        What to do.
    """

    about: str
    cure: str


ON_THE_SERVER: Mapping[str, Logged] = {
    "server-down": Logged(
        "nobody answers where the server should be",
        "start it: fedgrpo server FOLDER; its log says why it ended",
    ),
    "site-waits": Logged(
        "a site has joined, and takes no part before its key is confirmed",
        "have its people read the fingerprint of their key to you, then: fedgrpo sites --confirm "
        "SITE FINGERPRINT",
    ),
    "site-missing": Logged(
        "a site that takes part is not there",
        "ask its people for 'fedgrpo doctor site.toml', which says why",
    ),
    "site-version": Logged(
        "a site runs another version of fedgrpo, so its node does not start",
        "end the run first: it goes on only with its own code; then install one version everywhere",
    ),
    "node-dropped": Logged(
        "a round was closed without some nodes; the reasons, with their cures, stand in the line",
        "as the reasons say; 'fedgrpo status' has the sites' names",
    ),
    "round-skipped": Logged(
        "a round left the model as it was; after three in a row the run ends",
        "see to it that enough sites are there: fedgrpo status",
    ),
    "run-failed": Logged(
        "the run does not go on by itself", "mend that, then ask for it again: fedgrpo run"
    ),
    "run-unsubmitted": Logged(
        "the server could not begin the run, and tries again",
        "if it goes on, end the server and start it again",
    ),
    "book-waits": Logged(
        "a site was confirmed or revoked, and the SuperLink does not know yet",
        "wait a minute; if it goes on, start the server again",
    ),
    "certificate-soon": Logged(
        "the certificate that sites see ends within a month, or has ended",
        "fedgrpo server renew FOLDER, then start the server again",
    ),
    "disk-short": Logged(
        "less than a gigabyte is left where the server keeps its runs",
        "make room, or move old runs elsewhere",
    ),
    "picture-undrawn": Logged(
        "a run has ended well, and its picture could not be drawn", "fedgrpo report RUN"
    ),
    "member-unsigned": Logged(
        "a committee member does not vouch for the run's ledger",
        "compare copies of the ledger with that member: fedgrpo ledger verify",
    ),
}

AT_A_SITE: Mapping[str, Logged] = {
    "node-down": Logged("no node runs here", "start it: fedgrpo node site.toml, or its service"),
    "server-silent": Logged(
        "the node runs, and its server has not answered for longer than an answer takes",
        "fedgrpo doctor site.toml says how far the way leads",
    ),
    "server-refuses": Logged(
        "the server did not let the node in when that was tried last, or could not be reached; the "
        "line says why, in the server's words",
        "as the line says; fedgrpo doctor site.toml says how far the way leads",
    ),
    "contribution-lost": Logged(
        "some of a contribution, or all of it, went out as zero under the full noise",
        "fedgrpo policy spent policy.toml counts what went wrong, and fedgrpo doctor site.toml "
        "looks for the cause",
    ),
    "counts-lost": Logged(
        "what went wrong could not be counted beside the account",
        "see whether the disk is full: fedgrpo doctor site.toml",
    ),
    "model-died": Logged(
        "the model process ended by itself; the order is computed again if time allows",
        "code -9 is mostly a lack of memory: see check 14 of fedgrpo doctor site.toml",
    ),
    "model-unloaded": Logged(
        "others need this machine's memory, so the model is loaded again for each order",
        "give the node more memory, or others less",
    ),
    "order-long": Logged(
        "an order may take longer here than its answer may wait, and is refused",
        "nothing, if the machine was busy with something else; else raise answer_after_s as "
        "fedgrpo policy check proposes, or agree on less work a round",
    ),
    "member-gave-up": Logged(
        "this committee member has left a round; the next one is not affected",
        "compare the clocks and logs of the members if it goes on",
    ),
    "member-lost": Logged(
        "a committee goes on without one of its members",
        "ask that member's people for 'fedgrpo doctor site.toml'",
    ),
    "policy-none": Logged(
        "the node was started with --no-policy, and refuses every order",
        "join by an invitation, which proposes a policy",
    ),
    "bundle-unreadable": Logged(
        "the settings that came with a run cannot be read, and it is refused",
        "ask the operator to submit it by fedgrpo run, of the version that is installed here",
    ),
    "visit-unkept": Logged(
        "what the doctor found could not be written down for 'fedgrpo status'",
        "see whether the disk is full",
    ),
}

ANYWHERE: Mapping[str, Logged] = {
    "process-ended": Logged(
        "one of the processes ended and is started again",
        "nothing, if it happens once; else see what stands before this line",
    ),
    "process-slow": Logged("a process took too long and was ended", "see whether the disk answers"),
    "tasks-unanswered": Logged(
        "the executor got no answer where it asks for work, and asks again",
        "nothing, if it ends within a minute; else start the node or the server again",
    ),
    "app-failed": Logged(
        "the app that runs here, a tracker or a callback of yours raised an exception",
        "read the traceback; if it is of fedgrpo's own code it is a bug: report it, once you have "
        "looked that it quotes nothing private",
    ),
    "model-odd": Logged(
        "the model is used in a way that it may not be made for: longer texts than it knows, parts "
        "without an adapter, weights that nothing has a place for",
        "read which; agree on other settings or another model if that is not meant",
    ),
    "flower-unknown": Logged(
        "this version of Flower is not the one that fedgrpo was written for",
        "install fedgrpo again, with the versions that it asks for",
    ),
    "status-unbound": Logged(
        "the status page is not served: its port is taken, or the address is not this machine's",
        "end who listens there, or name another one as status_bind, then start again",
    ),
}

LOGGED: Mapping[str, Logged] = {**ON_THE_SERVER, **AT_A_SITE, **ANYWHERE}
"""All of them by code."""
