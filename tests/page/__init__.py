"""The one-minute page: its route, and every view in a real browser."""
