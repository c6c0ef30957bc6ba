"""What a site's people see of their own node: one data class, for console, JSON, page and metrics.

Adversary: a reader on this machine who is none of them, should he come to see it. Nothing here
follows from prompts: no time that a round took, no memory, no count of what was zero, and not what
the doctor found in prompts.
"""
