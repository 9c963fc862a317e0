"""What is learnt of users: the models of them, their rows, and where they start."""
