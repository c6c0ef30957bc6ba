"""Where tasks come from, and how one is answered."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from typing import Any

from flwr.app import Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.serverapp import ServerApp

from fedgrpo.federation.deployment.flower_internals.objects import see_soon
from fedgrpo.federation.deployment.flower_internals.packing import pack_all, packed, unpacked

APP_FAILED = "the app that this site runs raised an exception: see the site's own log"
"""All that leaves a node about an exception."""


def import_for_tasks(kind: str) -> None:
    """Import what a task of that kind takes of Flower."""
    import flwr.supercore.heartbeat
    import flwr.supernode.runtime.run_clientapp

    see_soon(give_up=kind == "flwr-clientapp")
    if kind == "flwr-serverapp":
        import flwr.superlink.grid  # noqa: F401


def next_task(client: Any, kind: str) -> str:
    """Token of the next task; empty while there is none."""
    from flwr.proto.runtime_pb2 import AcquireTaskRequest

    answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
    return str(answer.token) if answer.HasField("task") else ""


@contextlib.contextmanager
def _beating(client: Any) -> Iterator[None]:
    """Say that the task is alive, until it ends. A task that was stopped gets a SIGINT."""
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http

    sender = HeartbeatSender(make_task_heartbeat_fn_http(client))
    sender.start()
    try:
        yield
    finally:
        if sender.is_running:
            sender.stop()


def answer_message(
    client: Any, app: Callable[[], ClientApp], failed: Callable[[BaseException], None]
) -> None:
    """Have a site's app answer one message. What the bundle brings is neither unpacked nor read.

    Parameters
    ----------
    client:
        Of the task.
    app:
        Loads the one that is installed at the site; meanwhile, the task is alive.
    failed:
        Gets what the app raised, which stays at the site.
    """
    from flwr.supernode.runtime.run_clientapp import (
        pull_task_input,
        push_message,
        push_task_output,
    )

    with _beating(client):
        message, context, _, _ = pull_task_input(client)
        try:
            reply = packed(app()(message=unpacked(message), context=context))
        except Exception as error:
            failed(error)
            reply = Message(Error(code=0, reason=APP_FAILED), reply_to=message)
        push_message(client, reply, context)
        push_task_output(client, context, SubStatus.COMPLETED, "")


def serve_run(client: Any, app: Callable[[], ServerApp]) -> None:
    """Have the operator's installed app serve one run. Of the bundle, settings alone are read."""
    from flwr.common.config import get_fused_config_from_fab
    from flwr.common.serde import context_from_proto, fab_from_proto, run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    with _beating(client):
        given = client.PullTaskInput(PullTaskInputRequest())
        context, run = context_from_proto(given.context), run_from_proto(given.run)
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, run.run_id
        TaskIdentity.node_id = context.node_id
        grid = HttpGrid("", token="unused")
        grid._client = client
        pack_all(grid)
        grid.set_run(run)
        with _logs_of(client, run.run_id), _outcome_of(client):
            fab = fab_from_proto(given.fab)
            context.run_config = get_fused_config_from_fab(fab.content, run)
            app()(grid=grid, context=context)


@contextlib.contextmanager
def _outcome_of(client: Any) -> Iterator[None]:
    """Tell the SuperLink how the run ended; what the app raised is raised on."""
    from flwr.supernode.runtime.run_clientapp import push_task_output

    try:
        yield
    except BaseException as error:
        said = f"ServerApp failed with exception: {error}"
        stopped = not isinstance(error, Exception)
        push_task_output(client, None, SubStatus.STOPPED if stopped else SubStatus.FAILED, said)
        raise
    push_task_output(client, None, SubStatus.COMPLETED, "")


@contextlib.contextmanager
def _logs_of(client: Any, run_id: int) -> Iterator[None]:
    """Let ``flwr log`` see what is printed meanwhile."""
    from flwr.supercore.logger import (
        flush_logs,
        mirror_output_to_queue,
        restore_output,
        start_log_uploader,
        stop_log_uploader,
    )

    lines: queue.Queue[str | None] = queue.Queue()
    mirror_output_to_queue(lines)
    uploader = start_log_uploader(lines, node_id=0, run_id=run_id, client=client)
    try:
        yield
    finally:
        flush_logs(lines)
        stop_log_uploader(lines, uploader)
        restore_output()
