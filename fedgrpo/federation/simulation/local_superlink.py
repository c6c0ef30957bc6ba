"""A SuperLink of one's own for one simulated run, driven through Flower's command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedgrpo.federation.simulation import reaper
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.federation.wire.app_bundle import to_toml
from fedgrpo.ground.errors import RunError
from fedgrpo.settings import Scalar

LOG, SUPERLINK_LOG = "flower.log", "superlink.log"
"""Files in the run directory: what Ray and both apps print, and what the SuperLink does."""
START_TIMEOUT_S = 90.0
COMMAND_TIMEOUT_S = 120.0
CLEAN_UP_TIMEOUT_S = 60.0

SIMULATION = """#!/bin/sh
'exec' '{python}' "$0" "$@"
from fedgrpo.federation.simulation.flower_internals import run_simulation

run_simulation()
"""
"""The program that Flower starts as ``flwr-simulation``: a script for both the shell, which finds a
Python whose path may have any length and spaces, and Python.
"""


@dataclass(frozen=True)
class RunState:
    """What Flower says of a run.

    Attributes
    ----------
    status:
        ``pending``, ``starting``, ``running``, ``finished:completed``, ``finished:failed`` or
        ``finished:stopped``.
    details:
        The exception's text, where one ended the run.
    """

    status: str
    details: str

    @property
    def over(self) -> bool:
        """Whether the run has ended, well or badly."""
        return self.status.startswith("finished")

    @property
    def completed(self) -> bool:
        """Whether the server app returned without an exception."""
        return self.status == "finished:completed"


class LocalSuperLink:
    """A running SuperLink in simulation mode. Made by :func:`local_superlink`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        run_dir: Path,
        scratch: Path,
        env: Mapping[str, str],
    ) -> None:
        self.scratch = scratch
        self._run_dir = run_dir
        self._process = process
        self._env = env

    def submit(
        self, app: Path, config: Mapping[str, Scalar], federation: Mapping[str, Scalar]
    ) -> int:
        """Start a run with ``flwr run`` and return its id.

        Parameters
        ----------
        app:
            Directory of the Flower app.
        config:
            Run configuration, with dotted keys.
        federation:
            Flower's simulation options, such as ``num-supernodes``.

        Raises
        ------
        RunError
            With Flower's reason, if it refuses.
        """
        file = self.scratch / "run-config.toml"
        file.write_text(to_toml(config), "utf-8")
        options = " ".join(f"{key}={json.dumps(value)}" for key, value in federation.items())
        answer = self._flwr("run", str(app), "-c", str(file), "--federation-config", options)
        return int(answer["run-id"])

    def stream_log(self, run_id: int) -> Callable[[], bool]:
        """Append the run's output to the log file, and tell when no more can come.

        The stream ends when the run does, which is the cheapest way to notice.
        """
        command = ["flwr", "log", str(run_id), "--stream"]
        stream = _start(command, self._env, log=self._run_dir / LOG)
        return lambda: stream.poll() is not None or not self.alive

    def state(self, run_id: int) -> RunState:
        """Ask how a run stands. Flower's exit codes do not tell: they are 0 for failed runs too.

        Raises
        ------
        RunError
            If the SuperLink does not answer.
        """
        (run,) = self._flwr("ls", "--run-id", str(run_id))["runs"]
        return RunState(run["status"], run["status-details"])

    @property
    def alive(self) -> bool:
        """Whether the SuperLink process lives."""
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until the SuperLink answers.

        Raises
        ------
        RunError
            If it ends, or does not answer in time.
        """
        url = f"http://127.0.0.1:{self._env['FLWR_LOCAL_SUPERLINK_HTTP_API_PORT']}/health"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.alive and time.monotonic() < deadline:
            with contextlib.suppress(OSError), opener.open(url, timeout=1):
                return
            time.sleep(0.1)
        raise RunError(
            "Flower's SuperLink does not start",
            cure=f"see the end of {self._run_dir / SUPERLINK_LOG}",
        )

    def _flwr(self, command: str, *arguments: str) -> dict[str, Any]:
        try:
            done = subprocess.run(
                ["flwr", command, *arguments, "--format", "json"],
                env=self._env,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
                start_new_session=True,  # Ctrl-C is for the command that follows the run.
            )
        except subprocess.TimeoutExpired:
            raise RunError(
                f"`flwr {command}` has not answered in {COMMAND_TIMEOUT_S:.0f} s",
                cure=f"see the end of {self._run_dir / SUPERLINK_LOG}",
            ) from None
        answer = _parse(done.stdout)
        if not answer.get("success"):
            reason = answer.get("error-message") or (done.stderr or done.stdout).strip()[-2000:]
            raise RunError(
                f"`flwr {command}` failed: {reason}",
                cure=f"see the end of {self._run_dir / SUPERLINK_LOG}",
            )
        return answer


@contextlib.contextmanager
def local_superlink(run_dir: Path, cwd: Path) -> Iterator[LocalSuperLink]:
    """Run a SuperLink in simulation mode, on a free port of the loopback interface, with a state of
    its own.

    Whatever happens to this process, everything that was started is ended, and the scratch
    directory removed, by a watching process (:mod:`fedgrpo.federation.simulation.reaper`).

    Parameters
    ----------
    run_dir:
        Absolute; gets the log files.
    cwd:
        Working directory of the server app and, through Ray, of the client app.

    Raises
    ------
    RunError
        If the SuperLink does not start.
    """
    reaper.end_processes_of(str(run_dir))  # The caller holds the lock, so these are orphans.
    scratch = _scratch_directory()
    env = _environment(run_dir, scratch)
    watcher = _start_reaper(run_dir, scratch)
    try:
        command = ["flower-superlink", "--insecure", "--simulation"]
        command += ["--disable-runtime-dependency-installation", "--host", "127.0.0.1"]
        command += ["--port", env["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"]]
        process = _start(command, env, log=run_dir / SUPERLINK_LOG, cwd=cwd)
        superlink = LocalSuperLink(process, run_dir, scratch, env)
        superlink.wait_until_ready()
        yield superlink
    finally:
        assert watcher.stdin is not None
        watcher.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            watcher.wait(CLEAN_UP_TIMEOUT_S)


def _environment(run_dir: Path, scratch: Path) -> dict[str, str]:
    """Environment of every process of the simulation.

    OMP_NUM_THREADS is taken out: without it Ray gives each actor as many threads as it has cores,
    and the server, which works when the clients rest, takes all.
    """
    (port,) = free_ports(1)
    (scratch / "config.toml").write_text(
        '[superlink]\ndefault = "own"\n\n'
        f'[superlink.own]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
        "utf-8",
    )
    program = scratch / "bin" / "flwr-simulation"
    program.parent.mkdir()
    program.write_text(SIMULATION.format(python=sys.executable), "utf-8")
    program.chmod(0o700)
    path = [str(program.parent), sysconfig.get_path("scripts"), os.environ.get("PATH", "")]
    local = "127.0.0.1,localhost"
    ours = {
        reaper.TAG: str(run_dir),
        "FLWR_HOME": str(scratch),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(scratch),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Flower starts its parts by name: one of them is ours, and a virtual environment need not
        # be activated for the others.
        "PATH": os.pathsep.join(path),
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), local])),
        "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy"), local])),
    }
    inherited = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return inherited | ours


def _scratch_directory() -> Path:
    """Make a private directory with a short path: Ray's sockets there may have 107 letters."""
    short = Path("/tmp")
    return Path(
        tempfile.mkdtemp(prefix="fedgrpo-", dir=short if os.access(short, os.W_OK) else None)
    )


def _start_reaper(run_dir: Path, scratch: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", reaper.__file__, str(run_dir), str(scratch)]
    return _start(command, os.environ, log=run_dir / SUPERLINK_LOG, stdin=subprocess.PIPE)


def _start(
    command: list[str],
    env: Mapping[str, str],
    *,
    log: Path,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, out of reach of Ctrl-C and a closed terminal."""
    executable = shutil.which(command[0], path=env.get("PATH"))
    if executable is None:
        raise RunError(
            f"program {command[0]} is not installed", cure="pip install 'fedgrpo[simulation]'"
        )
    with log.open("ab") as output:
        return subprocess.Popen(
            [executable, *command[1:]],
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _parse(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
