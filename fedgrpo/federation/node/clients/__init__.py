"""A client's own part: from the order's adapter and its prompts to a release."""
