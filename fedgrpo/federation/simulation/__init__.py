"""A federation on one machine: in this process, or Flower's own processes."""
