"""What is known of users: read, inferred from votes, kept in memory."""
