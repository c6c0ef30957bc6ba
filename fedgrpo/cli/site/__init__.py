"""Commands of a site's people: to come into a federation, and to leave it."""
