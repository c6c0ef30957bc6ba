"""A federation over loopback, as its operator and its sites start it: gateway, TLS, node keys."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from contextlib import ExitStack
from pathlib import Path

import psutil
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.data.tasks import generate
from fedgrpo.federation.deployment.operator.wish import Wish
from fedgrpo.federation.wire.app_bundle import to_toml
from tests.federation.deployment.operated import Server, end, environment, fedgrpo, until

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
    "federation.round_timeout_s": 300.0,
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


class Site:
    """A site's folder, key and node."""

    def __init__(self, server, folder, policy, *, seed, lines=""):
        folder.mkdir()
        self.folder, self.log, self.process = folder, folder / "node.log", None
        self.key, self.node = server.register()
        (folder / "node.key").touch(0o600)
        (folder / "node.key").write_bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        )
        self.prompts = folder / "prompts.jsonl"
        write_prompts(self.prompts, seed)
        (folder / "policy.toml").write_text(policy)
        (folder / "site.toml").write_text(
            f'server = "localhost:{server.port}"\nca = "{server.ca}"\nkey = "node.key"\n'
            f'prompts = "prompts.jsonl"\n{lines}'
        )

    def start(self, *words):
        self.process = fedgrpo(self.log, "node", "site.toml", *words, cwd=self.folder)

    def end(self):
        if self.process:
            end(self.process)


class Federation:
    """A server and its sites. Whatever it starts ends with it."""

    def __init__(self, folder, *server_words):
        self.folder, self.sites = folder, []
        self.server = Server(folder, *server_words)

    def __enter__(self):
        self.server.__enter__()
        return self

    def __exit__(self, *stopped):
        with ExitStack() as ending:
            ending.callback(self.server.__exit__, *stopped)
            for site in self.sites:
                ending.callback(site.end)

    def site(self, policy, lines=""):
        """A new site, not yet started."""
        number = len(self.sites)
        folder = self.folder / f"site-{number}"
        self.sites.append(Site(self.server, folder, policy, seed=number, lines=lines))
        return self.sites[-1]

    def submit(self, config, bundle=None):
        """Submit a run as the operator does, and return its id."""
        settings = self.folder / "config.toml"
        settings.write_text(to_toml(config))
        bundle = bundle or self.server.state / "fedgrpo-app"
        return self.flwr("run", bundle, "server", "-c", settings)["run-id"]

    def wish(self, config, run_dir):
        """Want a run, which the server submits by itself, and again whatever happens to it."""
        Wish.new("run", run_dir, config | {"run.directory": str(run_dir)}).write(self.server.state)

    def end_of(self, run_id):
        """Wait for the end of a run, and return how it ended."""

        def status():
            (run,) = self.flwr("ls", "server", "--run-id", run_id)["runs"]
            return run["status"] if run["status"].startswith("finished") else None

        return until(status, f"the run: {self.logs()}", PATIENCE_S)

    def flwr(self, *words):
        """Flower's own command line, in the operator's hands."""
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        env = environment() | {
            "FLWR_HOME": str(self.server.state / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": path,
        }
        done = subprocess.run(
            [shutil.which("flwr", path=path), *map(str, words), "--format", "json"],
            env=env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        assert answer["success"], answer
        return answer

    def logs(self):
        """Ends of all logs."""
        named = [self.server.log, *(site.log for site in self.sites)]
        found = [(log.parent.name, log.read_text()) for log in named if log.exists()]
        return "\n".join(f"--- {name}\n{text[-3000:]}" for name, text in found)


def computed(federation):
    """CPU seconds so far of the server and of all sites, processes that have ended included."""
    sites = [site.process.pid for site in federation.sites]
    return {
        "server": sum(map(_computed, tree(federation.server.process.pid))),
        "sites": sum(_computed(process) for pid in sites for process in tree(pid)),
    }


def tree(pid):
    """A process and all that it has started."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def _computed(process):
    try:
        return sum(process.cpu_times()[:4])
    except psutil.Error:
        return 0.0


def write_prompts(path, seed):
    rows = generate(["add", "reverse"], 40, [1.0, 1.0], seed, held_out=False)
    path.write_text(
        "".join(json.dumps({"prompt": row.prompt, **row.columns}) + "\n" for row in rows)
    )


def check_prompts(prompts, state=None):
    """Do what a site's own people do before a node answers with its prompts."""
    command = ["policy", "check", prompts.with_name("policy.toml"), "--prompts", prompts]
    command += ["--state", state] if state else []
    result = CliRunner().invoke(app, [*map(str, command)])
    assert result.exit_code == 0, result.output
