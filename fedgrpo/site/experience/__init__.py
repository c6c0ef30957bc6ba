"""What a model answered at a site and what that was worth, kept by the site for itself alone."""
