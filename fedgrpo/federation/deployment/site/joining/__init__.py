"""How a site comes into a federation: its folder, its key, its policy, and its place in the book.

Adversary: whoever could put another invitation or another policy in the place of the right one. Two
people compare the invitation's fingerprint, and one reads the policy; nothing is sent before.
"""
