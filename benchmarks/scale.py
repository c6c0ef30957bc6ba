"""What a round costs by holders and parameters: CPU by phase, memory of the server alone, bytes.

One cell (who aggregates, n holders, d parameters) is a process of its own: the server, with nothing
beside it, and one child of it in which all nodes run, which send vectors made up in advance. What
passes between the two is pickled, and that is not counted. Server and nodes are the product's own;
of Flower's, its strategies (FedAvg, FedTrimmedAvg) with nodes that do no more than answer, and its
SecAgg+ (workflow and mod) with as few neighbours as a bucket has, where it is fastest. Cells of one
size follow each other, so that all have the same weather. Each is a line of JSON.

Memory is the highest resident set during the round above what the process had before it.

Usage::

    PYTHONPATH=. python benchmarks/scale.py --holders 12,200 --parameters 4000,1000000 [--ways ...]
    PYTHONPATH=. python benchmarks/scale.py --largest-gb 8 --out scale.jsonl   # the whole grid
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedgrpo.federation.simulation.flower_internals import sent_as, serve
from fedgrpo.federation.simulation.local_grid import FIRST_NODE, LocalGrid, stage_of
from fedgrpo.federation.wire.metered import payload

OURS = ("plain", "buckets", "committee")
FLOWERS = ("FedAvg", "FedTrimmedAvg", "SecAgg+")
HOLDERS = (12, 50, 200, 400, 1000)
PARAMETERS = (4_000, 100_000, 1_000_000, 4_400_000)
MEMBERS_LIMIT = {"committee": 60_000_000}
"""Holders times parameters beyond which a way is left out: the child has all four members."""


def main() -> None:
    """Run every cell that has no line yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holders", default=",".join(map(str, HOLDERS)))
    parser.add_argument("--parameters", default=",".join(map(str, PARAMETERS)))
    parser.add_argument("--ways", default=",".join((*OURS, *FLOWERS)))
    parser.add_argument("--largest-gb", type=float, default=8.0, help="of float32 values, n x d")
    parser.add_argument("--out", type=Path, help="lines are added to it, and not made again")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        way, holders, parameters = args.cell
        print(json.dumps(measured(way, int(holders), int(parameters))))
        return
    done = args.out.read_text().splitlines() if args.out and args.out.exists() else []
    known = {tuple(json.loads(line)[k] for k in ("way", "n", "d")) for line in done}
    for n in map(int, args.holders.split(",")):
        for d in map(int, args.parameters.split(",")):
            for way in args.ways.split(","):
                fits = 4 * n * d <= args.largest_gb * 1e9 and n * d <= MEMBERS_LIMIT.get(way, n * d)
                if fits and (way, n, d) not in known:
                    line = cell(way, n, d)
                    print(line, flush=True)
                    if args.out:
                        with args.out.open("a") as file:
                            file.write(line + "\n")


def cell(way: str, n: int, d: int) -> str:
    """The line of one cell, from a process of its own."""
    command = [sys.executable, __file__, "--cell", way, str(n), str(d)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode == 0:
        return ran.stdout.splitlines()[-1]
    return json.dumps({"way": way, "n": n, "d": d, "problem": f"exit code {ran.returncode}"})


def measured(way: str, n: int, d: int) -> dict[str, Any]:
    """One cell, in this process."""
    logging.disable(logging.WARNING)
    played(way, 12, 16)  # Imports, and whatever else is done once.
    rounds = max(1, min(5, 2_000_000 // (n * d)))
    found = played(way, n, d, rounds)
    return {"way": way, "n": n, "d": d, "rounds": rounds, **found}


def played(way: str, n: int, d: int, rounds: int = 1) -> dict[str, Any]:
    """So many rounds among so many nodes; figures are for one."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(
        target=be_nodes, args=(theirs, way, n, d, rounds), daemon=True
    )
    child.start()
    theirs.close()
    grid = PipeGrid(ours, n)
    before = reset_peak()
    reason = (run_ours if way in OURS else run_flowers)(way, grid, n, d, rounds)
    grid.mark("")
    peak = peak_bytes() - before
    nodes = grid.close()
    child.join()
    each = {stage: round(cpu / rounds, 4) for stage, cpu in grid.cpu.items() if stage}
    return {
        "server_cpu_s": round(sum(each.values()), 4),
        "server_by_stage": each,
        "nodes_cpu_s": round(sum(nodes.values()) / rounds, 4),
        "nodes_by_stage": {stage: round(cpu / rounds, 4) for stage, cpu in nodes.items()},
        "server_mb": round(peak / 1e6, 1),
        "server_base_mb": round(before / 1e6, 1),
        "bytes_to_node": round(grid.bytes["to"] / rounds / n),
        "bytes_from_node": round(grid.bytes["from"] / rounds / n),
        "skipped": reason,
        "load": round(os.getloadavg()[0], 1),
    }


class PipeGrid(Grid):
    """Flower's Grid over a pipe to the process that has the nodes; replies are made when pulled."""

    def __init__(self, pipe: Connection, nodes: int) -> None:
        self._pipe, self._nodes, self._run = pipe, nodes, serve(1)
        self._ids = 0
        self.cpu: dict[str, float] = defaultdict(float)
        self.carrying = 0.0
        self.bytes: Counter[str] = Counter()
        self._stage, self._since = "", time.process_time()

    def mark(self, stage: str) -> None:
        """From now on, time is this stage's."""
        now = time.process_time() - self.carrying
        self.cpu[self._stage] += now - self._since
        self._stage, self._since = stage, now

    @contextmanager
    def _carried(self) -> Iterator[None]:
        begun = time.process_time()
        yield
        self.carrying += time.process_time() - begun

    @property
    def run(self) -> Any:
        """The run."""
        return self._run

    def set_run(self, run: Any) -> None:
        """Set it."""

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """See Flower's Grid."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, always."""
        return list(range(FIRST_NODE, FIRST_NODE + self._nodes))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages over."""
        listed = list(messages)
        self.mark(named(listed[0]) if listed else "")
        with self._carried():
            for message in listed:
                self._ids += 1
                sent_as(message, f"m{self._ids}")
                self.bytes["to"] += payload(message)
            self._pipe.send(("push", listed))
            return [message.metadata.message_id for message in listed]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Have these answered, one after the other."""
        ids = list(message_ids)
        replies = []
        with self._carried():
            self._pipe.send(("pull", ids))
            for _ in ids:
                replies.append(self._pipe.recv())
                self.bytes["from"] += payload(replies[-1])
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, and pull all."""
        return self.pull_messages(self.push_messages(messages))

    def close(self) -> dict[str, float]:
        """CPU seconds of the nodes by stage."""
        self._pipe.send(("end", []))
        return self._pipe.recv()


def named(message: Message) -> str:
    """Stage of a message; SecAgg+ has them all in messages to train."""
    for name, record in message.content.items():
        if name == "secaggplus_configs" and isinstance(record, ConfigRecord):
            return str(record["stage"])
    return stage_of(message)


def be_nodes(pipe: Connection, way: str, n: int, d: int, rounds: int) -> None:
    """Answer messages when their answers are pulled."""
    serve(1)
    vectors = Vectors(d)
    grid = our_nodes(way, n, d, rounds, vectors) if way in OURS else flowers_nodes(way, n, vectors)
    waiting: dict[str, Message] = {}
    spent: dict[str, float] = defaultdict(float)
    while True:
        task, given = pipe.recv()
        if task == "end":
            pipe.send(dict(spent))
            return
        if task == "push":
            waiting |= {message.metadata.message_id: message for message in given}
            continue
        for key in given:
            message = waiting.pop(key)
            begun = time.process_time()
            reply = grid._run_app(message, message.metadata.dst_node_id)
            spent[named(message)] += time.process_time() - begun
            assert reply.has_content(), reply.error
            pipe.send(reply)


class Vectors:
    """A vector for each node, none like another."""

    def __init__(self, d: int) -> None:
        self._one = (np.random.default_rng(0).normal(size=d) / d**0.5 / 4).astype(np.float32)

    def of(self, node: int) -> np.ndarray:
        """The node's, float32, shape (d,)."""
        return np.roll(self._one, 7 * node)


# This package --------------------------------------------------------------------------------


def our_settings(way: str, n: int, rounds: int) -> Any:
    """A run without noise and with the default rule: only what aggregation costs."""
    from fedgrpo.settings import Settings

    return Settings.from_mapping(
        {
            "rounds": rounds,
            "simulation": {"clients": n},
            "privacy": {"unit": "none"},
            "aggregation": {"protocol": way},
            "robust": {"rule": "trimmed_mean", "trim": trimmed(way, n)},
            "federation": {"min_clients": n},
            "evaluation": {"every": 1000},
        }
    )


def trimmed(way: str, n: int) -> int:
    """One in twenty of the vectors that the rule sees, but at least one."""
    return max(1, (n // 3 if way == "buckets" else min(n, 20)) // 20)


def our_nodes(way: str, n: int, d: int, rounds: int, vectors: Vectors) -> LocalGrid:
    """The product's client app, over clients that have their release already."""
    from fedgrpo.federation import make_client_app

    class Holder:
        def __init__(self, node: int) -> None:
            self._node = node

        def contribute(self, adapter: Any, plan: Any, round: int, key: bytes, watch: Any) -> Any:
            release = np.zeros(plan.size)
            release[:d] = vectors.of(self._node)
            return release

    app = make_client_app(lambda _, config: Holder(int(config["partition-id"])))
    return LocalGrid(app, n, run_config=our_settings(way, n, rounds).to_run_config())


def run_ours(way: str, grid: PipeGrid, n: int, d: int, rounds: int) -> str:
    """The product's strategy; why a round was skipped, if one was."""
    from fedgrpo.federation import FedGRPO
    from fedgrpo.federation.wire.messages import write_adapter
    from fedgrpo.model.adapter import AdapterState

    strategy = FedGRPO(our_settings(way, n, rounds))
    strategy.start(grid, write_adapter(AdapterState(np.zeros(d, np.float32), {}, "0" * 64)))
    return " ".join(row.reason for row in strategy.history[1:])


# Flower's own --------------------------------------------------------------------------------


def flowers_nodes(way: str, n: int, vectors: Vectors) -> LocalGrid:
    """Nodes that answer with a vector, by today's API or, under SecAgg+, by the one it needs."""
    from flwr.client.mod import secaggplus_mod
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
    from flwr.compat.common import recorddict_compat as compat

    app = ClientApp(mods=[secaggplus_mod] if way == "SecAgg+" else [])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        vector = vectors.of(int(context.node_config["partition-id"]))
        if way == "SecAgg+":
            sent = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([vector]), 1, {})
            return Message(compat.fitres_to_recorddict(sent, False), reply_to=message)
        metrics = MetricRecord({"num-examples": 1})
        records = {"arrays": ArrayRecord([vector]), "metrics": metrics}
        return Message(RecordDict(records), reply_to=message)

    return LocalGrid(app, n)


def run_flowers(way: str, grid: PipeGrid, n: int, d: int, rounds: int) -> str:
    """One of Flower's ways to aggregate."""
    if way == "SecAgg+":
        run_secaggplus(grid, n, d, rounds)
        return ""
    from flwr.serverapp.strategy import FedAvg, FedTrimmedAvg

    every: dict[str, Any] = {"fraction_evaluate": 0.0, "min_available_nodes": n}
    strategy: Any = FedAvg(**every)
    if way == "FedTrimmedAvg":  # Flower trims int(beta * n).
        strategy = FedTrimmedAvg(**every, beta=(max(1, n // 20) + 0.25) / n)
    strategy.start(grid, ArrayRecord([np.zeros(d, np.float32)]), num_rounds=rounds)
    return ""


def run_secaggplus(grid: PipeGrid, n: int, d: int, rounds: int) -> None:
    """SecAgg+ with two neighbours each and a threshold of two, as in a bucket of three."""
    from flwr.common import ndarrays_to_parameters
    from flwr.compat.common import recorddict_compat as compat
    from flwr.server import LegacyContext, ServerConfig
    from flwr.server.client_manager import SimpleClientManager
    from flwr.server.compat.grid_client_proxy import GridClientProxy
    from flwr.server.strategy import FedAvg
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD

    manager = SimpleClientManager()
    for node in grid.get_node_ids():
        manager.register(GridClientProxy(node, grid, 1))
    strategy = FedAvg(fraction_evaluate=0.0, min_fit_clients=n, min_available_clients=n)
    bare = Context(1, 0, {}, RecordDict(), {})
    context = LegacyContext(bare, ServerConfig(rounds), strategy, manager)
    first = ndarrays_to_parameters([np.zeros(d, np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(first, True)
    workflow = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2)
    for number in range(1, rounds + 1):
        context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({"current_round": number})
        workflow(grid, context)


# Memory --------------------------------------------------------------------------------------


def reset_peak() -> int:
    """Bytes resident now, from which the peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak_bytes() -> int:
    """Most bytes resident since."""
    return status("VmHWM")


def status(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(name + ":")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
