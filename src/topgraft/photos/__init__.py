"""Photos: which there are, what is in them, and which look alike."""
