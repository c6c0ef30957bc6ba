"""Memory and CPU time of a server that brings vectors together, with nodes that have nothing else.

The server's own code, from the messages that come to the robust mean, in this process; what each
node answers is made when it is pulled and gone when it was read, so that the highest resident set
is the server's and one answer's. CPU time is the server's without that of making answers. The last
line is JSON. Whole rounds with the product's nodes: ``benchmarks/scale.py``.

Usage: ``PYTHONPATH=. python benchmarks/server_memory.py [--way buckets] [--holders 200]
[--parameters 1000000] [--rule trimmed_mean]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedgrpo.federation.protocols.buckets.secure_round import secure_bucket_means
from fedgrpo.federation.protocols.means import GroupMeans, robust_aggregate
from fedgrpo.federation.protocols.plain.server import Releases
from fedgrpo.federation.simulation.flower_internals import sent_as, serve
from fedgrpo.federation.simulation.local_grid import stage_of
from fedgrpo.federation.wire.codec import Header, decode, encode
from fedgrpo.federation.wire.exchange import Collection, round_trip
from fedgrpo.federation.wire.link import Link
from fedgrpo.federation.wire.messages import TRAIN, Ciphertexts, Masked, Unmasked, UnmaskOrder
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.secure import encoding
from fedgrpo.secure.masking import MaskingClient
from fedgrpo.secure.roster import Roster
from fedgrpo.settings import Settings

HEADER, ORDER = Header(1, 1), b"o" * 32


class Nodes(Grid):
    """Nodes that answer when they are pulled."""

    def __init__(self, count: int, plan: Any) -> None:
        self._plan = plan
        self._vector = np.random.default_rng(0).normal(size=plan.size) / plan.size**0.5
        self.members = {
            node: MaskingClient.open(1, 1, node, 3, order=ORDER) for node in range(1, count + 1)
        }
        self._waiting: dict[str, Message] = {}
        self.spent = 0.0

    run = property(lambda self: serve(1))

    def set_run(self, run: Any) -> None:
        """Not needed."""

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Not needed."""
        raise NotImplementedError

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        """Not needed."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """All of them."""
        return list(self.members)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep what is asked."""
        ids = []
        for message in messages:
            ids.append(f"m{len(self._waiting)}-{stage_of(message)}")
            sent_as(message, ids[-1])
            self._waiting[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answer."""
        begun = time.process_time()
        asked = [self._waiting.pop(key) for key in message_ids]
        answers = [Message(self._answer(message), reply_to=message) for message in asked]
        self.spent += time.process_time() - begun
        return answers

    def _answer(self, message: Message) -> RecordDict:
        node, stage = message.metadata.dst_node_id, stage_of(message)
        release = np.roll(self._vector, 7 * node)
        if stage == "train":
            return encode(HEADER, Unmasked(release.astype(np.float32)))
        member = self.members[node]
        if stage == "share":
            return encode(HEADER, Ciphertexts(member.share(decode(Roster, message.content))))
        if stage == "mask":
            bits = encoding.fraction_bits(3, self._plan.bound)
            values = encoding.encode(release, bits, self._plan.bound)
            given = decode(Ciphertexts, message.content).by_node
            return encode(HEADER, Masked(member.mask(given, values)))
        order = decode(UnmaskOrder, message.content)
        return encode(HEADER, member.reveal(1, 1, order.bucket, order.survivors, order.dropped))


def gathered(way: str, grid: Nodes, plan: Any) -> GroupMeans:
    """What the server has when all have answered."""
    link = Link(grid, HEADER, 600.0)
    if way == "buckets":
        keys = {node: member.public_keys for node, member in grid.members.items()}
        return secure_bucket_means(link, keys, plan, 3, lambda _: nullcontext(), order=ORDER)
    releases = Releases(plan)
    orders = [link.message(TRAIN, node, RecordDict()) for node in grid.members]
    round_trip(grid, orders, 600.0, Collection(releases.take, reply_bytes=4 * plan.size))
    return releases.groups({node: releases.place(node) for node in grid.members})


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=("buckets", "plain"), default="buckets")
    parser.add_argument("--holders", type=int, default=200)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--rule", default="trimmed_mean")
    args = parser.parse_args()
    serve(1)
    seen = args.holders // 3 if args.way == "buckets" else args.holders
    settings = Settings.from_mapping(
        {
            "privacy": {"unit": "none"},
            "aggregation": {"protocol": args.way},
            "robust": {"rule": args.rule, "trim": max(1, seen // 20)},
            "federation": {"min_clients": args.holders},
            "simulation": {"clients": args.holders},
        }
    )
    plan = release_plan(settings, args.parameters, settings.privacy.clipping_norm)
    grid = Nodes(args.holders, plan)
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = memory("VmRSS"), time.process_time()
    means = gathered(args.way, grid, plan)
    aggregate = robust_aggregate(settings, plan, means)
    spent = time.process_time() - begun - grid.spent
    report = {
        "benchmark": "server_memory",
        **vars(args),
        "server_mb": round((memory("VmHWM") - before) / 1e6),
        "process_mb": round(memory("VmHWM") / 1e6),
        "server_cpu_s": round(spent, 2),
        "answers_cpu_s": round(grid.spent, 2),
        "norm": float(np.linalg.norm(aggregate.delta)),
    }
    print(json.dumps(report))


def memory(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(name + ":")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
