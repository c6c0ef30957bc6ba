"""An operator and three sites get from nothing to a finished run by what the two pages say."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack

import pytest
import typer

from fedgrpo.cli.app import app
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.report.reader import read_rows
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import read_scenario
from fedgrpo.site import SpendingFile
from tests.federation.deployed import PATIENCE_S, write_prompts
from tests.federation.deployment import pages
from tests.federation.deployment.operated import end, environment, until
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


class Terminal:
    """Where somebody types commands."""

    def __init__(self, folder, **env):
        folder.mkdir(exist_ok=True)
        self.folder, self.env = folder, environment() | env

    def run(self, *words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "fedgrpo.cli.app", *words], cwd=self.folder, env=self.env,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * PATIENCE_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def start(self, stack, *words, typed=""):
        log = self.folder / f"{words[0]}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "fedgrpo.cli.app", *words], cwd=self.folder, env=self.env,
                stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        stack.callback(end, process)
        process.stdin.write(typed.encode())
        process.stdin.flush()
        return process, log


def after(text, words):
    """What follows some words, as soon as they are in a log."""
    found = re.search(rf"{words}\s+(\S+)", text.read_text())
    return found and found.group(1)


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
        for (_, said), site in zip(sites, SITES, strict=True):
            confirm(operator, said, site)
        for process, said in sites:
            until(lambda said=said: "joined as" in said.read_text(), said.read_text(), PATIENCE_S)
            assert process.poll() is None, said.read_text()
        output = operator.run(*pages.command(pages.OPERATOR, "run"))
        assert "Held-out accuracy" in output, output + log.read_text()
        check_outcome(operator, tmp_path)
        check_watched(operator, tmp_path, watched)
        operator.run(*pages.command(pages.OPERATOR, "run"), code=2)
        terminal = Terminal(tmp_path / SITES[0])
        for words in pages.commands(pages.SITE):
            if words[0] != "join":
                terminal.run(*words)
        until(lambda: "revoked" in operator.run("sites"), "the book")


def joined(stack, operator, folder, site):
    """A site that types what its page says, with the invitation that came by mail."""
    words = pages.command(pages.OPERATOR, "invite", site)
    fingerprint = re.search(r"over the telephone:\s+(\S+)", operator.run(*words)).group(1)
    terminal = Terminal(folder / site)
    name = f"{site}.invitation"
    mail = operator.folder / "federation" / "invitations" / name
    (terminal.folder / name).write_bytes(mail.read_bytes())
    write_prompts(terminal.folder / "prompts.jsonl", seed=SITES.index(site))
    words = pages.command(pages.SITE, "join")
    words[1] = name
    process, log = terminal.start(stack, *words, typed="y\ny\n")
    until(lambda: after(log, "its fingerprint:") == fingerprint, log.read_text(), PATIENCE_S)
    return process, log


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
