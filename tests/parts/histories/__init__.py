"""Random histories of votes, and who counts which of them."""
