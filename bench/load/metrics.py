"""What a server says of itself at /metrics, read back."""

import re
from collections.abc import Mapping

import httpx


def metric(http: httpx.Client, name: str) -> float:
    """A counter or gauge, 0 when there is none yet."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def histogram(http: httpx.Client, name: str, label: str) -> dict[float, float]:
    """Upper bound in seconds -> how many took no longer."""
    pattern = rf'^{name}_bucket{{le="([^"]+)",{re.escape(label)}}} (\S+)$'
    return {float(bound): float(n) for bound, n in re.findall(pattern, http.get("/metrics").text, re.MULTILINE)}


def slowest(after: Mapping[float, float], before: Mapping[float, float], share: float) -> float:
    """The least bound in milliseconds that holds for this share of what came between two readings."""
    counts = {bound: n - before.get(bound, 0.0) for bound, n in after.items()}
    return 1000 * min(bound for bound, n in counts.items() if n >= share * counts[float("inf")])
