"""What many nodes cost a server that trains nothing with them: while nothing runs, and by round.

A server behind its gateway, as its operator starts it, and registered nodes whose connection is
Flower's own; they look for messages at the pace of this package's nodes, and answer at once with
made-up numbers. A round is four messages to each node and back, as under masks. The server's app
sends them by the package's own round trip, so what is measured is gateway, SuperLink and the
waiting for replies, in CPU time of all the server's processes. The last line is JSON.

Usage: ``PYTHONPATH=. python benchmarks/many_nodes.py [--nodes 5,50] [--rounds 3] [--idle-s 60]``
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fedgrpo.federation.deployment.pace import Pace
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import pull_objects, push_objects
from flwr.supernode.fleet_http_connection import http_request_response

from fedgrpo.federation.deployment.flower_internals.control import list_nodes, nodes_by_key
from fedgrpo.federation.deployment.flower_internals.packing import packed
from fedgrpo.federation.deployment.flower_internals.servers import LOOK
from fedgrpo.federation.wire.exchange import Collection, as_it_is, round_trip, wait_for_nodes
from tests.federation.deployed import Federation, computed
from tests.federation.deployment.operated import until

STAGES = ("share", "mask", "unmask", "train")
VALUES = 4_000
"""Of an adapter that is sent and of a release that comes back: those of the shipped model."""
PATIENCE_S = 900.0
APART_S = 1.0
"""Between the starts of two nodes: many handshakes at once are another question."""


def content() -> RecordDict:
    """What a message carries: one array and a few words, as the package's own do."""
    values = np.zeros(VALUES, dtype=np.float32)
    return RecordDict(
        {"arrays": ArrayRecord({"a": Array(values)}), "header": ConfigRecord({"round": 1})}
    )


def make_app() -> ServerApp:
    """Rounds without training, each after the other. What they took goes into a file."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        nodes = wait_for_nodes(grid, int(context.run_config["federation.min_clients"]), 120.0)
        done = Path(str(context.run_config["run.directory"]))
        for number in range(1 + int(context.run_config["rounds"])):
            for stage in STAGES:
                kind = "train" if stage == "train" else f"query.{stage}"
                sent = [Message(content(), node, kind, ttl=PATIENCE_S) for node in nodes]
                replies = round_trip(grid, sent, PATIENCE_S, Collection(as_it_is))
                assert not replies.failures, replies.failures
            (done / str(number)).touch()

    return app


class Node:
    """A node that answers whatever comes."""

    def __init__(self, federation: Federation, over: threading.Event) -> None:
        self._address, self._root = f"localhost:{federation.server.port}", federation.server.ca
        self._key, _ = federation.server.register()
        self._over, self._pace = over, Pace(LOOK.quiet_s, LOOK.busy_s)
        self.thread = threading.Thread(target=self._live, daemon=True)

    def _live(self) -> None:
        keys = self._key, self._key.public_key()
        with http_request_response(self._address, False, str(self._root), keys) as connection:
            while not self._over.is_set():
                if not self._answer(connection):
                    self._over.wait(self._pace.wait_s)

    def _answer(self, connection: Any) -> bool:
        _, receive, send, _, _, pull_object, push_object, confirm = connection
        if (came := receive()) is None:
            return False
        message, tree = came
        run = message.metadata.run_id
        pull_objects([each.object_id for each in _each(tree)], lambda o: pull_object(run, o))
        confirm(run, message.metadata.message_id)
        reply = packed(Message(content(), reply_to=message))
        reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            wanted, session = send(reply, get_object_tree(reply), 0.0)
            push_objects(
                get_all_nested_objects(reply),
                lambda o, c: push_object(run, session, o, c),
                object_ids_to_push=wanted,
            )
        self._pace.came()
        return True


def _each(tree: Any) -> Iterator[Any]:
    yield tree
    for child in tree.children:
        yield from _each(child)


@contextmanager
def nodes(federation: Federation, count: int) -> Iterator[None]:
    """So many nodes, for a while."""
    over = threading.Event()
    made = [Node(federation, over) for _ in range(count)]
    for node in made:
        node.thread.start()
        time.sleep(APART_S)
    try:
        yield
    finally:
        over.set()
        for node in made:
            node.thread.join(30)


def measured(count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures with so many nodes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        federation = stack.enter_context(Federation(folder, "--app", "many_nodes:make_app"))
        stack.enter_context(nodes(federation, count))
        until(lambda: online(federation) == count, f"{count} nodes", PATIENCE_S)
        time.sleep(10)  # What begins is not what goes on.
        before, began = computed(federation)["server"], time.monotonic()
        time.sleep(arguments.idle_s)
        idle = (computed(federation)["server"] - before) / (time.monotonic() - began)
        rounds = measured_rounds(federation, folder, count, arguments.rounds)
    return {
        "nodes": count,
        "idle_share_of_a_core": round(idle, 4),
        **rounds,
        "load": round(os.getloadavg()[0], 1),
    }


def measured_rounds(federation: Federation, folder: Path, count: int, often: int) -> dict[str, Any]:
    """Figures of so many rounds; none of no round."""
    if not often:
        return {}
    config = {"rounds": often, "federation.min_clients": count}
    run = federation.submit(config | {"run.directory": str(folder)})
    # The first round is not counted: it has the start of the run in it.
    until((folder / "0").exists, "a round", PATIENCE_S)
    before, began = computed(federation)["server"], time.monotonic()
    until((folder / str(often)).exists, "the rounds", PATIENCE_S)
    spent = (computed(federation)["server"] - before) / often
    round_s = (time.monotonic() - began) / often
    assert federation.end_of(run) == "finished:completed", federation.logs()
    return {"cpu_s_a_node_and_round": round(spent / count, 3), "round_s": round(round_s, 1)}


def online(federation: Federation) -> int:
    """Nodes that the server has heard of."""
    known = nodes_by_key(federation.server.control("list-nodes", list_nodes()).content)
    return sum(node.online for node in known.values())


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="5,50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle-s", type=float, default=60.0)
    arguments = parser.parse_args()
    # Where the server finds its app.
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    results = [measured(int(count), arguments) for count in arguments.nodes.split(",")]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
