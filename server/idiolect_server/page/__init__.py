"""The one-minute page (clients/web), as the wheel carries it."""
