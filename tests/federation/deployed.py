"""Flower's own processes on loopback, and what sites and researchers do around them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.data.tasks import generate

ROOT = Path(__file__).parents[2]
PATIENCE_S = 600

CONFIG = {
    "rounds": 1,
    "grpo.prompts_per_step": 4,
    "grpo.group_size": 4,
    "data.min_prompts": 40,
    "privacy.max_epsilon": 1e6,
    "secure.bucket_size": 3,
    "robust.rule": "mean",
    "robust.trim": 0,
    "federation.min_clients": 3,
    "federation.wait_s": 120.0,
    "federation.round_timeout_s": 240.0,
    "federation.reply_timeout_s": 60.0,
    "evaluation.prompts": 16,
}

POLICY = """
prompts_declared = 40
longest_prompt_tokens = 16
models = ["tiny"]
rewards = ["exact_match"]
[prompt]
largest_epsilon = 1e6
"""
"""Lies beside each site's prompts, with the time of its answers."""


def answers_after(nodes):
    """Seconds after which nodes answer: three eighths are for judging and encoding, and each has to
    load torch and to try its shapes, all at the same time.
    """
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    return round((40 + 12 * nodes) * min(max(busy, 1), 3))


def environment(home, port, root_certificate=None):
    trust = f'root-certificates = "{root_certificate}"' if root_certificate else "insecure = true"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "lo"\n\n[superlink.lo]\naddress = "127.0.0.1:{port}"\n{trust}\n'
    )
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]),
    }


class Processes:
    """Flower's own processes, each in a session of its own, all ended at the end."""

    def __init__(self, env, logs):
        self.env, self.logs, self.started = env, logs, []

    def start(self, name, *command):
        executable = shutil.which(command[0], path=self.env["PATH"])
        with (self.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [executable, *map(str, command[1:])],
                env=self.env, cwd=self.logs, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(process)

    def flwr(self, *command):
        executable = shutil.which("flwr", path=self.env["PATH"])
        done = subprocess.run(
            [executable, *map(str, command), "--format", "json"],
            env=self.env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        assert answer["success"], answer
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sent in (signal.SIGTERM, signal.SIGKILL):
            for process in self.started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sent)
            for process in self.started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


def tail(logs):
    return "\n".join(
        f"--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(logs.glob("*.log"))
    )


def write_prompts(path, seed):
    rows = generate(["add", "reverse"], 40, [1.0, 1.0], seed, held_out=False)
    path.write_text(
        "".join(json.dumps({"prompt": row.prompt, **row.columns}) + "\n" for row in rows)
    )


def check_prompts(prompts):
    """Do what a site's own people do before a node answers with its prompts."""
    command = ["policy", "check", prompts.with_name("policy.toml"), "--prompts", prompts]
    result = CliRunner().invoke(app, [*map(str, command)])
    assert result.exit_code == 0, result.output


def follow(processes, bundle, config):
    """Submit the run, and wait for its end."""
    return end_of(processes, submit(processes, bundle, config))


def submit(processes, bundle, config):
    """Submit the run as soon as the SuperLink answers, and return its id."""
    return patiently(lambda: processes.flwr("run", bundle, "lo", "-c", config)["run-id"])


def end_of(processes, run_id):
    """Wait for the end of a run, and return how it ended."""

    def status():
        (run,) = processes.flwr("ls", "lo", "--run-id", run_id)["runs"]
        return run["status"] if run["status"].startswith("finished") else None

    return patiently(status)


def patiently(attempt):
    """Try until there is a result."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError, AssertionError):
            if (result := attempt()) is not None:
                return result
        time.sleep(0.5)
    return "no end in time"
