"""How the next token is chosen: what a distribution keeps, the draw, and where texts stop."""
