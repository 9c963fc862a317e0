"""How a user is served, and what a vote does: the words that the API uses for it."""

from dataclasses import dataclass
from typing import Literal

from idiolect.learning import Known

State = Literal["stored", "inferred", "unexplained", "generic", "degraded"]
"""Where the code of a request comes from: training; votes; what there was before votes, where nobody whom the bundle
knows would vote so; nowhere; or, while the store is silent, what was read last."""
Effect = Literal["counted", "trained", "to_be_scored", "set_aside", "unscorable", "no_bank"]
"""What a vote does to its user's code. `counted`: it is in it. `trained`: it is in it from training, and is not counted
on top. `to_be_scored`: it will be, once its pair has margins. `set_aside`: newer votes contradict or replace it, or a
limit keeps it out. `unscorable`: its pair has no margins. `no_bank`: the bundle infers nobody. Whichever it is, the
vote is kept."""


@dataclass(frozen=True)
class Learnt:
    """What became of a vote: what is known of its user now, how the user is served, and what the vote did."""

    known: Known | None
    state: Literal["stored", "inferred", "unexplained", "generic"]
    effect: Effect
