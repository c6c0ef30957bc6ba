"""How one reward function is called, awaited and held to what it returns."""
