"""What an operator sees: one data class, which console, JSON, page and metrics are made from."""
