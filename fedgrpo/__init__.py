"""Federated reinforcement learning of language models: private, robust and secure at once.

Names are resolved when they are first used, because a deployed node starts a process for every
message and most messages need neither torch nor Flower's server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedgrpo.federation import (
        FedGRPO,
        LocalGrid,
        Result,
        make_client_app,
        make_server_app,
        simulate,
    )
    from fedgrpo.ground.callbacks import Callback
    from fedgrpo.grpo import GRPOTrainer
    from fedgrpo.settings import Settings

__all__ = [
    "Callback",
    "FedGRPO",
    "GRPOTrainer",
    "LocalGrid",
    "Result",
    "Settings",
    "make_client_app",
    "make_server_app",
    "simulate",
]

_HOMES = {
    "Callback": "fedgrpo.ground.callbacks",
    "GRPOTrainer": "fedgrpo.grpo",
    "Settings": "fedgrpo.settings",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES.get(name, "fedgrpo.federation")), name)
    except ModuleNotFoundError as error:
        if error.name != "fcntl":
            raise
        raise ImportError(
            "fedgrpo needs Linux or macOS: on Windows, run it in WSL (https://aka.ms/wsl)"
        ) from None
