"""Where an operator or a site's people type commands."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.federation.deployed import PATIENCE_S
from tests.federation.deployment.operated import end, environment


class Terminal:
    """Where somebody types commands; a command before them may lead to another machine."""

    def __init__(self, folder, within=(), **env):
        folder.mkdir(exist_ok=True)
        self.folder, self.env = folder, environment() | env
        self.typed = []
        self._fedgrpo = [*within, sys.executable, "-m", "fedgrpo.cli.app"]

    def run(self, *words, code=0):
        self.typed.append(words)
        done = subprocess.run(
            [*self._fedgrpo, *words], cwd=self.folder, env=self.env,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * PATIENCE_S,
            check=False,
        )  # fmt: skip
        assert code in (done.returncode, None), done.stdout + done.stderr
        return done.stdout

    def start(self, stack, *words, typed=""):
        self.typed.append(words)
        log = self.folder / f"{words[0]}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*self._fedgrpo, *words], cwd=self.folder, env=self.env,
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
