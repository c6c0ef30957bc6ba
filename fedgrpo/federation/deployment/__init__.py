"""A federation over a network: what the operator starts, what a site starts, and what stands
between them.

Adversaries: strangers who reach the server's port, other users of the machines, a thief of the
operator's account, and a site that would speak in another one's name.
"""
