"""What /metrics tells Prometheus. Nothing here names a user."""

from prometheus_client import Counter, Gauge

REQUESTS = Counter("idiolect_engine_requests", "Prompts given to the engine", ["purpose"])
VOTES = Counter("idiolect_votes", "Votes accepted, by where their margins come from", ["pair"])
DRIFTED = Counter(
    "idiolect_drift_alarms", "Inferences in which recent votes contradicted older ones, which were put aside"
)
SCORED = Counter("idiolect_pairs_scored", "Pairs scored by the engine for inference")
BACKLOG = Gauge("idiolect_scoring_backlog_votes", "Votes that no scorer has looked at yet")
LAG = Gauge("idiolect_scoring_lag_seconds", "Age of the vote that was scored last, when it was")
