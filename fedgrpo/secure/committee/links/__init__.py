"""How members reach each other: in one process, relayed, or over TLS."""
