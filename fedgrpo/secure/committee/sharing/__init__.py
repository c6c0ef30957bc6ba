"""From a release to shares that all members agree on."""
