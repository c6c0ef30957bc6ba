"""The server's side: Flower's strategy, a round's result, and what is durable."""
