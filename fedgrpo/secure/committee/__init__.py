"""The committee: four data holders who compute a robust aggregate on shares and open only that.

Clients :func:`deal`, members :func:`admit` what was dealt, :func:`aggregate` it on shares and open
the result. A member's part is a generator without I/O; :func:`drive` runs it over direct TLS links
(:func:`connect`), :class:`ReplayableMember` through an untrusted relay.
"""

from fedgrpo.secure.committee.compute.circuits.costs import choose_circuit
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.planes import slice_planes
from fedgrpo.secure.committee.keys.identity import (
    Committee,
    ComponentKeys,
    Identity,
    MemberKeys,
    toss_keys,
)
from fedgrpo.secure.committee.keys.noise import EffectiveNoise, discrete_gaussian, effective_noise
from fedgrpo.secure.committee.links.driving import Links, drive, loss_behind
from fedgrpo.secure.committee.links.handshake import Party
from fedgrpo.secure.committee.links.in_process import run
from fedgrpo.secure.committee.links.relay import ReplayableMember
from fedgrpo.secure.committee.links.tls import TlsLinks, connect, listen
from fedgrpo.secure.committee.round import Opened, aggregate
from fedgrpo.secure.committee.sharing.admission import Admitted, admit
from fedgrpo.secure.committee.sharing.dealing import deal
from fedgrpo.secure.committee.sharing.encoding import Encoding, decode_sum, encode
from fedgrpo.secure.committee.steps import Member, Step

__all__ = [
    "Admitted",
    "Committee",
    "ComponentKeys",
    "EffectiveNoise",
    "Encoding",
    "Identity",
    "Links",
    "Member",
    "MemberKeys",
    "Opened",
    "Party",
    "Plan",
    "ReplayableMember",
    "Step",
    "TlsLinks",
    "admit",
    "aggregate",
    "choose_circuit",
    "connect",
    "deal",
    "decode_sum",
    "discrete_gaussian",
    "drive",
    "effective_noise",
    "encode",
    "listen",
    "loss_behind",
    "run",
    "slice_planes",
    "toss_keys",
]
