"""Members' identities, component keys, and the noise that comes from them."""
