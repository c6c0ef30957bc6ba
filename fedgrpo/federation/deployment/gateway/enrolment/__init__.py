"""Which sites were invited, with which keys they came, and who of them takes part.

Adversary: whoever reads an operator's mail. A token lets one key wait at the door; the operator
lets it in, after a person of the site has read its fingerprint to him.
"""
