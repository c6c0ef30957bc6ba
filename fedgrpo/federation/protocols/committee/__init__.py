"""Four members compute on shares: the committee over Flower's messages."""
