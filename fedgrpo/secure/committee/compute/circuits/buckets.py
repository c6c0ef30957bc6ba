"""Sums of random buckets of clients, for more clients than a partition network takes."""

from __future__ import annotations

import numpy as np

from fedgrpo.secure.committee.compute.circuits.adders import add_in_parallel, columns_of
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.engine import Engine, Share
from fedgrpo.secure.committee.compute.planes import Words
from fedgrpo.secure.committee.compute.streams import MaskStream
from fedgrpo.secure.committee.steps import Member


def draw_buckets(coin: bytes, plan: Plan) -> Words:
    """Draw who is summed with whom, from the coin that members toss after all inputs are dealt.

    Neither a client, who could otherwise choose its peers, nor a member can foresee or choose it.
    Sorting random 64-bit words gives every order alike, up to ties of probability below 2^-50.

    Returns
    -------
    Words
        Shape (groups, bucket): places of clients; ``clients`` and above for a zero that fills up.
    """
    places = plan.groups * plan.bucket
    order = np.argsort(MaskStream(coin).words(places), kind="stable")
    return np.asarray(order.reshape(plan.groups, plan.bucket))


def sum_buckets(engine: Engine, values: Share, plan: Plan, coin: bytes) -> Member[Share]:
    """Sum shares of shape (held, n, w, W) in buckets, to (held, groups, w', W).

    Sums stay on shares: nobody sees one, and trimming them withstands ``trim`` bad buckets.
    """
    missing = plan.groups * plan.bucket - plan.clients
    zeros = np.zeros((missing, *values.shape[2:]), np.uint64)
    zeros[:, -1] = ~np.uint64(0)  # offset binary: only the highest bit is set
    filled = np.concatenate([values, engine.constant(zeros)], axis=1)
    buckets = draw_buckets(coin, plan)
    width = (plan.bucket * ((1 << plan.bits) - 1)).bit_length()
    numbers = [filled[:, buckets[:, place]] for place in range(plan.bucket)]
    return (yield from add_in_parallel(engine, columns_of(numbers, width)))
