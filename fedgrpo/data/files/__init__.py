"""Files of prompts, each kind read so that one bad row says nothing of the others."""
