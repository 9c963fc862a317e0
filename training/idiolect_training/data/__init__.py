"""What is learnt from: comparisons, their splits, and readers of published forms."""
