"""The plain protocol: each client's release as it is."""
