"""What an adapter needs to leave: a model card, and other forms than PEFT's."""
