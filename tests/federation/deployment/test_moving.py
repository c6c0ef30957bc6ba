"""A server that moves, or comes back from a backup elsewhere, keeps its sites: they join again."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import ExitStack

import pytest

from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.federation.simulation.ports import free_ports
from tests.federation.deployed import PATIENCE_S, write_prompts
from tests.federation.deployment.elsewhere import CAN, NAME, Elsewhere
from tests.federation.deployment.operated import end, until
from tests.federation.deployment.terminal import Terminal, after

AGREED = """
rounds = 1
[federation]
min_clients = 3
[robust]
rule = "mean"
trim = 0
[grpo]
prompts_per_step = 2
group_size = 2
max_completion_length = 4
[data]
min_prompts = 40
[privacy]
max_epsilon = 1e6
"""


def invite(operator, *words):
    """What the operator's machine writes, and its fingerprint."""
    said = operator.run("invite", "hospital-a", *words)
    file = operator.folder / "federation" / "invitations" / "hospital-a.invitation"
    return file, re.search(r"over the telephone:\s+(\S+)", said).group(1)


def join(stack, site, file, fingerprint, typed=""):
    words = ("join", str(file), "--prompts", "prompts.jsonl", "--member", "--no-start")
    despite = ("--despite", "folder-volatile")
    process, log = site.start(stack, *words, "--accept", fingerprint, *despite, typed=typed)
    return process, log


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_site_of_a_server_that_came_back_elsewhere_joins_again_with_its_own_key(tmp_path):
    operator = Terminal(tmp_path / "operator", FEDGRPO_SERVER="federation")
    site = Terminal(tmp_path / "hospital-a")
    (operator.folder / "agreed.toml").write_text(AGREED)
    write_prompts(site.folder / "prompts.jsonl", seed=0)
    first, second = free_ports(2)
    operator.run("server", "init", "federation", "--host", "localhost", "--port", str(first))
    with ExitStack() as stack:
        server, _ = operator.start(stack, "server", "federation")
        file, mark = invite(operator, "--settings", "agreed.toml")
        joining, log = join(stack, site, file, mark, typed="y\n")
        heard = until(lambda: after(log, "the key of this machine:"), log.read_text())
        operator.run("sites", "--confirm", "hospital-a", heard)
        assert joining.wait(PATIENCE_S) == 0, log.read_text()
        end(server)
    folder = site.folder / "hospital-a"
    key, line = (folder / "node.key").read_bytes(), (folder / "member.key").read_bytes()
    book = (operator.folder / "federation" / "sites.json").read_text()

    operator.run("backup", "federation", "federation.backup")
    shutil.rmtree(operator.folder / "federation")
    operator.run("restore", "federation.backup", "federation")
    file = operator.folder / "federation" / "federation.toml"
    file.write_text(file.read_text().replace(str(first), str(second)))
    assert (operator.folder / "federation" / "sites.json").read_text() == book

    with ExitStack() as stack:
        operator.start(stack, "server", "federation")
        file, mark = invite(operator, "--again")
        told = site.run("doctor", "hospital-a/site.toml", code=1)
        assert "[port-refused]" in told
        assert "fedgrpo join" in told
        joining, log = join(stack, site, file, mark)
        assert joining.wait(PATIENCE_S) == 0, log.read_text()
        assert "the key of this machine" not in log.read_text().split("joined as")[-1]
        assert SiteFile.read(folder / "site.toml").server == f"localhost:{second}"
        assert ((folder / "node.key").read_bytes(), (folder / "member.key").read_bytes()) == (
            key,
            line,
        )
        said = json.loads(site.run("doctor", "hospital-a/site.toml", "--json", code=None))
        assert "the server knows it" in {each["line"] for each in said}
        assert "hospital-a  takes part" in operator.run("sites")


OLD, NEW = "10.77.18.1", "10.77.18.9"


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(2 * PATIENCE_S)
@pytest.mark.skipif(not CAN, reason="a second machine is a network namespace, which root makes")
def test_a_site_that_may_speak_to_the_old_address_alone_joins_again_and_reaches_the_new(tmp_path):
    with Elsewhere(tmp_path) as there, ExitStack() as stack:
        operator = Terminal(tmp_path / "operator", FEDGRPO_SERVER="federation")
        site = Terminal(tmp_path / "hospital-a", there.within)
        (operator.folder / "agreed.toml").write_text(AGREED)
        write_prompts(site.folder / "prompts.jsonl", seed=0)
        there.here_is(OLD)
        there.reaches(OLD)
        (port,) = free_ports(1)
        operator.run("server", "init", "federation", "--host", NAME, "--port", str(port))
        operator.start(stack, "server", "federation")
        file, mark = invite(operator, "--settings", "agreed.toml")
        joining, log = join(stack, site, file, mark, typed="y\n")
        heard = until(lambda: after(log, "the key of this machine:"), log.read_text())
        operator.run("sites", "--confirm", "hospital-a", heard)
        assert joining.wait(PATIENCE_S) == 0, log.read_text()
        folder = site.folder / "hospital-a"
        key = (folder / "node.key").read_bytes()
        assert there.enable(folder / "fedgrpo-node.service") == [OLD]
        node, said = site.start(stack, "node", "hospital-a/site.toml")
        until(lambda: "online" in operator.run("sites"), said.read_text(), PATIENCE_S)

        there.here_is(NEW)
        until(lambda: "last seen" in operator.run("sites"), "a site that is away", PATIENCE_S)
        told = site.run("doctor", "hospital-a/site.toml", code=1)
        assert f"{NAME} is {NEW} now, and the service may only speak to localhost, {OLD}" in told
        assert "[address-moved]" in told
        assert "fedgrpo join" in told
        end(node)

        there.reaches(OLD, NEW)  # Who types 'fedgrpo join' is no service.
        joining, log = join(stack, site, file, mark)
        assert joining.wait(PATIENCE_S) == 0, log.read_text()
        allowed = there.enable(folder / "fedgrpo-node.service")
        assert allowed == [NEW]
        there.reaches(*allowed)
        _, said = site.start(stack, "node", "hospital-a/site.toml")
        until(lambda: "online" in operator.run("sites"), said.read_text(), PATIENCE_S)
        assert "[address-moved]" not in site.run("doctor", "hospital-a/site.toml", code=None)
        assert (folder / "node.key").read_bytes() == key
