"""make peers (D4): user tokens against what a team would use instead, on the same engine and machine.

D4: one LoRA per user in vLLM. The adapters are as large as ours, one for each user, and like ours without effect;
`vllm serve` with the settings of our engine and one server for each `max_loras`, of which the best counts. With 1,000
users its cache in host memory holds 64 adapters, and the others are read from disk, as they must be with many users.

And vLLM's own prompt embeddings over HTTP, where the caller sends the whole prompt as vectors.
"""

import asyncio
import base64
import io
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.load.load import Body, drive, everyone, full, paired, uniform
from bench.load.sides import chat_body, conversation, generate_body, many_users, ours, vllm_serve, write_idle_adapter
from bench.results import provenance, record
from idiolect.bundle import Bundle
from idiolect.prompt.chat import place
from idiolect_training.demo_model import demo_model
from tests.live import DEMO_BUNDLE, ROOT

COMMAND = "make peers"
OUT = ROOT / "docs" / "results" / "peers.json"
N_USERS = 1000
N_REQUESTS, N_CALLERS, MAX_TOKENS, N_PAIRS = 64, 32, 32, 5
CASES = {8: (8, 32), 32: (1, 32, 64)}
"""`max_loras` -> users in flight."""
N_CPU_LORAS = 64


def adapters(folder: Path, n_users: int) -> list[str]:
    """Arguments of `vllm serve`: an adapter for each of user-0000000 and on."""
    (folder / "adapter").mkdir(parents=True)
    write_idle_adapter(folder / "adapter", Bundle.read(DEMO_BUNDLE))
    names = [f"user-{number:07d}" for number in range(n_users)]
    for name in names:
        (folder / name).symlink_to(folder / "adapter")
    return ["--lora-modules", *(f"{name}={folder / name}" for name in names)]


async def equal_replies(url: str, path: str, body: Body, users: Iterator[str], n_callers: int) -> float:
    """Tokens per second, of replies as long as every side's."""
    window = await full(lambda: drive(url, path, body, users, N_REQUESTS, n_callers), N_REQUESTS * MAX_TOKENS)
    return window.tokens_per_s


async def over_adapters(url: str, folder: Path) -> dict[str, Any]:
    """Ours over one LoRA per user: tokens per second, by users in flight and `max_loras`."""
    found: dict[str, Any] = {}
    mine, theirs = generate_body(MAX_TOKENS), chat_body(MAX_TOKENS)

    def side(base: str, path: str, body: Any, ids: Iterator[str], n_callers: int) -> Callable[[], Any]:
        async def tokens_per_s() -> float:
            return await equal_replies(base, path, body, ids, n_callers)

        return tokens_per_s

    async def against(lora: str, users: Callable[[], Iterator[str]], n_callers: int = N_CALLERS) -> dict[str, Any]:
        return await paired(
            side(url, "/generate", mine, users(), n_callers),
            side(lora, "/v1/chat/completions", theirs, users(), n_callers),
            N_PAIRS,
        )

    for max_loras, in_flight in CASES.items():
        settings = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", str(max_loras)]
        settings += ["--max-cpu-loras", str(N_CPU_LORAS)]
        few = adapters(folder / f"few-{max_loras}", max(in_flight))
        with vllm_serve(demo_model(), folder / "lora.log", *settings, *few) as lora:
            for n_distinct in in_flight:
                name = f"{n_distinct} users, max_loras {max_loras}"
                sys.stderr.write(f"{name}\n")
                found[name] = await against(lora, partial(everyone, n_distinct), max(N_CALLERS, n_distinct))
    settings = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "32", "--max-cpu-loras", str(N_CPU_LORAS)]
    many = adapters(folder / "many", N_USERS)
    with vllm_serve(demo_model(), folder / "lora.log", *settings, *many) as lora:
        found["1000 users, max_loras 32"] = await against(lora, lambda: uniform(N_USERS, seed=0))
    found["ours, 1000 users over 1"] = await paired(
        side(url, "/generate", mine, uniform(N_USERS, seed=1), N_CALLERS),
        side(url, "/generate", mine, everyone(1), N_CALLERS),
        N_PAIRS,
    )
    return found


class PromptEmbeds:
    """vLLM's documented way to bring soft tokens: the caller embeds the whole prompt and sends it as base64."""

    ARGUMENTS = ("--enable-prompt-embeds",)

    def __init__(self, model: Path, bundle: Bundle) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._embed = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).get_input_embeddings()
        self._tokenizer = AutoTokenizer.from_pretrained(demo_model())
        self._bundle, self._numbers = bundle, itertools.count()

    @torch.no_grad()
    def body(self, user_id: str) -> dict[str, Any]:
        """POST /v1/completions for a user, another conversation each time."""
        ids, at = place(conversation(next(self._numbers)), self._bundle.manifest.layout, self._tokenizer)
        tokens = self._embed(torch.tensor(ids))
        rows = torch.from_numpy(self._bundle.user_model.user_tokens(self._bundle.codes[int(user_id[5:])]))
        file = io.BytesIO()
        torch.save(torch.cat([tokens[:at], rows, tokens[at:]]), file)
        sent = base64.b64encode(file.getvalue()).decode()
        return {"model": "plain", "prompt_embeds": sent, "max_tokens": MAX_TOKENS, "temperature": 0}


async def over_prompt_embeds(url: str, model: Path, bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Ours over prompt embeddings of `vllm serve`: tokens per second, and the bytes of a request."""
    mine, theirs = generate_body(MAX_TOKENS), PromptEmbeds(model, bundle).body
    users = everyone(N_USERS)
    with vllm_serve(model, folder / "embeds.log", *PromptEmbeds.ARGUMENTS) as embeds:

        async def with_tokens() -> float:
            return await equal_replies(url, "/generate", mine, users, N_CALLERS)

        async def with_embeds() -> float:
            return await equal_replies(embeds, "/v1/completions", theirs, users, N_CALLERS)

        found = await paired(with_tokens, with_embeds, N_PAIRS)
    sizes = {"ours": mine(next(users)), "prompt_embeds": theirs(next(users))}
    return found | {"request_bytes": {name: len(json.dumps(body)) for name, body in sizes.items()}}


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = many_users(folder / "bundle", N_USERS)
        with ours(folder / "ours", bundle) as (url, model):
            embeds = await over_prompt_embeds(url, model, bundle, folder)
            loras = await over_adapters(url, folder)
    value = {"prompt_embeds": embeds, "one_lora_per_user": loras}
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    OUT.write_text(json.dumps({**value, **provenance(COMMAND)}, indent=2) + "\n")
    record("D4", loras)


if __name__ == "__main__":
    asyncio.run(main())
