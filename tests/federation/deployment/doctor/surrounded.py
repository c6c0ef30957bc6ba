"""A gateway on loopback, a site's folder and an invitation: what the doctor is shown in tests."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from datetime import timedelta
from pathlib import Path

from fedgrpo.federation.deployment.doctor import examine  # noqa: F401 - makes all checks known
from fedgrpo.federation.deployment.doctor.registry import CHECKS
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.federation.deployment.gateway.app import Gateway
from fedgrpo.federation.deployment.gateway.enrolment.book import Book, invited
from fedgrpo.federation.deployment.gateway.inner import Inner
from fedgrpo.federation.deployment.gateway.serve import listen, server
from fedgrpo.federation.deployment.invitation.invitation import Invitation
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.settings import Settings
from fedgrpo.site.checked import Checked, files_stamp, keep_checked, looked_at
from fedgrpo.site.node_folder import folder_beside
from tests.federation.certificates import node_files, superlink_files

SECRET = "the patient's name is Rumpelstiltskin"
"""Stands in every prompt, and may be seen nowhere else."""
TOKEN = "t" * 43
POLICY = """
prompts_declared = 40
longest_prompt_tokens = 64
answer_after_s = 600.0
models = ["tiny"]
rewards = ["exact_match"]
[prompt]
largest_epsilon = 1e6
"""
AGREED = """
rounds = 2
[grpo]
prompts_per_step = 4
group_size = 4
max_prompt_length = 64
[data]
min_prompts = 4
[privacy]
max_epsilon = 1e6
"""


class Recording:
    """An ASGI application that lets everything through and remembers it."""

    def __init__(self, app):
        self.app, self.requests = app, []

    async def __call__(self, scope, receive, send):
        body = bytearray()

        async def heard():
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        self.requests.append((scope["method"], scope["path"], dict(scope["headers"]), body))
        await self.app(scope, heard, send)


class Door:
    """fedgrpo's gateway, whose SuperLink is not there, in a thread of this process."""

    def __init__(self, folder, app=None, **certificate):
        folder.mkdir(exist_ok=True)
        self.ca, own, key = superlink_files(folder, **{"ends_in": timedelta(days=90)} | certificate)
        self.book = Book(folder)
        inner = Inner("127.0.0.1:9", str(self.ca), "none")
        self.recording = Recording(app or Gateway(inner, self.book))
        self.listening = listen("127.0.0.1", 0)
        self.port = self.listening.getsockname()[1]
        self.server = server(self.recording, own, key)

    def invite(self, site="hospital-a"):
        """Write a site into the operator's book."""
        ends = int(time.time()) + 7 * 86_400
        self.book.change(site, lambda b: invited(b, TOKEN, ends, "", again=bool(b), name=site))

    def __enter__(self):
        self.invite()
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve(sockets=[self.listening]))
        )
        self.thread.start()
        deadline = time.monotonic() + 60
        while not self.server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(20)


def write_prompts(file, rows=8, **columns):
    """Rows that the shipped model can read, each with its answer."""
    lines = [
        {"prompt": f"sort {number}21=", "answer": f"12{number}", **columns}
        for number in range(rows)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def site_folder(folder, port=1, ca="ca.crt", *, agreed="", **keys):
    """Write all that a site has, in order, and return its file."""
    folder.mkdir(exist_ok=True)
    node_files(folder, "node")
    (folder / "node.key").chmod(0o600)
    prompts = folder / "prompts.jsonl"
    write_prompts(prompts)
    (folder / "policy.toml").write_text(POLICY)
    found = Checked(files_stamp(str(prompts)), {looked_at(Settings()): 8})
    keep_checked(folder_beside(prompts), found)
    named = {"server": f"localhost:{port}", "ca": str(ca), "key": "node.key"}
    named |= {"prompts": "prompts.jsonl"} | keys
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in named.items()]
    (folder / "site.toml").write_text("".join(lines))
    return folder / "site.toml"


def invitation(port=1, ca=None, **changed):
    """One as an operator writes it."""
    fields = {
        "server": f"localhost:{port}",
        "ca": ca.read_text() if ca else "system",
        "site": "hospital-a",
        "token": TOKEN,
        "expires": int(time.time()) + 7 * 86_400,
        "fedgrpo": VERSION,
        "settings": AGREED,
    }
    return Invitation(**fields | changed)


def found(here: Surroundings, number: int) -> dict[str, str]:
    """Codes of what a check says, each with its line and cure; an empty one where all is well."""
    return {each.code: f"{each.line}\n{each.cure}" for each in CHECKS[number].look(here)}


def tree(folder: Path):
    """Everything below a folder: names, modes, times and contents."""
    return {
        str(path): (os.lstat(path).st_mode, os.lstat(path).st_mtime_ns, _content(path))
        for path in sorted(folder.rglob("*"))
    }


def _content(path):
    return path.read_bytes() if path.is_file() else b""
