"""A data holder's side: from the order to train to the release, and what stands between."""
