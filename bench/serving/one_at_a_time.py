"""make one-at-a-time (D5): ours against the paper's generation protocol, in our own writing.

Hugging Face, one prompt at a time, user tokens before the prompt as embeddings, no KV cache: every token computes the
whole text before it. And the same with a KV cache, as a careful team would write it. Ours has 32 requests at once.
"""

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.load.load import drive, everyone, full, paired
from bench.load.sides import conversation, generate_body, many_users, ours
from bench.results import provenance, record
from idiolect.bundle import Bundle
from idiolect_training.demo_model import demo_model
from tests.live import ROOT

COMMAND = "make one-at-a-time"
OUT = ROOT / "docs" / "results" / "one_at_a_time.json"
N_USERS = 1000
N_REQUESTS, N_TOKENS, N_PAIRS = 32, 128, 5


class OneAtATime:
    """Hugging Face, one prompt after another, as the paper's code generates: without a KV cache, or with one."""

    def __init__(self, model: Path, bundle: Bundle) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(demo_model())
        self._numbers, self._bundle = itertools.count(), bundle
        self._embed = self._model.get_input_embeddings()

    def prompt(self) -> torch.Tensor:
        """User tokens and then a conversation [1, n, H], another user and another question each time."""
        number = next(self._numbers)
        ids = self._tokenizer.apply_chat_template(conversation(number), add_generation_prompt=True, return_dict=True)
        rows = torch.from_numpy(self._bundle.user_model.user_tokens(self._bundle.codes[number]))
        return torch.cat([rows, self._embed(torch.tensor(ids["input_ids"]))])[None]

    @torch.no_grad()
    def without_cache(self, prompt: torch.Tensor, n_tokens: int) -> list[int]:
        """Greedy; every token computes the whole text before it anew. `generate(use_cache=False)` does not: it was
        seen to keep a cache all the same when it is given embeddings."""
        found: list[int] = []
        for _ in range(n_tokens):
            logits = self._model(inputs_embeds=prompt, use_cache=False, logits_to_keep=1).logits
            found.append(int(logits[0, -1].argmax()))
            prompt = torch.cat([prompt, self._embed(torch.tensor([found[-1:]]))], dim=1)
        return found

    @torch.no_grad()
    def with_cache(self, prompt: torch.Tensor, n_tokens: int) -> list[int]:
        """Greedy, to the last of `n_tokens`."""
        new = self._model.generate(
            inputs_embeds=prompt,
            attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long),
            min_new_tokens=n_tokens,
            max_new_tokens=n_tokens,
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        return list(new[0].tolist())


async def compare(url: str, peer: OneAtATime) -> dict[str, Any]:
    """Ours with 32 requests at once, 128 new tokens each, over Hugging Face: tokens per second."""
    body, users = generate_body(N_TOKENS), everyone(N_USERS)
    prompt = peer.prompt()
    assert peer.without_cache(prompt, 16) == peer.with_cache(prompt, 16)

    async def mine() -> float:
        window = await full(lambda: drive(url, "/generate", body, users, N_REQUESTS, N_REQUESTS), N_REQUESTS * N_TOKENS)
        return window.tokens_per_s

    def theirs(write: Callable[[torch.Tensor, int], list[int]]) -> Callable[[], Any]:
        async def tokens_per_s() -> float:
            prompt, began = peer.prompt(), time.perf_counter()
            return len(write(prompt, N_TOKENS)) / (time.perf_counter() - began)

        return tokens_per_s

    return {
        "without_kv_cache": await paired(mine, theirs(peer.without_cache), N_PAIRS),
        "with_kv_cache": await paired(mine, theirs(peer.with_cache), N_PAIRS),
    }


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = many_users(folder / "bundle", N_USERS)
        with ours(folder / "ours", bundle) as (url, model):
            value = await compare(url, OneAtATime(model, bundle))
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    OUT.write_text(json.dumps({**value, **provenance(COMMAND)}, indent=2) + "\n")
    first = json.loads((OUT.parent / "first_token.json").read_text())
    value |= {"first_token_of_history": first["history_over_user_tokens"]}
    record("D5", value)


if __name__ == "__main__":
    asyncio.run(main())
