"""Where the seconds of a deployed round go, with the model process and without, and what a site
takes of memory while nothing runs.

A server behind its gateway and sites on loopback, as their people start them. Nothing is hidden
here (``privacy.unit = "none"``, ``answer_after_s = 0``, made-up prompts), so that an answer leaves
as soon as it is there: with a privacy unit a round takes its ``answer_after_s``, and all that is
measured here beside training lies within it or beside it. *Training* is a client's contribution
in a process that has loaded everything, as many at once as there are sites; evaluation is counted
nowhere. What a round takes beside its phases, applying the result and having members sign, is told
as *rest*. The first round loads the model and is told apart. Wall times depend on what else the
machine does: the load is printed, and beside them the CPU time of a round, which depends on it
less. The last line is JSON.

Usage: ``PYTHONPATH=. python benchmarks/deployed_overhead.py [--rounds 4] [--ways kept,anew]
[--model models/smollm2] [--committee --sites 5]``
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.node.clients.local_clients import LocalClients
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.server.evaluator import initial_adapter
from fedgrpo.federation.simulation.ports import free_ports
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.report.reader import read_rows
from fedgrpo.settings import Settings
from fedgrpo.site import declared_by
from tests.federation.deployed import (
    CONFIG,
    PATIENCE_S,
    Federation,
    Site,
    check_prompts,
    computed,
    tree,
)
from tests.federation.deployment.operated import until

POLICY = (
    "prompts_declared = 40\nlongest_prompt_tokens = 64\nwithout_privacy = true\n"
    'metrics_without_noise = true\nrewards = ["exact_match"]\n'
)
WAYS = {"kept": "", "anew": "idle_unload_min = 0\n"}
"""Whether a site keeps its model loaded, as lines of its ``site.toml``."""
STAGES = ("train", "share", "mask", "unmask")
"""The server's phases, each of one of a round's messages."""
COMMITTEES = ("train", "deal", "committee")
COMMITTEE = {
    "aggregation.protocol": "committee",
    "robust.rule": "trimmed_mean",
    "robust.trim": 1,
}


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Of the runs."""
    chosen = CONFIG | {
        "rounds": arguments.rounds,
        "model.name": arguments.model,
        "federation.min_clients": arguments.sites,
        "secure.bucket_size": min(3, arguments.sites),
        "privacy.unit": "none",
        "evaluation.every": arguments.rounds,
    }
    return chosen | COMMITTEE if arguments.committee else chosen


def started(
    federation: Federation, arguments: argparse.Namespace, way: str
) -> tuple[list[Site], dict[str, Any]]:
    """Sites that run, and settings that name the committee among them, if there is one."""
    policy, keys = POLICY + f'models = ["{arguments.model}"]\n', []
    members = 4 if arguments.committee else 0
    for number in range(members):
        key = str(federation.folder / f"member-{number}.key")
        keys.append(CliRunner().invoke(app, ["committee-key", key]).stdout.split()[0])
    named = [f"{key}@127.0.0.1:{port}" for key, port in zip(keys, free_ports(members), strict=True)]
    if arguments.committee:
        policy += f'protocols = ["committee"]\ncommittee = {json.dumps(keys)}\n'
    for number in range(arguments.sites):
        own = f'committee_key = "../member-{number}.key"\n' if number < members else ""
        site = federation.site(policy, WAYS[way] + own)
        check_prompts(site.prompts)
        site.start()
    more = {"aggregation.committee": ",".join(named)} if named else {}
    return federation.sites, settings(arguments) | more


def run(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    """Figures of one run."""
    with tempfile.TemporaryDirectory() as folder, Federation(Path(folder)) as federation:
        sites, chosen = started(federation, arguments, way)
        run_dir = Path(folder) / "run"
        run_id = federation.submit(chosen | {"run.directory": str(run_dir)})
        at = [ended(run_dir, 0), ended(run_dir, 1)]
        before = computed(federation)
        at += [ended(run_dir, number) for number in range(2, arguments.rounds + 1)]
        spent = {name: seconds - before[name] for name, seconds in computed(federation).items()}
        assert federation.end_of(run_id) == "finished:completed", federation.logs()
        rows = read_rows(run_dir)[1:]
        memory = idle_memory(sites[0])
        alone = training_alone(arguments, [site.prompts for site in sites])
    assert all(row.applied for row in rows), rows
    stages = COMMITTEES if arguments.committee else STAGES
    took = [
        after - since - row.seconds.get("evaluate", 0.0)
        for (since, after), row in zip(pairwise(at), rows, strict=True)
    ]
    later = {stage: mean(row.seconds.get(stage, 0.0) for row in rows[1:]) for stage in stages}
    whole = mean(took[1:])
    later["rest"] = whole - sum(later.values())
    return {
        "way": way,
        "model": arguments.model,
        "sites": arguments.sites,
        "first_round_s": round(took[0], 1),
        "round_s": round(whole, 1),
        "training_s": round(alone, 2),
        "outside_training_s": round(whole - alone, 1),
        "phases_s": {stage: round(seconds, 1) for stage, seconds in later.items()},
        "cpu_s": {name: round(s / (len(rows) - 1), 2) for name, s in spent.items()},
        "idle_mb": memory,
        "load": round(os.getloadavg()[0], 1),
    }


def ended(run_dir: Path, number: int) -> float:
    """Wait for a round's row, and return when it came."""
    until(lambda: run_dir.exists() and len(read_rows(run_dir)) > number, "a round", PATIENCE_S)
    return time.monotonic()


def idle_memory(site: Site) -> dict[str, int]:
    """Proportional set sizes of a site's processes, MB: what is shared counts once."""
    found: dict[str, int] = {}
    for process in tree(site.process.pid):
        name = process.cmdline()[2].rpartition(".")[2] if len(process.cmdline()) > 2 else "other"
        name = "supervisor" if process.pid == site.process.pid else name
        found[name] = found.get(name, 0) + round(process.memory_full_info().pss / 1e6)
    return found


def training_alone(arguments: argparse.Namespace, prompts: list[Path]) -> float:
    """Seconds of the longest contribution, when all sites make theirs at once in processes that
    have made one before.
    """
    spawning = multiprocessing.get_context("spawn")
    together, took = spawning.Barrier(len(prompts)), spawning.Queue()
    workers = [
        spawning.Process(target=contribute, args=(settings(arguments), file, together, took))
        for file in prompts
    ]
    for worker in workers:
        worker.start()
    seconds = [took.get(timeout=PATIENCE_S) for _ in workers]
    for worker in workers:
        worker.join()
    return max(seconds)


def contribute(run_config: dict[str, Any], prompts: Path, together: Any, took: Any) -> None:
    """Contribute twice, and say how long it took the second time."""
    chosen = Settings.from_run_config(run_config)
    config = {"prompts": str(prompts)}
    adapter, clients = initial_adapter(chosen), LocalClients()
    clients.prepare(chosen, config, adapter, declared_by(config, chosen))
    plan, client = release_plan(chosen, adapter.vector.size, 1.0), clients(chosen, config)
    for round in (1, 2):
        together.wait(PATIENCE_S)
        began = time.perf_counter()
        client.contribute(adapter, plan, round, bytes(32), Watch())
    took.put(time.perf_counter() - began)


def table(results: list[dict[str, Any]]) -> str:
    """For docs/benchmarks.md."""
    columns = ["model", "a round", "outside training", *results[0]["phases_s"]]
    columns += ["first round", "CPU of a site", "CPU of the server", "load"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for one in results:
        phases = " | ".join(f"{seconds:.1f}" for seconds in one["phases_s"].values())
        site_s, server_s = one["cpu_s"]["sites"] / one["sites"], one["cpu_s"]["server"]
        lines.append(
            f"| {one['way']} | {one['round_s']:.1f} s | **{one['outside_training_s']:.1f} s** | "
            f"{phases} | {one['first_round_s']:.1f} s | {site_s:.2f} s | {server_s:.2f} s | "
            f"{one['load']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--model", default="tiny", help="a folder for another one than the tiny")
    parser.add_argument("--committee", action="store_true", help="of four sites")
    arguments = parser.parse_args()
    if Path(arguments.model).is_dir():
        arguments.model = str(Path(arguments.model).absolute())
    results = [run(arguments, way) for way in arguments.ways.split(",")]
    print(table(results))
    for one in results:
        parts = ", ".join(f"{name} {mb}" for name, mb in sorted(one["idle_mb"].items()))
        print(f"{one['way']}: an idle site's memory in MB, {parts}; {sum(one['idle_mb'].values())}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
