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
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.deployment.operator.wish import Wish
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.report.reader import read_rows
from fedgrpo.site import SpendingFile
from tests.federation.deployed import CONFIG, Federation, check_prompts
from tests.federation.deployment.operated import end, until
from tests.federation.test_deployed_kills import OPEN

ROUND_S, LONG_S = 600, 900
SMALL_DISK = "2m"
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
MOUNTS = os.geteuid() == 0 and shutil.which("mount")
AWAY_S = 40.0
"""A network, or a machine, that is away: less than the minute for which the server waits for it."""


class Line:
    """A line from a site to the server, which can be cut."""

    def __init__(self, port):
        (self.port,) = free_ports(1)
        self._there, self._loop = port, asyncio.new_event_loop()
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
            there = await asyncio.open_connection("127.0.0.1", self._there)
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
def small_disk(folder):
    """A disk of its own, which can be full."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=0700", "tmpfs", folder], check=True
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


@pytest.mark.flower
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not MOUNTS, reason="full disks are small ones, which root mounts")
@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
def test_a_federation_gets_over_disks_networks_clocks_and_sleep(tmp_path, monkeypatch):
    with contextlib.ExitStack() as stack:
        federation = stack.enter_context(Federation(tmp_path))
        run = Run(federation, tmp_path / "runs" / "run")
        stack.enter_context(small_disk(tmp_path / "runs"))
        first, second, third = (federation.site(OPEN) for _ in range(3))
        state = stack.enter_context(small_disk(first.folder / "state"))
        log = stack.enter_context(small_disk(second.folder / "log"))
        line = Line(federation.server.port)
        _rewrite(first, 'prompts = "prompts.jsonl"', 'prompts = "prompts.jsonl"\nstate = "state"')
        second.log = log / "node.log"
        _rewrite(third, f":{federation.server.port}", f":{line.port}")
        for site in (first, second, third):
            check_prompts(site.prompts, site.folder / "state" if site is first else None)
        first.start()
        second.start()
        _start_with_a_clock(third, monkeypatch)
        config = CONFIG | {
            "rounds": 500, "privacy.unit": "none", "federation.min_clients": 2,
            "secure.bucket_size": 2, "evaluation.every": 500,
        }  # fmt: skip
        federation.wish(config, run.folder)
        run.rounds("a first round")
        for site in (first, third):
            assert "[certificate-ends]" in site.log.read_text()

        with full(state):
            run.short("a site whose disk is full")
            says(first.log, "disk", "the site")
        run.rounds("the disk has room again")

        with full(log):
            run.rounds("a site that cannot write its log")

        with full(tmp_path / "runs"):
            until(lambda: _failed(federation), f"the operator's disk: {federation.logs()}", LONG_S)
        run.rounds("the operator's disk has room again")

        line.cut()
        run.short("a site without network")
        time.sleep(AWAY_S)
        line.mend()
        run.rounds("the network is there again")

        before = len(third.log.read_text())
        for ahead in ("+3600", "+10"):
            (third.folder / "clock").write_text(ahead)
            says(third.log, "s fast", "the site's clock", before)
            says(third.log, "timedatectl", "the site's clock", before)
            (third.folder / "clock").write_text("+0")
            run.rounds(f"the clock is right again after {ahead} s")

        asleep = [psutil.Process(third.process.pid)]
        asleep += asleep[0].children(recursive=True)
        for process in asleep:
            process.send_signal(signal.SIGSTOP)
        run.short("a site that sleeps")
        for process in asleep:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        run.rounds("it is awake again")

        _move(federation, line)
        says(first.log, "cannot be reached", "a site whose server has moved")
        for site in (first, second):
            end(site.process)
            _rewrite_server(site, federation.server.port)
            site.start()
        run.rounds("the server is where the sites look for it")

        _stop(federation)
        verified = CliRunner().invoke(app, ["ledger", "verify", str(run.folder)])
        assert verified.exit_code == 3, verified.output
        for site in federation.sites:
            spent = SpendingFile(site.folder / "spent.jsonl").read().entries
            assert max(Counter(entry.round for entry in spent).values()) == 1


def _rewrite(site, before, after):
    file = site.folder / "site.toml"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))


def _rewrite_server(site, port):
    """What 'fedgrpo join' writes when it is asked again."""
    file = site.folder / "site.toml"
    _, _, rest = file.read_text().partition("\n")
    file.write_text(f'server = "localhost:{port}"\n{rest}')


def _start_with_a_clock(site, monkeypatch):
    """Start a node whose clock is told by a file; timers are not."""
    (site.folder / "clock").write_text("+0")
    with monkeypatch.context() as around:
        around.setenv("LD_PRELOAD", str(FAKETIME))
        around.setenv("FAKETIME_TIMESTAMP_FILE", str(site.folder / "clock"))
        around.setenv("FAKETIME_NO_CACHE", "1")
        around.setenv("DONT_FAKE_MONOTONIC", "1")
        site.start()


def _failed(federation):
    return "No space left" in federation.server.log.read_text("utf-8", "replace")


def _move(federation, line):
    """The server comes up at another address; one site is led there by its line."""
    end(federation.server.process)
    (federation.server.port,) = free_ports(1)
    line._there = federation.server.port
    federation.server.__enter__()


def _stop(federation):
    wish = Wish.read(federation.server.state)
    wish.model_copy(update={"stopped": True}).write(federation.server.state)
    time.sleep(10)
