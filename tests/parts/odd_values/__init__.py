"""What may stand in Redis under keys of ours, and everything that the API does for a user all the same."""
