"""Everything that can be wrong on a site's machine, once: what is said of it, and the cure.

The texts of the doctor's findings come from here, and so does docs/troubleshooting.md: ``python -m
tests.troubleshooting_page``. A word in braces stands for a value, which the check fills in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Light(StrEnum):
    """How bad it is."""

    GREEN = "green"
    YELLOW = "yellow"
    """The node runs, and a person should look."""
    RED = "red"
    """It does not run, or takes part in nothing."""


@dataclass(frozen=True)
class Trouble:
    """One thing that can be wrong.

    Attributes
    ----------
    light:
        Yellow or red.
    problem, cure:
        Texts with braces for values.
    stops:
        Whether a node does not start while it is so.
    about:
        What it is about, where problem and cure are those of an error.
    """

    light: Light
    problem: str
    cure: str
    stops: bool = False
    about: str = ""


def _red(problem: str, cure: str) -> Trouble:
    return Trouble(Light.RED, problem, cure)


def _stops(problem: str, cure: str) -> Trouble:
    return Trouble(Light.RED, problem, cure, stops=True)


def _said(about: str, *, stops: bool = False) -> Trouble:
    """Red, in the words of an error."""
    return Trouble(Light.RED, "{problem}", "{cure}", stops, about)


def _yellow(problem: str, cure: str) -> Trouble:
    return Trouble(Light.YELLOW, problem, cure)


_TELEPHONE = (
    "do not go on. Ask the operator, by telephone, whether the SHA-256 above is that of the "
    "server's certificate. If it is not, a proxy that opens TLS stands in between, or an impostor: "
    "ask your network's people to let {host} through unopened"
)

_MOVED = (
    "If the server has moved, have this site invited again (fedgrpo invite SITE --again): 'fedgrpo "
    "join' with that invitation mends it, and keeps key, policy and account"
)

_Group = dict[str, Trouble]

_ANY: _Group = {
    "after-others": _yellow("not looked at: {why}", "mend that first, and run this again"),
    "settings-unknown": _yellow(
        "which settings were agreed is not known here, so neither prompts nor model nor reward "
        "were tried with them",
        "name the file that was agreed: fedgrpo doctor site.toml --settings agreed.toml",
    ),
    "look-died": _red(
        "the process that looked at prompts, model and reward ended: {why}",
        "if it was killed for memory, see check 14; else try 'fedgrpo dry-run SETTINGS --prompts "
        "FILE', which says more",
    ),
    "unforeseen": _red(
        "this check itself failed: {kind}",
        "this is a bug in fedgrpo: report it, with what 'fedgrpo --version' says",
    ),
    "refused": _said("anything that fedgrpo refuses for a reason of its own"),
}
_VERSIONS: _Group = {
    "python-version": _red(
        "Python {found} is older than {needed}", "install fedgrpo again under Python {needed}"
    ),
    "flower-version": _stops(
        "Flower {found} is installed, and this fedgrpo needs flwr {needed}",
        "pip install 'flwr{needed}'",
    ),
    "fedgrpo-version": _stops(
        "fedgrpo {found}, protocol {protocol}, is installed here; the federation runs {theirs}",
        "install the version of the federation, from the wheel that the operator names: end the "
        "node, pip install FILE.whl, start it again",
    ),
}
_NAME: _Group = {
    "name-unknown": _red(
        "the server's name {host} has no address here: {why}",
        "see whether the name is the operator's (a typing error?); if it is, ask your network's "
        "people for DNS ('getent hosts {host}' must print an address). " + _MOVED,
    ),
}
_PORT: _Group = {
    "port-refused": _red(
        "nobody listens at {address}, port {port}: {why}",
        "ask the operator whether the server is up, and whether its port is {port}. " + _MOVED,
    ),
    "port-blocked": _red(
        "{address}, port {port}, does not answer: {why}",
        "a firewall is in between, most likely yours: have it let this machine reach TCP {address} "
        "port {port} (outbound); docs/network.md has lines to copy",
    ),
}
_CERTIFICATE: _Group = {
    "certificate-foreign": _red(
        "the server's certificate is not one of this federation: it was issued by {issuer}, "
        "SHA-256 {digest}",
        _TELEPHONE,
    ),
    "certificate-name": _red(
        "the server's certificate is for {names}, not for {host}",
        "reach it by a name that the certificate has, or ask the operator for one with {host}. "
        + _MOVED,
    ),
    "certificate-expired": _red(
        "the server's certificate ended at {when}",
        "tell the operator: 'fedgrpo server renew'. If the date is in the future, this machine's "
        "clock is wrong: timedatectl set-ntp true",
    ),
    "certificate-early": _red(
        "the server's certificate begins at {when}, and here it is {now}",
        "this machine's clock is slow: timedatectl set-ntp true",
    ),
    "certificate-ends": _yellow(
        "the server's certificate ends in {days} days, at {when}",
        "remind the operator: 'fedgrpo server renew'",
    ),
    "tls-version": _red(
        "the server, or what stands before it, does not speak TLS 1.3: {why}",
        "check host and port; a proxy that opens TLS may stand in between",
    ),
    "ca-unreadable": _stops(
        "the root certificate {file} cannot be used: {why}",
        "put the file there that came from the operator (ca = ... in site.toml)",
    ),
}
_SERVER: _Group = {
    "plain-text": _red(
        "what listens at {address}, port {port}, speaks without TLS",
        "check the port: fedgrpo's own is 8443 unless the operator chose another one",
    ),
    "not-fedgrpo": _red(
        "what listens at {host}, port {port}, is no fedgrpo server: {why}",
        "check host and port with the operator; a proxy's error page looks like this, too",
    ),
    "server-unwell": _red(
        "the server is there and cannot serve: {why}",
        "tell the operator; nothing is wrong here",
    ),
}
_CLOCK: _Group = {
    "clock-fast": _stops(
        "this machine's clock is {seconds} s fast; a node more than {most} s fast is refused",
        "timedatectl set-ntp true; where that is not possible: date -s with the right time",
    ),
    "clock-slow": _stops(
        "this machine's clock is {seconds} s slow; a node more than {most} s slow is refused",
        "timedatectl set-ntp true; where that is not possible: date -s with the right time",
    ),
    "clock-drifts": _yellow(
        "this machine's clock is {seconds} s {way}, and drifts",
        "switch time synchronisation on, before a node is refused: timedatectl set-ntp true",
    ),
}
_KEY: _Group = {
    "key-unusable": _said(
        "a node key that is not there, cannot be read, or is of a kind that Flower does not take",
        stops=True,
    ),
    "key-mode": _stops("others than its owner may read node key {file}", "chmod 600 {file}"),
    "key-unregistered": _red(
        "the server does not know this node's key: {why}",
        "ask the operator to confirm it, or to register {file}.pub; a key that was revoked needs a "
        "new invitation",
    ),
    "key-waits": _red("{why}", "read the operator this fingerprint over the telephone"),
    "key-refused": Trouble(
        Light.RED,
        "the server refuses this node: {why}",
        "{cure}",
        about="a server that refuses this node for another reason",
    ),
    "node-believed": _yellow(
        "the server still counts on a node with this key, for {seconds} s more, and none runs here",
        "if one was killed here, wait: the new one is let in then. If none was, the key is in use "
        "on another machine: end that node",
    ),
}
_INVITATION: _Group = {
    "invitation-invalid": _said("an invitation that cannot be read, or was changed on its way"),
    "site-file-invalid": _said("a site.toml that cannot be read", stops=True),
    "server-unnamed": _stops(
        "server = {server!r} is no HOST:PORT", "write server = 'fed.example:8443' in site.toml"
    ),
    "invitation-expired": _red(
        "the invitation ended at {when}",
        "ask the operator for a new one: fedgrpo invite {site} --again",
    ),
    "invitation-ends": _yellow("the invitation ends at {when}", "join before that"),
    "invitation-used": _red(
        "this invitation cannot be used: {why}",
        "if this site joined with it, all is well: look at site.toml instead. If it did not, "
        "telephone the operator: somebody else did",
    ),
}
_PROMPTS: _Group = {
    "prompts-unreadable": _said("prompts that cannot be read at all", stops=True),
    "prompts-unchecked": _said(
        "prompts that were never checked, or have changed since", stops=True
    ),
    "rows-unusable": _red("{rows} rows cannot be used: each {why}", "mend or remove them"),
    "column-lacking": _said("a column that a reward needs and no prompt has"),
    "units-undeclared": _red(
        "there are {units} units, and the policy says prompts_declared = {declared}",
        "write prompts_declared = {proposed} into the policy",
    ),
    "units-few": _red(
        "there are {units} units, fewer than the federation's data.min_prompts = {least}",
        "bring more prompts, or agree on a smaller data.min_prompts with the operator",
    ),
    "prompts-long": _yellow(
        "{rows} rows are longer than {tokens} tokens and will contribute nothing",
        "shorten them, or agree on a larger longest_prompt_tokens and grpo.max_prompt_length",
    ),
    "prompts-copies": _yellow(
        "{rows} rows are exact copies of others",
        "remove them: copies of a text are one unit together and count once",
    ),
}
_POLICY: _Group = {
    "policy-missing": _stops(
        "this site has no policy, so its node would refuse every order",
        "put a policy.toml beside the prompts, or name it in site.toml (policy = ...): copy "
        "clients/policy.toml, then 'fedgrpo policy explain policy.toml'",
    ),
    "policy-unreadable": _said("a policy file that cannot be read", stops=True),
    "policy-forbids": _red(
        "the policy would refuse the federation's settings, {refusal}: {problem}",
        "if your people agree to that, allow it in the policy; else ask the operator: {theirs}",
    ),
    "account-spent": _red(
        "the account pays for {left} of {rounds} rounds: {why}",
        "raise the policy's limits if your people agree to it, or take part in fewer rounds",
    ),
    "account-nearly": _yellow(
        "the account pays for {left} of {rounds} rounds: {why}",
        "the node will refuse after them; raise the policy's limits if your people agree to it",
    ),
    "hours-closed": _yellow(
        "the policy answers between {hours}, and it is {now}: orders are refused now",
        "agree with the operator on rounds within these hours, or change hours in the policy",
    ),
}
_STATE: _Group = {
    "account-broken": _stops(
        "the account cannot be read: {why}",
        "put the file back from the last backup. Without it the account begins anew, and the "
        "privacy that was promised does not hold",
    ),
    "account-torn": _yellow(
        "the account's last line was torn by a crash, and counts as the dearest release",
        "nothing: the next release mends it. If it comes again, look at the disk",
    ),
    "folder-foreign": _stops(
        "{folder} belongs to another user of this machine",
        "name a folder of this user in site.toml (state = ...), or: chown -R USER {folder}",
    ),
    "folder-unwritable": _stops(
        "{folder} cannot be written to",
        "let the user of this node write there, or name another folder in site.toml (state = ...)",
    ),
    "folder-open": _yellow(
        "others may look into {folder} (mode {mode})",
        "chmod 700 {folder}; the node narrows it itself when it starts",
    ),
    "folder-volatile": _red(
        "{folder} is on {kind}, which is empty after a restart",
        "name a folder on a disk in site.toml (state = ...): without it releases are charged again",
    ),
    "folder-layer": _yellow(
        "{folder} is in the container's own layer, which goes with the container",
        "mount a volume there",
    ),
    "node-twice": _stops(
        "another fedgrpo node runs here with {folder}, as process {process}",
        "end that one, or leave this one: one node a folder",
    ),
}
_MODEL: _Group = {
    "model-unusable": _said(
        "a model that is not on this machine, not whole, or brings code or weights that can hold it"
    ),
}
_REWARD: _Group = {
    "reward-unread": _yellow(
        "reward {names} is code of a module or a file, and no policy here allows it, so it was "
        "not tried",
        "read it; if your people agree to it, write it into the policy (rewards = [...]) and run "
        "this again with site.toml",
    ),
    "reward-broken": _said("a reward that cannot be loaded, or did not return a number"),
    "reward-slow": _yellow(
        "reward {name} takes {seconds} s for one prompt's completions",
        "make it quicker: it counts against the policy's answer_after_s",
    ),
}
_MEMORY: _Group = {
    "memory-short": _said("a round that would not fit into memory"),
    "memory-tight": _yellow(
        "a round may take {peak} GiB at its peak, within a factor of {times}, and {free} GiB are "
        "free",
        "free memory, or agree on a smaller grpo.tokens_per_batch or grpo.max_completion_length",
    ),
    "gpu-missing": _said("a GPU that the settings ask for and this machine has not"),
}
_DISK: _Group = {
    "disk-full": _stops(
        "{free} MiB are free where {what} lies, {folder}; {needed} MiB are needed",
        "make room: a node that cannot write its account refuses every order",
    ),
    "disk-nearly": _yellow(
        "{free} MiB are free where {what} lies, {folder}", "make room before it is full"
    ),
}
_PROCESSORS: _Group = {
    "threads-many": _red(
        "threads = {threads} in site.toml, and this machine or its container gives {cores}",
        "write threads = {cores}, or leave it out: more threads than cores take several times as "
        "long",
    ),
    "quota-small": _yellow(
        "this container may use {quota} cores",
        "give it a whole one at least, or orders take long",
    ),
}
_OWN_PORT: _Group = {
    "port-taken": _red(
        "port {port} at {host}, where this member listens, is taken",
        "end who listens there ('ss -ltnp sport = :{port}' shows it), or name another one "
        "(committee_listen in site.toml)",
    ),
    "address-foreign": _red(
        "{host} is no address of this machine: {why}",
        "write committee_listen = '0.0.0.0:{port}' in site.toml, and leave {host} to the settings",
    ),
}
_COMMITTEE: _Group = {
    "member-key": _said("a committee key that cannot be read, or that others may read", stops=True),
    "member-unlisted": _red(
        "this site's committee key {fingerprint} is none of those that the settings list",
        "send the operator the line that 'fedgrpo committee-key {file}' prints, or remove "
        "committee_key from site.toml",
    ),
    "member-deaf": _yellow(
        "this machine does not reach itself at {address}, where the settings say that it listens: "
        "{why}",
        "have the firewall pass TCP port {port} on to {listen}; where it only keeps a machine from "
        "dialling itself, ask another member to try",
    ),
    "member-unreached": _red(
        "committee member {member} at {address} cannot be reached: {why}",
        "have the firewall let this machine reach TCP {address} (outbound), and ask that member "
        "whether its own lets this site in",
    ),
}
_PROXY: _Group = {
    "proxy-breaks": _red(
        "{variable} sends what is for {host} through {proxy}, and the server cannot be reached "
        "that way: {why}",
        "add the host to NO_PROXY where the node is started: NO_PROXY={host}",
    ),
    "proxy-catches": _yellow(
        "{variable} sends what is for {host} through {proxy}",
        "if this is not meant, add the host to NO_PROXY where the node is started: NO_PROXY={host}",
    ),
}
_SERVICE: _Group = {
    "address-moved": _red(
        "{host} is {addresses} now, and the service may only speak to {allowed}",
        "run 'fedgrpo join' again, which writes the unit anew, or write the new address into "
        "IPAddressAllow= of {unit}; then: systemctl daemon-reload, and systemctl restart {unit}",
    ),
    "service-none": _yellow(
        "nothing starts this node again when the machine restarts or it ends",
        "as root: systemctl enable --now, and the unit that 'fedgrpo join' has written into the "
        "site's folder; without systemd, have 'fedgrpo node site.toml' run, and always again, also "
        "when it ends well",
    ),
    "service-disabled": _red(
        "service {unit} is not enabled: it does not start with the machine",
        "systemctl enable --now {unit}",
    ),
    "service-once": _red(
        "service {unit} has Restart={restart}: a node that ends well is not started again",
        "write Restart=always and RestartSec=15 into its unit, then: systemctl daemon-reload",
    ),
    "service-root": _red(
        "{what} runs as root",
        "let a user of its own run it (User= in the unit): a node needs no rights of root",
    ),
}
_REHEARSAL: _Group = {
    "rehearsal-failed": _said("a rehearsed round that failed"),
    "no-signal": _red(
        "in {share} of the groups every completion of a prompt has the same reward ({reward} on "
        "average): there is nothing to learn",
        "use easier prompts, a finer reward, or agree on a larger grpo.temperature or "
        "grpo.group_size",
    ),
    "round-long": _red(
        "an order takes up to {seconds} s here, and the policy's answer_after_s is {after}",
        "write answer_after_s = {proposed} into the policy, and have the operator set "
        "federation.round_timeout_s above it",
    ),
}

TROUBLES_OF: dict[int, _Group] = {
    0: _ANY,
    1: _VERSIONS,
    2: _NAME,
    3: _PORT,
    4: _CERTIFICATE,
    5: _SERVER,
    6: _CLOCK,
    7: _KEY,
    8: _INVITATION,
    9: _PROMPTS,
    10: _POLICY,
    11: _STATE,
    12: _MODEL,
    13: _REWARD,
    14: _MEMORY,
    15: _DISK,
    16: _PROCESSORS,
    17: _OWN_PORT,
    18: _COMMITTEE,
    19: _PROXY,
    20: _SERVICE,
    21: _REHEARSAL,
}
"""By the number of the check that finds it, and code; 0 is any check."""

TROUBLES = {code: trouble for group in TROUBLES_OF.values() for code, trouble in group.items()}
"""All of them by code."""

FLOWER_SAYS = {
    "SuperNode terminated gracefully.": (
        "nothing graceful: the server refused a signature, most often for this machine's clock",
        ("clock-fast", "clock-slow", "key-unregistered"),
    ),
    "[code: 2004] Failed to activate SuperNode.": (
        "the key is not registered, is in use elsewhere, or a node that was killed here is still "
        "believed to run, for a minute",
        ("node-believed", "key-unregistered"),
    ),
    "Connection attempt failed, retrying in ... seconds": (
        "any of seven causes, which Flower does not tell apart",
        ("name-unknown", "port-refused", "port-blocked", "certificate-name", "plain-text"),
    ),
    "SSL/TLS handshake error ... Exit Code: 305": (
        "the certificate is not one that ca in site.toml vouches for",
        ("certificate-foreign", "certificate-early", "certificate-expired"),
    ),
    "Exit Code: 302": ("a node key of another kind than ECDSA", ("key-unusable",)),
}
"""What Flower's own programs write into a site's log: what it means, and codes to look at."""
