"""The store: users' codes and votes in Redis. Nothing outside this package imports redis."""
