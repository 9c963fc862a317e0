"""Training: the loop, its losses, the policy, and what lets a run be resumed."""
