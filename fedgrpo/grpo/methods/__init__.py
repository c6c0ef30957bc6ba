"""Methods that share out credit or guide the sampler in ways of their own."""
