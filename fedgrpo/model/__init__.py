"""Base models and adapters, and the adapter as a flat vector. Torch is imported where used only."""
