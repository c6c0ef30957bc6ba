"""The app that runs here: installed by this machine's own people, and never from a bundle."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, TypeVar

from fedgrpo.ground.errors import RunError

App = TypeVar("App")

CLIENT = "fedgrpo.federation.node.client_app:make_client_app"
SERVER = "fedgrpo.federation.server.app:make_server_app"
"""What runs where nothing else is named."""
RESIDENT = "fedgrpo.federation.node.resident_app:make_resident_app"
"""The same at a site that keeps its model loaded; made of the path of the model process's door."""
MODEL = "fedgrpo.federation.node.residence.serving:serve"
"""What a site's model process does."""


def load(reference: str) -> Any:
    """What stands at ``package.module:name``."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def load_app(reference: str, kind: type[App], *made_of: str) -> App:
    """Import an app, or what makes one.

    Parameters
    ----------
    reference:
        ``package.module:name``. Modules in the folder from which the command was started are found,
        too.
    kind:
        ``ClientApp`` or ``ServerApp``.
    made_of:
        What a function that makes one is given.

    Raises
    ------
    RunError
        If it is none.
    """
    module, colon, name = reference.partition(":")
    if not (module and colon and name):
        raise RunError(f"--app {reference!r} names no app", cure="write --app our_package:app")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = load(reference)
        app = found if isinstance(found, kind) else found(*made_of)
    except Exception as error:
        raise RunError(
            f"--app {reference!r} cannot be loaded: {type(error).__name__}: {error}",
            cure="install the package here, and name a module and its app: our_package:app",
        ) from error
    if not isinstance(app, kind):
        raise RunError(
            f"--app {reference!r} is {type(app).__name__}, and no {kind.__name__}",
            cure=f"name a {kind.__name__}, or a function that makes one",
        )
    return app
