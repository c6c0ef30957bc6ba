"""The server's only face: TLS to the outside, and nothing of the SuperLink but its Fleet API.

Adversary: anybody who can reach the port, and a site that is registered. A request is let through
if its path is, byte for byte, one of a fixed list, its credentials are a registered node's, and its
size and pace are within limits; and what goes inside is written anew, from that list and from a
few headers that were read.
"""
