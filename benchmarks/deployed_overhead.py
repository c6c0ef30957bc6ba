"""Where the seconds of a deployed round go, with the model process and without, and what a site
takes of memory while nothing runs.

A server behind its gateway and sites on loopback, as their people start them. Nothing is hidden
here (``privacy.unit = "none"``, ``answer_after_s = 0``, made-up prompts), so that an answer leaves
as soon as it is there: with a privacy unit a round takes its ``answer_after_s``, and all that is
measured here beside training lies within it or beside it. *Training* is a client's contribution
alone, in a process that has loaded everything. The first round loads the model and is told apart.
Wall times depend on what else the machine does: the load is printed, and beside them the CPU time
of a round, which depends on it less. The last line is JSON.

Usage: ``PYTHONPATH=. python benchmarks/deployed_overhead.py [--rounds 4] [--ways kept,anew]``
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from fedgrpo.federation.node.clients.local_clients import LocalClients
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.server.evaluator import initial_adapter
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
    "prompts_declared = 40\nlongest_prompt_tokens = 16\nwithout_privacy = true\n"
    "metrics_without_noise = true\n"
    'models = ["tiny"]\nrewards = ["exact_match"]\n'
)
WAYS = {"kept": "", "anew": "idle_unload_min = 0\n"}
"""Whether a site keeps its model loaded, as lines of its ``site.toml``."""
STAGES = ("train", "share", "mask", "unmask")


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Of the runs: one of the server's phases is each of a round's four messages."""
    return CONFIG | {
        "rounds": arguments.rounds,
        "federation.min_clients": arguments.sites,
        "secure.bucket_size": min(3, arguments.sites),
        "privacy.unit": "none",
        "evaluation.every": arguments.rounds,
    }


def run(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    """Figures of one run."""
    with tempfile.TemporaryDirectory() as folder, Federation(Path(folder)) as federation:
        sites = [federation.site(POLICY, WAYS[way]) for _ in range(arguments.sites)]
        for site in sites:
            check_prompts(site.prompts)
            site.start()
        run_dir = Path(folder) / "run"
        run_id = federation.submit(settings(arguments) | {"run.directory": str(run_dir)})
        until(lambda: run_dir.exists() and len(read_rows(run_dir)) > 1, "a round", PATIENCE_S)
        before = computed(federation)
        ended = federation.end_of(run_id)
        assert ended == "finished:completed", federation.logs()
        spent = {name: seconds - before[name] for name, seconds in computed(federation).items()}
        rows = read_rows(run_dir)[1:]
        memory = idle_memory(sites[0])
        alone = training_alone(arguments, sites[0])
    rounds = [{stage: row.seconds.get(stage, 0.0) for stage in STAGES} for row in rows]
    later = {stage: mean(seconds[stage] for seconds in rounds[1:]) for stage in STAGES}
    whole = sum(later.values())
    return {
        "way": way,
        "sites": arguments.sites,
        "first_round_s": round(sum(rounds[0].values()), 1),
        "round_s": round(whole, 1),
        "training_s": round(alone, 2),
        "outside_training_s": round(whole - alone, 1),
        "phases_s": {stage: round(seconds, 1) for stage, seconds in later.items()},
        "cpu_s": {name: round(s / (len(rows) - 1), 2) for name, s in spent.items()},
        "idle_mb": memory,
        "load": round(os.getloadavg()[0], 1),
    }


def idle_memory(site: Site) -> dict[str, int]:
    """Proportional set sizes of a site's processes, MB: what is shared counts once."""
    found: dict[str, int] = {}
    for process in tree(site.process.pid):
        name = process.cmdline()[2].rpartition(".")[2] if len(process.cmdline()) > 2 else "other"
        name = "supervisor" if process.pid == site.process.pid else name
        found[name] = found.get(name, 0) + round(process.memory_full_info().pss / 1e6)
    return found


def training_alone(arguments: argparse.Namespace, site: Site) -> float:
    """Seconds of a contribution in a process that has made one before."""
    chosen = Settings.from_run_config(settings(arguments))
    config = {"prompts": str(site.prompts)}
    adapter, clients = initial_adapter(chosen), LocalClients()
    clients.prepare(chosen, config, adapter, declared_by(config, chosen))
    plan, client = release_plan(chosen, adapter.vector.size, 1.0), clients(chosen, config)
    for round in (1, 2):
        began = time.perf_counter()
        client.contribute(adapter, plan, round, bytes(32), Watch())
    return time.perf_counter() - began


def table(results: list[dict[str, Any]]) -> str:
    """For docs/benchmarks.md."""
    columns = ["model", "a round", "outside training", *STAGES]
    columns += ["first round", "CPU of a site", "CPU of the server", "load"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for one in results:
        phases = " | ".join(f"{one['phases_s'][stage]:.1f}" for stage in STAGES)
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
    arguments = parser.parse_args()
    results = [run(arguments, way) for way in arguments.ways.split(",")]
    print(table(results))
    for one in results:
        parts = ", ".join(f"{name} {mb}" for name, mb in sorted(one["idle_mb"].items()))
        print(f"{one['way']}: an idle site's memory in MB, {parts}; {sum(one['idle_mb'].values())}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
