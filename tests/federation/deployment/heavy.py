"""Apps that a test names by ``--app``: an array of 100 MB goes to a node and comes back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedgrpo.federation.deployment.flower_internals.tasks import APP_FAILED

BYTES = 100_000_000

client_app = ClientApp()
server_app = ServerApp()


@client_app.query()
def query(message: Message, context: Context) -> Message:
    array = message.content["adapter"]["vector"].numpy()
    digest = ConfigRecord({"digest": hashlib.sha256(array.tobytes()).hexdigest()})
    back = RecordDict({"adapter": ArrayRecord([array[::-1].copy()]), "digest": digest})
    return Message(back, reply_to=message)


@client_app.query("failing")
def failing(message: Message, context: Context) -> Message:
    raise ValueError(f"{context.node_config['prompts']} has 40 rows")


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    array = np.random.default_rng(0).integers(0, 255, BYTES, dtype=np.uint8)
    content = RecordDict({"adapter": ArrayRecord({"vector": _array(array)})})
    (node,) = _nodes(grid)
    order = Message(content, dst_node_id=node, message_type="query")
    (reply,) = grid.send_and_receive([order], timeout=500)
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    assert reply.content["digest"]["digest"] == digest
    (back,) = reply.content["adapter"].values()
    assert np.array_equal(back.numpy(), array[::-1])
    (failed,) = grid.send_and_receive([_failing(node)], timeout=500)
    assert failed.error.reason == APP_FAILED, "a site's path or count has left it"
    Path(str(context.run_config["run.directory"])).write_text(digest)


def _array(values):
    from flwr.app import Array

    return Array(values)


def _nodes(grid):
    import time

    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.5)
    return nodes


def _failing(node):
    return Message(RecordDict(), dst_node_id=node, message_type="query.failing")
