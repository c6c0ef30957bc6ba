"""A data holder's entry for Flower."""
