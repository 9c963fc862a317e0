"""What /metrics tells Prometheus. Nothing here names a user."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("idiolect_engine_requests", "Prompts given to the engine", ["purpose"])
ERRORS = Counter("idiolect_errors", "Requests refused or failed, by the code that they were answered with", ["code"])
WAITING = Gauge("idiolect_waiting_tokens", "Of prompts and expected replies that wait for the engine")
REDIS_RESTARTS = Counter("idiolect_redis_restarts", "Starts of the embedded Redis after it had ended")
FREE_BYTES = Gauge("idiolect_redis_free_bytes", "Free on the disk of the embedded Redis")
VOTES = Counter("idiolect_votes", "Votes accepted, by where their margins come from", ["pair"])
DRIFTED = Counter(
    "idiolect_drift_alarms", "Inferences in which recent votes contradicted older ones, which were put aside"
)
UNEXPLAINED = Counter(
    "idiolect_unexplained", "Inferences that ended with nobody whom the bundle knows: the user is served as before"
)
SCORED = Counter("idiolect_pairs_scored", "Pairs scored by the engine for inference")
BACKLOG = Gauge("idiolect_scoring_backlog_votes", "Votes that no scorer has looked at yet")
LAG = Gauge("idiolect_scoring_lag_seconds", "Age of the vote that was scored last, when it was")
LOOKUP = Histogram(
    "idiolect_user_lookup_seconds",
    "From a user id to user tokens, by where the user's record came from; readings shared by requests count for each",
    ["source"],
    buckets=[1e-5, 2e-5, 5e-5, 6e-5, 8e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 7e-3, 1e-2, 5e-2, 0.5],
)
VOTE_TAKEN = Histogram(
    "idiolect_vote_seconds",
    "From a vote's arrival to vote and new code being stored, by where the margins of its pair come from",
    ["pair"],
    buckets=[1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 7.5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5],
)
