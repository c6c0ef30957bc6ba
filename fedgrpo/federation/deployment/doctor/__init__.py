"""Whether a site's machine can take part, and what to do where it cannot.

Adversary: none; whoever asks owns the machine. What is looked at stays on it: the doctor writes
nothing, and sends a greeting to the server alone, as the node does.
"""
