"""Telling systemd that this process is well: datagrams to a socket that it names, as sd_notify(3)
describes them. Where nobody asks, nothing is said.
"""

from __future__ import annotations

import asyncio
import os
import socket

READY, WELL, STOPPING = b"READY=1", b"WATCHDOG=1", b"STOPPING=1"
UNWATCHED_S = 3600.0
"""Between two words where nobody waits for one."""


def say(word: bytes) -> None:
    """Tell systemd something; it need not be there, nor listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # Of an abstract socket, the first byte is zero.
    address = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
            there.setblocking(False)
            there.sendto(word, address)
    except OSError:
        return


def pause_s() -> float:
    """Seconds between two signs of life: a third of those after which systemd gives this process
    up.
    """
    said = os.environ.get("WATCHDOG_USEC", "")
    return int(said) / 3e6 if said.isdecimal() and int(said) else UNWATCHED_S


async def keep_telling() -> None:
    """Say that this process has started, and go on saying that its loop goes round, until this is
    cancelled.
    """
    say(READY)
    try:
        while True:
            say(WELL)
            await asyncio.sleep(pause_s())
    finally:
        say(STOPPING)
