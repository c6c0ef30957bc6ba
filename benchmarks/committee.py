"""Exact trimmed mean by a committee of four, and in the clear beside Flower's FedTrimmedAvg.

Runs all four members in one process on random vectors and compares what they open with numpy's
sort. The last line is JSON: megabytes sent by the member that sends most, CPU seconds of all four
divided by four, steps in which messages wait for each other, whether every coordinate is equal, and
seconds of this package's and Flower's trimmed mean in the clear (medians, taking turns).

Usage: ``python benchmarks/committee.py [--n 10] [--trim 2] [--dim 1000000] [--bits 16]
[--circuit auto] [--latency 0.02] [--noise-multiplier 1.0] [--repeats 5] [--json]``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from numpy.typing import NDArray

from fedgrpo.robust import combine
from fedgrpo.secure.committee.compute.circuits.costs import choose_circuit
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.circuits.trimming import CIRCUITS
from fedgrpo.secure.committee.compute.planes import Words, slice_planes
from fedgrpo.secure.committee.keys.identity import ComponentKeys, keepers
from fedgrpo.secure.committee.links.in_process import run
from fedgrpo.secure.committee.round import Opened, aggregate, bind, draw_noise
from fedgrpo.secure.committee.sharing.encoding import Encoding
from fedgrpo.secure.committee.steps import MEMBERS, Member


def main() -> None:
    args = arguments()
    encoding = Encoding(1.0, args.dim, args.bits)
    circuit = args.circuit
    if circuit == "auto":
        circuit = choose_circuit(args.n, args.trim, args.dim, args.latency, args.bits)
    sigma = args.noise_multiplier * encoding.sensitivity
    plan = Plan(args.n, args.dim, trim=args.trim, bits=args.bits, sigma=sigma, circuit=circuit)
    values = np.random.default_rng(0).integers(0, 1 << args.bits, (args.n, args.dim))
    report = {
        "benchmark": "committee",
        **{name: value for name, value in vars(args).items() if name != "json"},
        "circuit": circuit,
        **committee(plan, values),
        **in_the_clear(values.astype(np.float64), args.trim, args.repeats),
    }
    if not args.json:
        for name, value in report.items():
            print(f"{name:24} {value}")
    print(json.dumps(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10, help="clients")
    parser.add_argument("--trim", type=int, default=2)
    parser.add_argument("--dim", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, default=16)
    parser.add_argument("--circuit", choices=["auto", *CIRCUITS], default="auto")
    parser.add_argument("--latency", type=float, default=0.02, help="seconds, one way")
    parser.add_argument("--noise-multiplier", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5, help="of the trimmed means in the clear")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    return parser.parse_args()


def committee(plan: Plan, values: NDArray[np.int64]) -> dict[str, object]:
    secrets = [os.urandom(32) for _ in range(MEMBERS)]
    session = hashlib.sha256(b"benchmark").digest()
    components = deal(slice_planes(values, plan.bits).reshape(plan.clients, -1))
    sent: Counter[int] = Counter()
    messages: Counter[tuple[int, int]] = Counter()

    def carrier(sender: int, receiver: int, message: bytes) -> bytes:
        sent[sender] += len(message)
        messages[sender, receiver] += 1
        return message

    def member(index: int) -> Member[tuple[Opened, ...]]:
        keys = ComponentKeys({m: secrets[m] for m in keepers(index)})
        held = {m: components[m] for m in keepers(index)}
        return aggregate(index, keys, session, [plan], held)

    start = time.process_time()
    (opened,) = run(member, carrier=carrier)
    seconds = (time.process_time() - start) / MEMBERS
    expected = np.sort(values, axis=0)[plan.trim : plan.clients - plan.trim].sum(axis=0)
    bound = bind(session, [plan])
    for m, secret in enumerate(secrets if plan.sigma else []):
        expected += draw_noise(m, ComponentKeys({m: secret}).for_session(bound), bound, 0, plan)
    return {
        "mb_sent_per_member": round(max(sent.values()) / 1e6, 3),
        "seconds_per_member": round(seconds, 4),
        "rounds": max(messages.values()),
        "exact": bool(
            np.array_equal(expected % (1 << opened.bits), opened.totals.astype(np.int64))
        ),
    }


def deal(payload: Words) -> list[Words]:
    parts = [np.frombuffer(os.urandom(payload.nbytes), np.uint64) for _ in range(MEMBERS - 1)]
    parts = [part.reshape(payload.shape) for part in parts]
    return [*parts, payload ^ np.bitwise_xor.reduce(parts)]


def in_the_clear(values: NDArray[np.float64], trim: int, repeats: int) -> dict[str, object]:
    share = (trim + 0.25) / len(values)  # Flower trims int(share * n)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(timed(lambda: combine("trimmed_mean", values, trim)))
        theirs.append(timed(lambda: trim_mean(values, share)))
    return {
        "flower_trimmed_mean_s": round(float(np.median(theirs)), 5),
        "trimmed_mean_s": round(float(np.median(ours)), 5),
    }


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
