"""Changes to a bundle that nobody meant: of its tensors, its texts and its files."""
