"""What votes say about a user: priors over users, who it is that votes, and when a wish has changed."""
