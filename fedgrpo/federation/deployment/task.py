"""Process: one task, a message at a site or a run at the operator's, by the installed app."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedgrpo.federation.deployment.apps import load_app
from fedgrpo.federation.deployment.children import told
from fedgrpo.federation.deployment.flower_internals import Runtime, answer_message, serve_run
from fedgrpo.ground.errors import FedGRPOError

LOG = logging.getLogger(__name__)


def main() -> None:
    """Do it, and end."""
    said = told()
    signal.signal(signal.SIGTERM, _interrupt)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    kind = said["kind"]
    client = Runtime(**said["runtime"]).client(kind, said["token"])
    try:
        if kind == "flwr-clientapp":
            answer_message(client, load_app(said["app"], ClientApp), _told_here)
        else:
            serve_run(client, load_app(said["app"], ServerApp))
    except FedGRPOError as error:
        sys.exit(str(error))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End as with Ctrl-C, so that what must be told is told."""
    raise KeyboardInterrupt


def _told_here(error: BaseException) -> None:
    LOG.error("the app raised an exception", exc_info=error)


if __name__ == "__main__":
    main()
