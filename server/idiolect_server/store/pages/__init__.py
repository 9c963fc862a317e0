"""What the store has, looked at page by page."""
