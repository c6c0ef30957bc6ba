"""Federated reinforcement learning of language models: private, robust and secure at once."""
