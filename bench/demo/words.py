"""What personalizing does to the words of replies: repeats, loops, and likelihood under the base model."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import mean

import numpy as np

from idiolect.prompt.chat import encode, prompt_ids
from idiolect_client import Client
from idiolect_client.request import Options
from idiolect_training.data.everyday import read
from idiolect_training.evaluate.language import LOOPING, repeated
from idiolect_training.evaluate.replies import Reply
from idiolect_training.fit.batch import Pair
from idiolect_training.fit.policy import Policy

TEMPERATURE = 0.7
"""Where a seed is given; greedy where not."""
MAX_TOKENS, N_CALLERS = 96, 48

Loops = dict[str, dict[str, float]]


def ask_all(
    client: Client, asked: Sequence[tuple[str, str, int | None]], frequency_penalty: float | None = None
) -> list[str]:
    """Replies to (user_id, prompt, seed); greedy where the seed is None."""

    def ask(one: tuple[str, str, int | None]) -> str:
        user_id, prompt, seed = one
        temperature = 0.0 if seed is None else TEMPERATURE
        options: Options = {
            "user_id": user_id,
            "max_tokens": MAX_TOKENS,
            "temperature": temperature,
            "seed": seed,
            "frequency_penalty": frequency_penalty,
        }
        return client.generate(prompt, **options).text

    with ThreadPoolExecutor(N_CALLERS) as pool:
        return list(pool.map(ask, asked))


def loops(replies: Sequence[Reply]) -> Loops:
    """For each user: mean share of repeated 4-grams, and share of replies that loop."""
    shares: dict[str, list[float]] = defaultdict(list)
    for reply in replies:
        shares[reply.user_id].append(repeated(reply.text))
    return {
        user: {"repeated_4grams": round(mean(each), 4), "looping": round(mean(share > LOOPING for share in each), 4)}
        for user, each in shares.items()
    }


def less_likely(policy: Policy, replies: Sequence[Reply], beside: Mapping[int, str]) -> dict[str, float]:
    """Loss per token under the base model, of each user's replies over that of the text `beside` for the same prompt.

    Over as many first tokens of both as the shorter one has: a taste for short replies explains by itself that a reply
    consists of its beginning, whose tokens are the least likely ones.
    """
    pairs, lengths = [], []
    for index, reply in enumerate(replies):
        prompt = prompt_ids(reply.chat, policy.tokenizer)
        own, other = (encode(text, policy.tokenizer) for text in (reply.text, beside[reply.number]))
        lengths.append(max(1, min(len(own), len(other))))
        pairs.append(Pair(index, 0, tuple(prompt), tuple(own[: lengths[-1]]), tuple(other[: lengths[-1]]), 0))
    logps = policy.score(pairs, None, 16, "base model").numpy()
    over = (logps[:, 1] - logps[:, 0]) / np.array(lengths)
    users = np.array([reply.user_id for reply in replies])
    return {user: float(over[users == user].mean()) for user in sorted(set(users.tolist()))}


def written_over_all(policy: Policy, n_prompts: int) -> dict[str, float]:
    """What a taste explains itself: `less_likely` of its written held-out replies, over the mean of all tastes."""
    rows = [row for row in read() if row["split"] == "test"][:n_prompts]
    replies = [
        Reply(taste, number, [{"role": "user", "content": row["prompt"]}], text)
        for number, row in enumerate(rows)
        for taste, text in row["replies"].items()
    ]
    middle = {number: row["replies"]["short-prose-plain"] for number, row in enumerate(rows)}
    over = less_likely(policy, replies, middle)
    return {taste: nats - mean(over.values()) for taste, nats in over.items()}
