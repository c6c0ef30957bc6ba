"""A deployed node whose model process is a real one, and a test that plays its server."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import psutil
from flwr.app import Message

from fedgrpo.federation import LocalGrid, make_client_app
from fedgrpo.federation.deployment.executor.door import Door
from fedgrpo.federation.node.clock import SystemClock
from fedgrpo.federation.node.residence.clients import ResidentClients
from fedgrpo.federation.wire.codec import Header, encode
from fedgrpo.federation.wire.messages import TRAIN, TrainOrder, read_release
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import METRICS, Settings
from fedgrpo.site import MishapFile, SpendingFile
from tests.federation.sites import code_of

RUN = "cd" * 16
CONFIG = {
    "rounds": 9,
    "aggregation.protocol": "plain",
    "grpo.prompts_per_step": 4,
    "grpo.group_size": 4,
    "grpo.max_completion_length": 8,
    "data.min_prompts": 4,
    "privacy.max_epsilon": 1e6,
    "robust.rule": "mean",
    "robust.trim": 0,
    "federation.min_clients": 3,
    "federation.round_timeout_s": 3600.0,
}
ROWS = tuple({"prompt": f"sort {n}21=", "answer": f"12{n}"} for n in range(3, 9))
POLICY = (
    "prompts_declared = 6\nlongest_prompt_tokens = 16\nanswer_after_s = 600.0\n"
    'models = ["tiny"]\nrewards = ["*"]\nprotocols = ["plain"]\n'
    "metrics_without_noise = true\n[prompt]\nlargest_epsilon = 1e6\n"
)


class Impatient(SystemClock):
    """The machine's own clock, by which nobody waits for an answer's time."""

    def __init__(self):
        self.waits = []

    def wait_until(self, moment):
        self.waits.append(moment)


class Asked:
    """A node, process by process: each message finds what is on its disk, and nothing else."""

    def __init__(self, config, factory=None, **changed):
        self.config, self.factory, self.clock = config, factory, Impatient()
        self.settings = Settings.from_run_config(CONFIG | changed)
        self.adapter = Adapter.from_settings(self.settings).state()

    def ask(self, round):
        grid = LocalGrid(
            make_client_app(self.factory and self.factory(), clock=self.clock),
            1,
            node_config=lambda _: self.config,
            run_config=self.settings.to_run_config(),
        )
        header = Header(1, round)
        order = TrainOrder(header, RUN, self.adapter, 1.0, self.settings.fingerprint())
        message = Message(encode(header, order), dst_node_id=1001, message_type=TRAIN)
        (reply,) = grid.send_and_receive([message])
        return reply

    def release(self, round):
        reply = self.ask(round)
        assert code_of(reply) is None, code_of(reply)
        return read_release(reply.content, self.adapter.vector.size + len(METRICS))

    @property
    def charged(self):
        folder = Path(str(self.config["prompts"])).parent
        return [entry.round for entry in SpendingFile(folder / "spent.jsonl").read().entries]

    @property
    def mishaps(self):
        return MishapFile(Path(str(self.config["prompts"])).parent / "spent.mishaps.jsonl").read()


class House:
    """An executor's part in it: who knocks gets a model process."""

    def __init__(self, folder, idle_s=600.0):
        self.path = folder / "door"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen(16)
        self.door = Door(self._listening.fileno(), idle_s)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self):
        while not self._ended.wait(0.02):
            self.door.look()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self.door.close()
        self._listening.close()

    def clients(self):
        return ResidentClients(self.path)

    @property
    def process(self):
        """The model process, or None."""
        held = self.door._process
        return psutil.Process(held.pid) if held and held.poll() is None else None


@contextmanager
def killing(house, when):
    """Meanwhile, kill the model process as soon as something is true, once."""
    stopped = threading.Event()

    def watch():
        while not stopped.wait(0.005):
            if house.process and when():
                house.process.kill()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
