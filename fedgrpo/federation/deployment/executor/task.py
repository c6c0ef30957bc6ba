"""Process: one task, a message at a site or a run at the operator's, by the installed app."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

import httpx
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedgrpo.federation.deployment.executor.apps import load_app
from fedgrpo.federation.deployment.flower_internals.runtime import Runtime
from fedgrpo.federation.deployment.flower_internals.tasks import answer_message, serve_run
from fedgrpo.ground.errors import FedGRPOError

LOG = logging.getLogger(__name__)


def work(said: Mapping[str, Any], token: str) -> None:
    """Do it, and end.

    Parameters
    ----------
    said:
        What the executor was told.
    token:
        Of the task.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    kind, app = said["kind"], said["app"]
    client = Runtime(**said["runtime"]).client(kind, token)
    try:
        if kind == "flwr-clientapp":
            answer_message(client, lambda: load_app(app, ClientApp, *said["made_of"]), _told_here)
        else:
            serve_run(client, lambda: load_app(app, ServerApp))
    except FedGRPOError as error:
        sys.exit(str(error))
    except httpx.HTTPStatusError as error:
        sys.exit(f"the task is no longer this process's: {error.response.status_code}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End as with Ctrl-C, so that what must be told is told."""
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _told_here(error: BaseException) -> None:
    LOG.error("the app raised an exception", exc_info=error, extra={"code": "app-failed"})
