"""Does vLLM compute what Hugging Face computes, with user tokens, whoever else is being served?"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from idiolect.user_model import Array
from idiolect_server.engine.base import Adapter, EngineConfig, Sampling
from idiolect_server.engine.vllm import VllmEngine
from idiolect_server.prompt import Placed, UserTokens

PROMPTS = (
    "What is a glacier?",
    "How do I boil an egg?",
    "Name three rivers.",
    "Why is the sky blue?",
    "Tell me about bees.",
    "What is a prime number?",
    "How does a bicycle stay up?",
    "Write a line about rain.",
)
SYSTEM = "You are a helpful assistant. Answer plainly and keep to the question. " * 12
N_USER_TOKENS, N_REPLY_TOKENS, CROWD = 4, 24, 8
MEMORY = 0.5
"""Share of the GPU for vLLM: Hugging Face's model needs room beside it."""

RowsOf = Callable[[int], UserTokens]
_numbers = itertools.count()


def places(engine: VllmEngine, rows_of: RowsOf | None, system: str = "") -> list[Placed]:
    """Each prompt, with the user tokens of another user after its system prompt; None is a plain prompt."""
    made = []
    for number, text in enumerate(PROMPTS):
        system_turn = [{"role": "system", "content": system}] if system else []
        whole = _render(engine, [*system_turn, {"role": "user", "content": text}], True)
        before = len(_render(engine, system_turn, False)) if system else 1
        made.append(Placed(whole, before, None if rows_of is None else rows_of(number)))
    return made


def _render(engine: VllmEngine, messages: list[dict[str, str]], prompts: bool) -> list[int]:
    text = engine.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompts)
    return list(engine.tokenizer(text, add_special_tokens=False)["input_ids"])


def users(table: Array) -> RowsOf:
    """64 users whose tokens are as large as the model's own embeddings ([vocabulary, H])."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(64, N_USER_TOKENS, table.shape[1])).astype(np.float32) * table.std()
    return lambda number: UserTokens(rows[number % len(rows)], "check")


async def reply(engine: VllmEngine, placed: Placed, adapter: Adapter | None) -> tuple[list[int], int]:
    """Token ids of a greedy reply, and how many tokens of the prompt were found in the prefix cache."""
    sampling = Sampling(max_tokens=N_REPLY_TOKENS, temperature=0)
    async for chunk in engine.generate(placed, sampling, f"check-{next(_numbers)}", adapter=adapter):
        found = list(chunk.token_ids), chunk.n_cached_tokens
    return found


class Reference:
    """Hugging Face's model, with the adapter, in one type, on the GPU if there is one."""

    def __init__(self, model: Path, adapter: Adapter | None, dtype: torch.dtype) -> None:
        base = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation="sdpa")
        adapted = base if adapter is None else PeftModel.from_pretrained(base, str(adapter.path))
        self._model = adapted.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    @property
    def table(self) -> Array:
        """The model's own embeddings, [vocabulary, H]."""
        weight: torch.Tensor = self._model.get_input_embeddings().weight
        return np.asarray(weight.detach().float().cpu())

    @torch.no_grad()
    def logps(self, placed: Placed, ids: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of `ids` after the placed prompt, [n]."""
        device = self._model.device
        rows = self._model.get_input_embeddings()(torch.tensor([*placed.token_ids, *ids], device=device))
        if placed.user_tokens is not None:
            soft = torch.from_numpy(placed.user_tokens.rows).to(device, rows.dtype)
            rows = torch.cat([rows[: placed.offset], soft, rows[placed.offset :]])
        logits = self._model(inputs_embeds=rows[None]).logits[0].float()
        at = torch.arange(placed.n_tokens - 1, placed.n_tokens - 1 + len(ids))
        return logits[at].log_softmax(-1).cpu().gather(-1, torch.tensor(ids)[:, None])[:, 0]


async def exactness(model: Path, adapter: Adapter | None) -> dict[str, Any]:
    """Against Hugging Face, against text in the place of user tokens, alone against a crowd, and the prefix cache."""
    engine = await VllmEngine.start(EngineConfig(str(model), adapter, max_model_len=2048, gpu_memory=MEMORY))
    try:
        return await _compare(engine, model, adapter)
    finally:
        engine.close()


async def _compare(engine: VllmEngine, model: Path, adapter: Adapter | None) -> dict[str, Any]:
    dtype: torch.dtype = engine.llm.model_config.dtype
    exact, same = Reference(model, adapter, torch.float32), Reference(model, adapter, dtype)
    table = exact.table
    asked, plain = places(engine, users(table)), places(engine, None)
    alone = [(await reply(engine, placed, adapter))[0] for placed in asked]
    crowd = await asyncio.gather(*(reply(engine, placed, adapter) for placed in asked * CROWD))
    ours, theirs, yardstick = [], [], []
    for placed, ids in zip(asked, alone, strict=True):
        whole = Placed([*placed.token_ids, *ids], placed.offset, placed.user_tokens)
        start, name = len(placed.token_ids), f"check-{next(_numbers)}"
        ours.append(torch.tensor(await engine.score(whole, start, name, adapter)))
        theirs.append(exact.logps(placed, ids))
        yardstick.append(same.logps(placed, ids))
    mine, hf32, hf = torch.cat(ours), torch.cat(theirs), torch.cat(yardstick)
    # Where user tokens are the embeddings of words, the reply is that of the words.
    words = list(engine.tokenizer(" please answer briefly", add_special_tokens=False)["input_ids"])
    as_text = [Placed([*p.token_ids[: p.offset], *words, *p.token_ids[p.offset :]]) for p in plain]
    as_rows = [Placed(p.token_ids, p.offset, UserTokens(table[words], "check")) for p in plain]
    text = await asyncio.gather(*(reply(engine, placed, adapter) for placed in as_text))
    rows = await asyncio.gather(*(reply(engine, placed, adapter) for placed in as_rows))
    without = await asyncio.gather(*(reply(engine, placed, adapter) for placed in plain))
    shared = places(engine, users(table), SYSTEM)
    cached = [(await reply(engine, placed, adapter))[1] for placed in shared]
    block = engine.llm.vllm_config.cache_config.block_size
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "tokens": len(mine),
        "mean_difference_to_hf_float32": float((mine - hf32).abs().mean()),
        "mean_difference_of_hf_in_this_type": float((hf - hf32).abs().mean()),
        "text_equals_rows": _share(a[0] == b[0] for a, b in zip(text, rows, strict=True)),
        "alone_equals_crowd": _share(a[0] == alone[n % len(alone)] for n, a in enumerate(crowd)),
        "user_changes_reply": _share(a[0] != b for a, b in zip(without, alone, strict=True)),
        "shared_prefix_found": _share(n >= shared[0].offset - shared[0].offset % block for n in cached[1:]),
    }


def _share(outcomes: Iterable[bool]) -> float:
    return float(np.mean(list(outcomes)))
