"""An operator and three sites get from nothing to a finished run by what the two pages say."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest
import typer

from fedgrpo.cli.app import app
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.ledger import FILE, RoundEntry, replay
from fedgrpo.report.reader import read_rows
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import read_scenario
from fedgrpo.site import Policy, SpendingFile
from tests.federation.deployed import PATIENCE_S, write_prompts
from tests.federation.deployment import pages
from tests.federation.deployment.operated import until
from tests.federation.deployment.terminal import Terminal, after
from tests.federation.deployment.watching import charges, check_log, page_of

SITES = ("hospital-a", "hospital-b", "hospital-c")
SMALL = """
[grpo]
prompts_per_step = 2
group_size = 2
max_completion_length = 4
[data]
min_prompts = 40
[privacy]
max_epsilon = 1e6
[evaluation]
prompts = 8
"""


def documented():
    return [*pages.commands(pages.OPERATOR), *pages.commands(pages.SITE)]


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_every_command_and_option_of_the_pages_is_there(words):
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name = words[0] if words[0] in command.commands else "start"
        command, words = command.commands[name], words[words[0] == name :]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_options_that_the_pages_name_in_tables_are_there():
    commands = typer.main.get_command(app).commands
    join = {o for p in commands["join"].params for o in (*p.opts, *p.secondary_opts)}
    table = pages.SITE.partition("| option of `join` | |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(--[a-z-]+)|`, `(--[a-z-]+)", table))
    assert {a or b for a, b in named} <= join


def test_the_settings_of_the_page_are_for_three_sites(tmp_path):
    file = tmp_path / "agreed.toml"
    file.write_text(pages.agreed())
    assert read_scenario(file, {}, tmp_path).federation.min_clients == len(SITES)
    file.write_text(pages.agreed() + SMALL)
    assert isinstance(read_scenario(file, {}, tmp_path), Settings)


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(3 * PATIENCE_S)
def test_from_nothing_to_a_finished_run(tmp_path):
    operator = Terminal(tmp_path / "operator", FEDGRPO_SERVER="federation")
    (operator.folder / "agreed.toml").write_text(
        pages.agreed().replace("rounds = 24", "rounds = 1") + SMALL
    )
    (port,) = free_ports(1)
    with ExitStack() as stack:
        init = pages.command(pages.OPERATOR, "server", "init")
        init[init.index("fed.example")] = "localhost"
        operator.run(*init, "--port", str(port))
        (watched,) = free_ports(1)
        change(operator.folder / "federation" / "federation.toml", "8450", str(watched))
        _, log = operator.start(stack, *pages.command(pages.OPERATOR, "server", "federation"))
        sites = [joined(stack, operator, tmp_path, site) for site in SITES]
        for (*_, said), site in zip(sites, SITES, strict=True):
            confirm(operator, said, site)
        for _, process, said in sites:
            until(lambda said=said: "joined as" in said.read_text(), said.read_text(), PATIENCE_S)
            assert process.poll() is None, said.read_text()
        output = operator.run(*pages.command(pages.OPERATOR, "run"))
        assert "Held-out accuracy" in output, output + log.read_text()
        # Besides the installation: init, server and run, and for each site two.
        assert len(operator.typed) == 3 + 2 * len(SITES)
        assert [len(terminal.typed) for terminal, *_ in sites] == [1] * len(SITES)
        check_outcome(operator, tmp_path)
        check_watched(operator, tmp_path, watched)
        operator.run(*pages.command(pages.OPERATOR, "run"), code=2)
        check_backup(operator)
        terminal = Terminal(tmp_path / SITES[0])
        for words in pages.commands(pages.SITE):
            if words[0] != "join":
                terminal.run(*words)
        until(lambda: "revoked" in operator.run("sites"), "the book")


def check_backup(operator):
    """A backup that is made while the server runs has all that the run came to."""
    operator.run(*pages.command(pages.OPERATOR, "backup"))
    words = pages.command(pages.OPERATOR, "restore")
    operator.run(*words[:-1], "elsewhere")
    made, kept = operator.folder / "elsewhere", operator.folder / "federation"
    assert "fits" in operator.run("ledger", "verify", str(made / "runs" / "spring"))
    for name in ("sites.json", "ca.key", "server.key", "runs/spring/run.secret"):
        assert (made / name).read_bytes() == (kept / name).read_bytes(), name


def joined(stack, operator, folder, site, *more):
    """A site that types what its page says, with the invitation that came by mail."""
    words = pages.command(pages.OPERATOR, "invite", site if site in SITES else SITES[1])
    words[1] = site
    fingerprint = re.search(r"over the telephone:\s+(\S+)", operator.run(*words)).group(1)
    terminal = Terminal(folder / site)
    name = f"{site}.invitation"
    mail = operator.folder / "federation" / "invitations" / name
    (terminal.folder / name).write_bytes(mail.read_bytes())
    write_prompts(terminal.folder / "prompts.jsonl", seed=ord(site[-1]))
    words = pages.command(pages.SITE, "join")
    words[1] = name
    process, log = terminal.start(stack, *words, *more, typed="y\ny\n")
    until(lambda: after(log, "its fingerprint:") == fingerprint, log.read_text(), PATIENCE_S)
    return terminal, process, log


def confirm(operator, log, site):
    """The operator types what the site has read to him."""
    words = pages.command(pages.OPERATOR, "sites", "--confirm")
    heard = until(lambda: after(log, "the key of this machine:"), log.read_text(), PATIENCE_S)
    words[2:] = [site, heard.lower()]
    assert f"{site} takes part" in operator.run(*words)


def change(file, old, new):
    file.write_text(file.read_text().replace(old, new))


def check_watched(operator, folder, port):
    """Page and logs say the same as the run's directory and the accounts."""
    page, told = page_of(operator.folder / "federation", port)
    assert "run spring: finished" in page
    assert 'fedgrpo_run_round{run="spring"} 1.0' in told
    assert "fedgrpo_sites_online 3.0" in told
    check_log(operator.folder / "federation" / "logs" / "server.log")
    for site in SITES:
        assert charges(check_log(folder / site / site / "state" / "logs" / "node.log")) == [1]


COMMITTEE = """
[aggregation]
protocol = "committee"
committee = [{members}]
[robust]
rule = "trimmed_mean"
trim = 0
[federation]
min_clients = 4
"""


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(3 * PATIENCE_S)
def test_from_nothing_to_a_round_over_a_committee(tmp_path):
    """Each site makes its line before it is invited, and joins as a member."""
    operator = Terminal(tmp_path / "operator", FEDGRPO_SERVER="federation")
    sites, (port, *ports) = (*SITES, "hospital-d"), free_ports(5)
    lines = [member_line(tmp_path / site, site) for site in sites]
    members = [f'"{line}@127.0.0.1:{at}"' for line, at in zip(lines, ports, strict=True)]
    small = SMALL.replace("max_epsilon = 1e6", 'max_epsilon = 1e6\nnoise = "server"')
    (operator.folder / "agreed.toml").write_text(
        f"rounds = 1\n{COMMITTEE.format(members=', '.join(members))}{small}"
    )
    with ExitStack() as stack:
        operator.run("server", "init", "federation", "--host", "localhost", "--port", str(port))
        _, log = operator.start(stack, "server", "federation")
        said = [joined(stack, operator, tmp_path, site, "--member")[-1] for site in sites]
        for text, site in zip(said, sites, strict=True):
            confirm(operator, text, site)
        for text in said:
            until(lambda text=text: "joined as" in text.read_text(), text.read_text(), PATIENCE_S)
        output = operator.run(*pages.command(pages.OPERATOR, "run"))
        assert "Held-out accuracy" in output, output + log.read_text()
    run_dir = operator.folder / "federation" / "runs" / "spring"
    (_, row) = read_rows(run_dir)
    assert (row.applied, row.finished) == (True, 4), row.reason
    (entry,) = (e for e in replay((run_dir / FILE).read_bytes()).entries if type(e) is RoundEntry)
    assert entry.committee == tuple(line[:64] for line in lines), "they sat and signed"
    for site, line in zip(sites, lines, strict=True):
        policy = Policy.from_toml(tmp_path / site / site / "policy.toml")
        assert (policy.protocols, set(policy.committee)) == (("committee",), set(lines)), "pinned"
        assert line in policy.committee


def member_line(folder, site):
    """What a site hands to its operator before it is invited."""
    words = pages.command(pages.SITE, "committee-key")
    words[-1] = f"{site}/member.key"
    return Terminal(folder).run(*words).split()[0]


def check_outcome(operator, folder):
    (_, row) = read_rows(operator.folder / "federation" / "runs" / "spring")
    assert row.applied, row.reason
    assert (row.finished, row.dropped) == (3, 0)
    assert "run spring: finished" in operator.run("status")
    for site in SITES:
        (spent,) = SpendingFile(folder / site / site / "spent.jsonl").read().entries
        assert spent.round == 1
    secret = operator.folder / "federation" / "runs" / "spring" / "run.secret"
    assert secret.stat().st_mode & 0o077 == 0
