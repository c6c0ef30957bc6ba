"""A deployed node's model process, which keeps base model and adapter loaded from round to round:
what it answers, and what the process of a message knows of it.
"""
