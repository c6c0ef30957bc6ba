"""One private, robust, masked round, to read from top to bottom: no server, no model, no Flower.

Twelve clients hold prompts. Each prompt says in which direction the adapter should move; one client
attacks and one leaves in the middle. What runs below is what a real round runs, in its order:

    clip and sum -> release -> encode -> mask -> sum -> unmask -> trimmed mean -> noise -> step

`fedgrpo/federation/protocols/buckets/secure_round.py` is the same with messages in between.

    python examples/one_round.py
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks import Knowledge, apply_attack
from fedgrpo.federation.server.optimisers import OptimiserState, server_step
from fedgrpo.privacy import (
    ReleasePlan,
    add_noise,
    client_noise_std,
    read_aggregate,
    release_prompts,
    server_noise_std,
)
from fedgrpo.privacy.grid import GridSum
from fedgrpo.robust.rules import combine, sensitivity
from fedgrpo.secure import (
    MaskingClient,
    Roster,
    assign_buckets,
    decode_sum,
    encode,
    fraction_bits,
    unmask_sum,
)
from fedgrpo.settings import METRICS, PrivacySettings, ServerSettings
from fedgrpo.settings.protocols.buckets import secret_threshold

CLIENTS, PROMPTS, DIMENSION = 12, 200, 32
EXPECTED = 64  # B: prompts that a client's coins choose in a round, on average.
ATTACKER, LEAVER, TRIM, BUCKET = 0, 11, 1, 3
RUN, ROUND = 7, 1
ORDER = hashlib.sha256(b"what every client was ordered to compute").digest()

Vector = NDArray[np.float64]


def release(client: int, adapter: Vector, target: Vector, plan: ReleasePlan) -> Vector:
    """On the client: clip each sampled prompt by itself, sum, and add noise if it is the client's.

    Randomness of gradients is a toy's; a real client's coins come from a secret key, since whoever
    knows which prompts were sampled gains on the privacy of those.
    """
    rng = np.random.default_rng(client)
    total = GridSum.nothing(DIMENSION, len(METRICS))
    for _ in range(rng.binomial(PROMPTS, EXPECTED / PROMPTS)):
        direction = target - adapter + rng.normal(size=DIMENSION)  # One prompt's descent direction.
        figures = np.array([rng.uniform(), 0.0, 0.0, 0.0])  # Its reward, and three other metrics.
        total += GridSum.of_unit(direction, figures, plan.clipping_norm)
    honest = release_prompts(total, plan)
    if client != ATTACKER:
        return honest
    known = Knowledge(boost=10.0, round=ROUND, update=DIMENSION, own=honest[None])
    return apply_attack("reverse_boost", honest, known)


def masked_mean(releases: dict[int, Vector], plan: ReleasePlan, bucket: int) -> Vector:
    """Between one bucket's clients and the server, who sees masks and one sum."""
    members = tuple(sorted(releases))
    clients = {
        member: MaskingClient.open(RUN, ROUND, member, BUCKET, order=ORDER) for member in members
    }
    keys = tuple(clients[member].public_keys for member in members)
    threshold = secret_threshold(len(members))  # A majority can unmask, and only the sum.
    roster = Roster(RUN, ROUND, bucket, members, keys, threshold, ORDER)

    # Share: each deals shares of its secrets to its peers, sealed; the server passes them on.
    dealt = {member: client.share(roster) for member, client in clients.items()}

    # Mask: each adds the masks that it has in common with its peers. One client is gone by now.
    bits = fraction_bits(len(members), plan.bound)  # Fixed point, so that masks cancel exactly.
    masked = {}
    for member, client in clients.items():
        if member == LEAVER:
            continue
        sealed = {peer: dealt[peer][member] for peer in members if peer != member}
        masked[member] = client.mask(sealed, encode(releases[member], bits, plan.bound))

    # Unmask: survivors open what does not cancel: their own masks, and those of who left.
    survivors, dropped = sorted(masked), [m for m in members if m not in masked]
    answers = {m: clients[m].reveal(RUN, ROUND, bucket, survivors, dropped) for m in survivors}
    total = unmask_sum(roster, members, masked, answers)
    return decode_sum(total, bits) / len(survivors)


def one_round(adapter: Vector, target: Vector, rule: str, noise: str) -> Vector:
    """One round from the global adapter to the next."""
    privacy = PrivacySettings.model_validate({"noise": noise, "noise_multiplier": 1.0})
    plan = ReleasePlan(
        unit="prompt",
        dimension=DIMENSION,
        clipping_norm=privacy.clipping_norm,
        expected_prompts=EXPECTED,
        noise_std=client_noise_std(privacy),  # 0 where noise is added once, below.
        metrics_share=privacy.metrics_share,
    )
    releases = {client: release(client, adapter, target, plan) for client in range(CLIENTS)}

    # An attacker cannot choose its bucket, and spoils one of four.
    buckets = assign_buckets(list(releases), BUCKET)
    means = np.stack(
        [masked_mean({m: releases[m] for m in b}, plan, n) for n, b in enumerate(buckets)]
    )

    # The highest and the lowest bucket of each coordinate go.
    combined = combine(rule, means, TRIM)

    # One prompt moves the result by at most this; noise of that size hides it. 0 if clients did it.
    smallest = BUCKET - 1  # The bucket that the leaver was in.
    rounding = 2.0 ** -fraction_bits(BUCKET, plan.bound) * math.sqrt(plan.size)
    moved_by = sensitivity(rule, len(buckets), TRIM, smallest)
    std = server_noise_std(privacy, moved_by, EXPECTED, rounding=rounding)
    aggregate = read_aggregate(add_noise(combined, std), plan)

    server = ServerSettings(optimiser="fedavg", learning_rate=4.0)
    _, update = server_step(server, OptimiserState(), aggregate.delta, server.learning_rate)
    print(f"{rule:12} noise by the {noise}, reward {aggregate.metrics['reward']:.2f}: ", end="")
    return adapter + update


def main() -> None:
    """A robust rule beside an attacker, then a plain mean; and noise at either place."""
    start, target = np.zeros(DIMENSION), np.full(DIMENSION, 0.5)
    for rule, noise in (("trimmed_mean", "server"), ("trimmed_mean", "client"), ("mean", "server")):
        after = one_round(start, target, rule, noise)
        before, now = (float(np.linalg.norm(target - vector)) for vector in (start, after))
        print(f"distance to what the prompts want {before:.2f} -> {now:.2f}")


if __name__ == "__main__":
    main()
