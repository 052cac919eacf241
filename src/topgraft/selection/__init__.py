"""Selection: which head answers best, by how much, and what each policy is worth."""
