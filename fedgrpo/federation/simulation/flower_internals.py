"""Everything that is used of Flower's private parts, in one file.

They may move with any release of Flower: ``pyproject.toml`` pins the minor version that the tests
ran with. To take a newer one, correct this file, pass the tests, and widen the pin.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_all_nested_objects
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedgrpo.federation.simulation.ports import free_ports

__all__ = ["SERVER_NODE", "Run", "object_bytes", "run_simulation", "sent_as", "sent_by", "serve"]

RAY_PORTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)
"""Ports that Ray's helpers choose when they have started, unless they are told."""
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
    import ray
    from flwr.server.superlink.fleet.vce.backend import raybackend
    from flwr.simulation.app import flwr_simulation
    from flwr.simulation.ray_transport.ray_actor import BasicActorPool
    from ray._private import parameter
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

    class Told(parameter.RayParams):
        """Ray's own, with a port for each helper.

        Ray's main process ends itself when a helper, which may take longer on a busy machine, has
        not chosen its port within 15 seconds, a number that cannot be set; it does not wait for
        ports that are given.
        """

        def __init__(self, **kwargs: Any) -> None:
            ports = zip(RAY_PORTS, free_ports(len(RAY_PORTS)), strict=True)
            super().__init__(**kwargs | dict(ports))

    runtime: Any = raybackend
    runtime.BasicActorPool = Pool
    parameter.RayParams = Told
    flwr_simulation()
