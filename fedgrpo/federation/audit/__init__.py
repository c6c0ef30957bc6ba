"""The production federation under attack by canaries."""
