"""What a site's releases have cost together, and what went wrong in them."""
