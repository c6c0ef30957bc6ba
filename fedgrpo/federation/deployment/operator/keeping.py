"""The server goes on with the run that the operator wants, whatever has interrupted it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fedgrpo.federation.deployment.flower_internals.control import (
    LIST_RUNS,
    STOP_RUN,
    list_runs,
    run_ended,
    stop_run,
)
from fedgrpo.federation.deployment.gateway.inner import Inner
from fedgrpo.federation.deployment.gateway.refused import RefusedError
from fedgrpo.federation.deployment.operator.folder import NAME, StateFolder
from fedgrpo.federation.deployment.operator.wish import Submitted, Wish
from fedgrpo.federation.wire.app_bundle import to_toml
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import replace_file
from fedgrpo.ground.run_files import SUMMARY
from fedgrpo.report.reader import read_status

LOG = logging.getLogger(__name__)

LOOK_S = 2.0
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 60.0
"""Before a run that ended without an outcome is submitted again."""
COMMAND_S = 120.0


class Keeper:
    """Submits the wanted run, again if need be, and ends it when it is wanted no more.

    Parameters
    ----------
    folder:
        Of the server.
    inner:
        The SuperLink.
    """

    def __init__(self, folder: StateFolder, inner: Inner) -> None:
        self._folder, self._inner = folder, inner
        self._me = secrets.token_hex(8)

    async def keep(self) -> None:
        """Look after the run until this is cancelled."""
        while True:
            try:
                await self.look(time.time())
            except (RefusedError, RunError, OSError) as error:
                LOG.info("the run is not looked after: %s", error)
            await asyncio.sleep(LOOK_S)

    async def look(self, now: float) -> None:
        """Do what is to be done at the moment.

        Parameters
        ----------
        now:
            Unix time, in seconds.
        """
        wish, before = Wish.read(self._folder.path), Submitted.read(self._folder.path)
        if wish is None:
            return
        mine = before if before and before.wish == wish.number else None
        if mine and not wish.stopped and not is_left(wish, mine):
            return  # A SuperLink cleans up whenever it is asked: so it is not asked for nothing.
        runs = await self._inner.told(LIST_RUNS, list_runs())
        over = before is None or run_ended(runs, before.run)
        # Whatever ran under another server process, or another wish, died or must.
        stale = before is not None and (mine is None or before.server != self._me)
        if before and not over and (wish.stopped or stale):
            await self._inner.told(STOP_RUN, stop_run(before.run))
            return
        if wish.stopped or not over or not is_left(wish, mine):
            return
        if mine and now < mine.since + wait_s(mine.times):
            return
        await self._submit(wish, mine.times if mine else 0, now)

    async def _submit(self, wish: Wish, times: int, now: float) -> None:
        words = "goes on with" if times else "begins"
        LOG.info("the server %s run %s in %s", words, wish.run, wish.directory)
        number, problem = await asyncio.to_thread(submit, self._folder, wish)
        if problem:
            told = {"code": "run-unsubmitted"}
            LOG.error("run %s cannot be submitted: %s", wish.run, problem, extra=told)
        Submitted(
            wish=wish.number, run=number, server=self._me, times=times + 1, since=now,
            problem=problem,
        ).write(self._folder.path)  # fmt: skip


def is_left(wish: Wish, mine: Submitted | None) -> bool:
    """Whether a run that is under way nowhere has still to come to an end.

    It has if it was never submitted for this wish, or ended without an outcome: killed, or stopped
    with the machine. It has not if it finished, or if the server app itself gave up.
    """
    directory = Path(wish.directory)
    if (directory / SUMMARY).exists():
        return False
    status = read_status(directory)
    return not (mine and status and status.state == "failed" and status.time >= wish.since)


def wait_s(times: int) -> float:
    """Seconds between the last submission of so many and the next."""
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(times, 10)))


def submit(folder: StateFolder, wish: Wish) -> tuple[int, str]:
    """Have Flower's own command submit a run.

    Returns
    -------
    tuple[int, str]
        Its id, and why there is none.
    """
    file = folder.path / "run-config.toml"
    replace_file(file, to_toml(wish.config).encode(), mode=0o600)
    try:
        said = flwr(folder, "run", str(folder.bundle), NAME, "-c", str(file))
        return int(said["run-id"]), ""
    except (RunError, KeyError, ValueError) as error:
        return 0, str(error)


def flwr(folder: StateFolder, *words: str) -> dict[str, Any]:
    """Run Flower's own command, as the operator could.

    Raises
    ------
    RunError
        With Flower's reason, if it refuses.
    """
    local = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flwr.cli.app", *words, "--format", "json"],
            env=os.environ | local | quiet | {"FLWR_HOME": str(folder.flower)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        said = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise RunError(f"'flwr {words[0]}' gives no answer: {type(error).__name__}") from None
    if not isinstance(said, dict) or not said.get("success"):
        raise RunError(f"'flwr {words[0]}' failed: {str(said)[:500]}")
    return said
