"""Everything that is used of Flower's private parts, in one file.

They may move with any release of Flower: ``pyproject.toml`` pins the minor version that the tests
ran with. To take a newer one, correct this file, pass the tests, and widen the pin.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_all_nested_objects
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedgrpo.federation.simulation.ports import free_ports

__all__ = [
    "SERVER_NODE",
    "Run",
    "object_bytes",
    "run_simulation",
    "sent_as",
    "sent_by",
    "serve",
    "wait_for_ray",
]

RAY_PATIENCE_S = 300
"""Seconds in which each process that Ray starts has to be heard of, on a busy machine."""
SERVER_NODE = 1
"""The SuperLink's own node id, the source of errors about nodes that went away."""


def serve(run_id: int) -> Run:
    """Make this process the server of a run: messages made from now on have it as their source."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SERVER_NODE, 1
    return Run.create_empty(run_id)


def sent_as(message: Message, message_id: str) -> None:
    """Give a message the id that Flower's own grids give it when they push it."""
    message.metadata.__dict__["_message_id"] = message_id


def sent_by(message: Message, node: int) -> None:
    """Give a message the node that it comes from."""
    message.metadata.__dict__["_src_node_id"] = node


def object_bytes(thing: InflatableObject) -> int:
    """Bytes of a Flower object with all that it holds, each part once, as it is pushed."""
    return sum(len(part.deflate()) for part in get_all_nested_objects(thing).values())


def run_simulation() -> None:
    """Be the program ``flwr-simulation``, with a client that hangs or dies dropping alone.

    Flower's own puts the process of a client that died back among the idle ones, where it takes the
    next clients down with it, and waits for one that hangs for ever. Here such a process is ended,
    at the latest when its message has expired, and another one takes its place.
    """
    wait_for_ray()
    import ray
    from flwr.server.superlink.fleet.vce.backend import raybackend
    from flwr.simulation.app import flwr_simulation
    from flwr.simulation.ray_transport.ray_actor import BasicActorPool
    from ray.exceptions import RayError, RayTaskError

    class Pool(BasicActorPool):
        """Processes that work on messages, each replaced when it is lost."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._until: dict[Any, float] = {}
            self._lost: set[Any] = set()

        def submit(self, actor_fn: Any, job: tuple[Any, Message, str, Any]) -> Any:
            metadata = job[1].metadata
            until = metadata.created_at + metadata.ttl
            if until <= time.time():
                raise TimeoutError("the message expired before a process was free for it")
            future = super().submit(actor_fn, job)
            self._until[future] = until
            return future

        def fetch_result_and_return_actor_to_pool(self, future: Any) -> tuple[Message, Any]:
            try:
                ray.get(future, timeout=max(0.0, self._until.pop(future) - time.time()))
            except RayTaskError:
                raise
            except RayError:
                self._lost.add(future)  # The caller gives it back.
                raise
            return super().fetch_result_and_return_actor_to_pool(future)

        def add_actor_back_to_pool(self, future: Any) -> None:
            if future not in self._lost:
                super().add_actor_back_to_pool(future)
                return
            self._lost.remove(future)
            lost: Any = self._future_to_actor.pop(future)
            with contextlib.suppress(Exception):  # It may be gone.
                ray.kill(lost)
            make: Any = self.create_actor_fn
            self.pool.append(make())

    runtime: Any = raybackend
    runtime.BasicActorPool = Pool
    flwr_simulation()


def wait_for_ray() -> None:
    """Have Ray wait for its own processes as long as a busy machine needs, before it is started.

    Its main process ends itself when a helper has not told its port within 15 seconds, and is given
    up when it has not registered within 30: numbers that cannot be set. So it is told what those
    of the dashboard would tell where there is none, and the port that the last one shall take.
    """
    patience = {"agent_register_timeout_ms": 1000, "worker_register_timeout_seconds": 1}
    os.environ.update({f"RAY_{key}": str(x * RAY_PATIENCE_S) for key, x in patience.items()})
    from ray import _raylet
    from ray._private import services

    private: Any = services
    names: Any = _raylet
    start, node_of = private.start_raylet, private.get_node
    unused = (
        names.METRICS_AGENT_PORT_NAME,
        names.METRICS_EXPORT_PORT_NAME,
        names.DASHBOARD_AGENT_LISTEN_PORT_NAME,
    )

    def start_raylet(*args: Any, **kwargs: Any) -> Any:
        node, folder = args[2], args[11]
        for name in unused:
            names.persist_port(folder, node, name, -1)
        (port,) = free_ports(1)
        return start(*args, **kwargs | {"runtime_env_agent_port": port})

    def get_node(gcs_address: str, node_id: str) -> Any:
        end = time.monotonic() + RAY_PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):
                return node_of(gcs_address, node_id)
            time.sleep(0.5)
        return node_of(gcs_address, node_id)

    private.start_raylet, private.get_node = start_raylet, get_node
