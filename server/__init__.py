"""The server's entry for Flower."""
