"""What goes wrong around a federation is said in a line, spoils nothing, and is over when its cause
is gone, without anybody's help.

One run goes on beneath all of it, with public prompts, whose rounds take as long as they need. The
server's certificate ends within a day, all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.deployment.operator.wish import Wish
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.report.reader import read_rows
from fedgrpo.site import SpendingFile
from tests.federation.deployed import CONFIG, Federation, Site, check_prompts, tree
from tests.federation.deployment.operated import end, until
from tests.federation.test_deployed_kills import OPEN

ROUND_S = 900
SMALL_DISK, STATE_DISK = "2m", "400m"
"""The second has what a node asks for before it starts."""
CC = shutil.which("cc")
MOUNTS = os.geteuid() == 0 and shutil.which("mount")
AWAY_S = 300.0
"""A network that is away, from its end on; the server waits a minute for a node."""


class Line:
    """A line from a site to the server, which can be cut."""

    def __init__(self, port):
        (self.port,) = free_ports(1)
        self.there, self._loop = port, asyncio.new_event_loop()
        self._open = True
        self._ways = set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._do(asyncio.start_server(self._carry, "127.0.0.1", self.port))

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _carry(self, reader, writer):
        if not self._open:
            writer.close()
            return
        with contextlib.suppress(OSError):
            there = await asyncio.open_connection("127.0.0.1", self.there)
            self._ways |= {writer, there[1]}
            await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    def cut(self):
        async def cut():
            self._open = False
            for way in self._ways:
                way.close()
            self._ways = set()

        self._do(cut())

    def mend(self):
        self._open = True


async def _copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.contextmanager
def small_disk(folder, size=SMALL_DISK):
    """A disk of its own, which can be full."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def full(folder):
    """A disk without room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


class Run:
    """A run that goes on, and what can be seen of it."""

    def __init__(self, federation, run_dir):
        self.federation, self.folder = federation, run_dir

    def rows(self):
        with contextlib.suppress(Exception):
            return read_rows(self.folder)
        return []

    def rounds(self, what, *, of=3, more=1):
        """Wait for so many more rounds with all sites."""

        def whole():
            return sum(row.finished == of and row.applied for row in self.rows())

        before = whole()
        until(lambda: whole() >= before + more, f"{what}: {self.federation.logs()}", ROUND_S)

    def short(self, what):
        """Wait for a round without all sites."""
        before = len(self.rows())
        until(
            lambda: any(row.finished < 3 for row in self.rows()[before:]),
            f"{what}: {self.federation.logs()}",
            ROUND_S,
        )


def says(log, words, what, since=0):
    until(lambda: words in log.read_text("utf-8", "replace")[since:], f"{what}: {words}", ROUND_S)


@dataclass
class Scene:
    """A federation of three sites with a run beneath what goes wrong.

    The first site's state, the second one's log and the runs lie on disks of their own; the third
    one has a line that can be cut, and a clock that a file tells.
    """

    federation: Federation
    run: Run
    sites: list[Site]
    state: Path
    log: Path
    line: Line

    def tell_clock(self, ahead):
        (self.sites[2].folder / "clock").write_text(ahead)


def state_on_a_full_disk(scene):
    with full(scene.state):
        scene.run.short("a site whose disk is full")
        says(scene.sites[0].log, "disk", "the site")


def log_on_a_full_disk(scene):
    with full(scene.log):
        scene.run.rounds("a site that cannot write its log")


def operator_on_a_full_disk(scene):
    with full(scene.run.folder.parent):
        says(scene.federation.server.log, "No space left", "the operator")


def no_network(scene):
    scene.line.cut()
    until_s = time.monotonic() + AWAY_S
    scene.run.short("a site without network")
    time.sleep(max(0.0, until_s - time.monotonic()))
    scene.line.mend()


def a_clock_an_hour_fast(scene, ahead="+3600"):
    log = scene.sites[2].log
    before = len(log.read_text("utf-8", "replace"))
    scene.tell_clock(ahead)
    says(log, "s fast", "the site's clock", before)
    says(log, "timedatectl", "the site's clock", before)
    scene.tell_clock("+0")


def a_clock_ten_seconds_fast(scene):
    a_clock_an_hour_fast(scene, "+10")


def a_machine_that_sleeps(scene):
    asleep = tree(scene.sites[2].process.pid)
    for process in asleep:
        process.send_signal(signal.SIGSTOP)
    scene.run.short("a site that sleeps")
    for process in asleep:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)


def a_server_that_moves(scene):
    """One site's line leads to it still; the others' people do what 'fedgrpo join' does again."""
    server, (first, second, _) = scene.federation.server, scene.sites
    end(server.process)
    before = server.port
    (server.port,) = free_ports(1)
    scene.line.there = server.port
    server.__enter__()
    says(first.log, "cannot be reached", "a site whose server has moved")
    for site in (first, second):
        end(site.process)
        _rewrite(site, f":{before}", f":{server.port}")
        site.start()


FAULTS = (
    state_on_a_full_disk,
    log_on_a_full_disk,
    operator_on_a_full_disk,
    no_network,
    a_clock_an_hour_fast,
    a_clock_ten_seconds_fast,
    a_machine_that_sleeps,
    a_server_that_moves,
)


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not MOUNTS, reason="full disks are small ones, which root mounts")
@pytest.mark.skipif(CC is None, reason="a clock is told by a library, which is compiled")
def test_a_federation_gets_over_disks_networks_clocks_and_sleep(tmp_path, monkeypatch):
    with staged(tmp_path, monkeypatch) as scene:
        scene.run.rounds("a first round")
        for site in scene.sites:
            assert "[certificate-ends]" in site.log.read_text("utf-8", "replace")
        for fault in FAULTS:
            began = time.monotonic()
            fault(scene)
            scene.run.rounds(f"after {fault.__name__}")
            print(fault.__name__, round(time.monotonic() - began), "s", flush=True)
        wish = Wish.read(scene.federation.server.state)
        wish.model_copy(update={"stopped": True}).write(scene.federation.server.state)
        until(lambda: _verified(scene.run.folder) == 3, "the ledger of a run that was stopped")
        for site in scene.sites:
            spent = SpendingFile(site.folder / "spent.jsonl").read().entries
            assert max(Counter(entry.round for entry in spent).values()) == 1


@contextlib.contextmanager
def staged(folder, monkeypatch):
    """Everything before the first round."""
    with contextlib.ExitStack() as stack:
        federation = stack.enter_context(Federation(folder))
        run = Run(federation, stack.enter_context(small_disk(folder / "runs")) / "run")
        sites = [federation.site(OPEN) for _ in range(3)]
        first, second, third = sites
        line = Line(federation.server.port)
        state = stack.enter_context(small_disk(first.folder / "state", STATE_DISK))
        log = stack.enter_context(small_disk(second.folder / "log"))
        second.log = log / "node.log"
        with (first.folder / "site.toml").open("a") as file:
            file.write('state = "state"\n')
        _rewrite(third, f":{federation.server.port}", f":{line.port}")
        for site in sites:
            check_prompts(site.prompts, state if site is first else None)
        first.start()
        second.start()
        _start_with_a_clock(third, monkeypatch)
        federation.wish(CONFIG | ENDLESS, run.folder)
        try:
            yield Scene(federation, run, sites, state, log, line)
        finally:
            for site in sites:
                end(site.process)
            end(federation.server.process)


ENDLESS = {
    "rounds": 500,
    "privacy.unit": "none",
    "federation.wait_s": 600.0,
    "evaluation.every": 500,
}


def _verified(run_dir):
    return CliRunner().invoke(app, ["ledger", "verify", str(run_dir)]).exit_code


def _rewrite(site, before, after):
    file = site.folder / "site.toml"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))


def _start_with_a_clock(site, monkeypatch):
    """Start a node whose clock is ahead by what a file tells. Its timers are right: libfaketime has
    those that are never end, or fail.
    """
    (site.folder / "clock").write_text("+0")
    library = site.folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([CC, "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    with monkeypatch.context() as around:
        around.setenv("LD_PRELOAD", str(library))
        around.setenv("CLOCK_AHEAD", str(site.folder / "clock"))
        site.start()
