"""The committee: four data holders who compute a robust aggregate on shares and open only that.

Clients :func:`deal`, members :func:`admit` what was dealt, :func:`aggregate` it on shares and open
the result. A member's part is a generator without I/O; :func:`drive` runs it over direct TLS links
(:func:`connect`), :class:`ReplayableMember` through an untrusted relay.
"""

from fedgrpo.secure.committee.compute.circuits.costs import (
    choose_circuit,
    portions_of,
    widest_step,
)
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.planes import slice_planes
from fedgrpo.secure.committee.keys.identity import (
    Committee,
    ComponentKeys,
    Identity,
    MemberKeys,
    toss_keys,
)
from fedgrpo.secure.committee.keys.noise import effective_noise
from fedgrpo.secure.committee.links.driving import drive, loss_behind
from fedgrpo.secure.committee.links.handshake import Party
from fedgrpo.secure.committee.links.in_process import run
from fedgrpo.secure.committee.links.relay import ReplayableMember
from fedgrpo.secure.committee.links.tls import connect, listen
from fedgrpo.secure.committee.round import aggregate
from fedgrpo.secure.committee.sharing.admission import Admitted, admit
from fedgrpo.secure.committee.sharing.dealing import deal
from fedgrpo.secure.committee.sharing.encoding import Encoding, decode_sum, encode
from fedgrpo.secure.committee.steps import Member

__all__ = [
    "Admitted",
    "Committee",
    "ComponentKeys",
    "Encoding",
    "Identity",
    "Member",
    "MemberKeys",
    "Party",
    "Plan",
    "ReplayableMember",
    "admit",
    "aggregate",
    "choose_circuit",
    "connect",
    "deal",
    "decode_sum",
    "drive",
    "effective_noise",
    "encode",
    "listen",
    "loss_behind",
    "portions_of",
    "run",
    "slice_planes",
    "toss_keys",
    "widest_step",
]
