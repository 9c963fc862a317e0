"""What is believed of a user, as a sentence for the user and for whoever runs the application."""

from collections.abc import Mapping

from idiolect_server.users.knowledge import State

LEAST_WEIGHT = 0.1
"""Of a cluster that is worth a word."""
MAX_CLUSTERS = 3


def in_words(belief: Mapping[str, float] | None, state: State, n_effective: int, named: bool) -> str:
    """`belief` are weights of clusters by name, the heaviest first; `named` says whether the bundle names any.

    >>> in_words({"short, warm": 0.83, "short, plain": 0.12, "thorough": 0.05}, "inferred", 4, True)
    'probably short, warm (0.83); perhaps short, plain (0.12)'
    >>> in_words(None, "unexplained", 16, True)
    'nobody whom the bundle knows would vote like this: served as before the votes'
    >>> in_words(None, "generic", 0, True)
    'nothing yet: served the generic way'
    """
    if state == "degraded":
        return "not known now: the store does not answer, or holds something unusable"
    if state == "unexplained":
        return "nobody whom the bundle knows would vote like this: served as before the votes"
    if belief:
        told = [(name, weight) for name, weight in belief.items() if weight >= LEAST_WEIGHT][:MAX_CLUSTERS]
        return "; ".join(
            f"{_how_sure(weight)} {name} ({weight:.2f})" for name, weight in told or list(belief.items())[:1]
        )
    if n_effective and not named:
        return f"learnt from {n_effective} votes; the bundle has no names for what was learnt"
    return "as trained: no vote has added to it" if state == "stored" else "nothing yet: served the generic way"


def _how_sure(weight: float) -> str:
    return "almost surely" if weight >= 0.95 else "probably" if weight >= 0.5 else "perhaps"
