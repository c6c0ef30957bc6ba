"""Secure aggregation in buckets: encoding, masking by the members, unmasking by the server.

Bytes and arrays only; nothing here knows how messages travel or what the vectors mean. The
adversary is stated in :mod:`fedgrpo.secure.masking`.
"""

from fedgrpo.secure.buckets import assign_buckets
from fedgrpo.secure.encoding import decode_sum, encode, fraction_bits
from fedgrpo.secure.masking import MaskingClient
from fedgrpo.secure.roster import PublicKeys, Revealed, Roster
from fedgrpo.secure.unmasking import unmask_sum

__all__ = [
    "MaskingClient",
    "PublicKeys",
    "Revealed",
    "Roster",
    "assign_buckets",
    "decode_sum",
    "encode",
    "fraction_bits",
    "unmask_sum",
]
