"""What differs between families of models: passes, layers that carry an adapter, precision."""
