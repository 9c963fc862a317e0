"""make first-token (D5, D6): how soon does a reply begin?

D6: a system prompt of 1,000 tokens that everybody shares, each request another user: user tokens after it, against user
tokens right after the first token (the paper's placement), on two servers in turn. vLLM's count of prompt tokens that
were found in its cache tells why.

D5: a user's history, 500 tokens of earlier comparisons in the system prompt, against four user tokens. Once each
request is another user's, and once a user who was served before, whose history is in the cache already.

One request at a time, one new token: the time is that of the first token, HTTP included.
"""

import asyncio
import itertools
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.learning.length_users import first_sentences
from bench.load.load import Body, drive, everyone, paired
from bench.load.sides import many_users, ours
from bench.results import provenance, record
from idiolect_training.demo_model import demo_model
from tests.live import ROOT

COMMAND = "make first-token"
OUT = ROOT / "docs" / "results" / "first_token.json"
N_USERS = 10_000
N_REQUESTS, N_PAIRS = 12, 7
N_SYSTEM_TOKENS, N_HISTORY_TOKENS = 1000, 500


class Texts:
    """Sentences of the demo model, cut to a number of tokens."""

    def __init__(self) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(demo_model())
        self._found = first_sentences()

    def cut(self, text: str, n_tokens: int) -> str:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(ids) >= n_tokens
        return str(self._tokenizer.decode(ids[:n_tokens]))

    def system(self) -> str:
        return self.cut("Rules. " + " ".join(f"{first} {second}" for _, first, second in self._found), N_SYSTEM_TOKENS)

    def history(self, number: int) -> str:
        """What somebody chose before: the same comparisons in nobody else's order."""
        order = random.Random(number).sample(self._found, 24)
        told = (f"Asked: {prompt} I liked: {first} I disliked: {first} {second}" for prompt, first, second in order)
        return self.cut(f"You know user {number}. " + " ".join(told), N_HISTORY_TOKENS)


def question(number: int) -> dict[str, str]:
    return {"role": "user", "content": f"What comes to your mind about the number {number}?"}


async def first_token_ms(url: str, body: Body, users: Iterator[str]) -> float:
    """Median of a window, in milliseconds."""
    return 1000 * median((await drive(url, "/generate", body, users, N_REQUESTS, n_callers=1)).latencies_s)


async def cached_tokens(url: str, body: Body, user: str) -> dict[str, int]:
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        usage = (await http.post("/generate", json=body(user))).json()["usage"]
    return {name: usage[name] for name in ("prompt_tokens", "cached_tokens")}


async def shared_system_prompt(after_system: str, after_bos: str, texts: Texts) -> dict[str, Any]:
    """How many times faster the first token is when user tokens come after the system prompt."""
    numbers, system, users = itertools.count(), {"role": "system", "content": texts.system()}, everyone(N_USERS)

    def body(user: str) -> dict[str, Any]:
        return {"messages": [system, question(next(numbers))], "user_id": user, "max_tokens": 1}

    found = await paired(
        lambda: first_token_ms(after_bos, body, users), lambda: first_token_ms(after_system, body, users), N_PAIRS
    )
    found["usage"] = {
        "after_system": await cached_tokens(after_system, body, next(users)),
        "after_bos": await cached_tokens(after_bos, body, next(users)),
    }
    return found


async def history(url: str, texts: Texts) -> dict[str, Any]:
    """How many times faster the first token is with user tokens than with the user's history in the prompt."""
    numbers, users = itertools.count(), everyone(N_USERS, first=N_USERS // 2)

    def with_tokens(user: str) -> dict[str, Any]:
        return {"messages": [question(next(numbers))], "user_id": user, "max_tokens": 1}

    def with_history(number: int) -> dict[str, Any]:
        told = {"role": "system", "content": texts.history(number)}
        return {"messages": [told, question(next(numbers))], "max_tokens": 1}

    async def known() -> float:
        return await first_token_ms(url, with_tokens, users)

    others = itertools.count()
    found: dict[str, Any] = {
        "another_user_each_time": await paired(
            lambda: first_token_ms(url, lambda _: with_history(next(others)), users), known, N_PAIRS
        ),
        "the_same_user_again": await paired(
            lambda: first_token_ms(url, lambda _: with_history(-1), users), known, N_PAIRS
        ),
    }
    found["usage"] = {
        "user_tokens": await cached_tokens(url, with_tokens, next(users)),
        "history": await cached_tokens(url, lambda _: with_history(next(others)), next(users)),
        "history_again": await cached_tokens(url, lambda _: with_history(-1), next(users)),
    }
    return found


async def main() -> None:
    texts = Texts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundles = {
            place: many_users(folder / f"{place}-bundle", N_USERS, placement=place)
            for place in ("after_system", "after_bos")
        }
        with (
            ours(folder / "after_system", bundles["after_system"]) as (after_system, _),
            ours(folder / "after_bos", bundles["after_bos"]) as (after_bos, _),
        ):
            placement = await shared_system_prompt(after_system, after_bos, texts)
        with ours(folder / "after_system", bundles["after_system"]) as (url, _):
            told = await history(url, texts)
    value = {"after_bos_over_after_system": placement, "history_over_user_tokens": told}
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    OUT.write_text(json.dumps({**value, **provenance(COMMAND)}, indent=2) + "\n")
    record("D6", placement)


if __name__ == "__main__":
    asyncio.run(main())
