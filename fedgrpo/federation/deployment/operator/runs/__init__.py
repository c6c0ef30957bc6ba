"""What the operator sees and asks for: who is there, how a run stands, and the next run."""
