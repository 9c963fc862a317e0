"""What personalizing does to the language of replies: does a user's text repeat itself, is it still likely text?

A preference loss is content with any text that differs in the right way, one that goes in circles included. So
replies are looked at as language, for each user beside the generic one, and `export` refuses users who loop.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from idiolect.prompt.chat import prompt_ids, reply_ids
from idiolect_training.errors import LoopingReplies
from idiolect_training.evaluate.replies import GENERIC, Reply
from idiolect_training.fit.batch import Pair
from idiolect_training.fit.policy import Policy

N_GRAM = 4
LOOPING = 0.3
"""A reply with a greater share of repeated 4-grams goes in circles."""

Language = dict[str, dict[str, Any]]


def repeated(text: str) -> float:
    """Share of the text's word 4-grams that stood in it before; 0 for a text of fewer than four words.

    >>> repeated("a dough hook and a dough hook and a dough hook")
    0.5
    """
    words = text.lower().split()
    grams = [tuple(words[start : start + N_GRAM]) for start in range(len(words) - N_GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def language(policy: Policy, replies: Sequence[Reply], batch_pairs: int) -> Language:
    """For each user: mean share of repeated 4-grams, share of replies that loop, and their loss under the base model.

    `base_nll` [nats per token] is of the whole reply with its end, without user tokens; a profile stays in the prompt.
    """
    pairs = []
    for index, reply in enumerate(replies):
        prompt, ids = prompt_ids(reply.chat, policy.tokenizer), reply_ids(reply.text, policy.layout, policy.tokenizer)
        pairs.append(Pair(index, 0, tuple(prompt), tuple(ids), tuple(ids[-1:]), 0))
    logps = policy.score(pairs, None, batch_pairs, "base model")[:, 0].tolist()
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for reply, pair, logp in zip(replies, pairs, logps, strict=True):
        found[reply.user_id].append((repeated(reply.text), -logp / len(pair.chosen_ids)))
    return {
        user_id: {
            "n": len(each),
            "repeated_4grams": round(mean(share for share, _ in each), 4),
            "looping": round(mean(float(share > LOOPING) for share, _ in each), 4),
            "base_nll": round(mean(nll for _, nll in each), 4),
        }
        for user_id, each in sorted(found.items())
    }


def check_loops(measured: Mapping[str, Mapping[str, float]], margin: float) -> None:
    """Raises LoopingReplies when a user's replies loop more often than the generic user's by more than `margin`."""
    allowed = measured[GENERIC]["looping"] + margin
    worst = max(measured, key=lambda user_id: measured[user_id]["looping"])
    if measured[worst]["looping"] > allowed:
        raise LoopingReplies(
            f"{measured[worst]['looping']:.0%} of {worst}'s replies loop, more than the {allowed:.0%} that are allowed",
            hint="better text, more nll_weight or fewer steps help; --allow-loops exports all the same",
        )
