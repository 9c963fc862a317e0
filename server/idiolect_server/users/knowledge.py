"""What is known of a user, asked of a user, and done by a vote: what the learner says."""

from dataclasses import dataclass
from typing import Literal

from idiolect.bank import Question
from idiolect.user_model import Array
from idiolect.votes import Belief

MAX_SHOWN_NUMBERS = 64
"""Longer codes tell a reader nothing."""

State = Literal["stored", "inferred", "generic", "degraded"]
"""Where the code of a request comes from: training, votes, nowhere, or, while the store is silent, what there was."""
NoQuestion = Literal["no_bank", "nothing_worth_asking", "all_skipped"]
"""Why there is no question: the bundle has none, no answer would tell enough, or the user skipped those that would."""
Effect = Literal["counted", "to_be_scored", "set_aside", "unscorable", "no_bank"]
"""What a vote does to its user's code. `counted`: it is in it. `to_be_scored`: it will be, once its pair has margins.
`set_aside`: newer votes contradict it, or a limit keeps it out. `unscorable`: its pair has no margins. `no_bank`: the
bundle infers nobody. Whichever it is, the vote is kept."""


@dataclass(frozen=True)
class Known:
    """What is known of one user from the votes that count."""

    code: Array
    belief: Belief
    effective_votes: int
    outdated_votes: int
    """Older votes that recent ones contradict: they are kept, and do not count."""
    uncertainty: float
    """1 when nothing is known beyond the population, falling towards 0."""
    pairs: frozenset[str]
    """The pairs of the votes that count."""

    @property
    def shown_code(self) -> list[float] | None:
        return self.code.tolist() if len(self.code) <= MAX_SHOWN_NUMBERS else None


@dataclass(frozen=True)
class Asked:
    """The next best question for a user, what its answer is expected to tell in nats, and how many were answered."""

    question: Question | None
    gain: float
    n_answered: int
    reason: NoQuestion | None
    """Why there is no question."""


@dataclass(frozen=True)
class Learnt:
    """What became of a vote: what is known of its user now, how the user is served, and what the vote did."""

    known: Known | None
    state: Literal["stored", "inferred", "generic"]
    effect: Effect
