"""Replies of a trained policy to held-out prompts, to measure how users' tokens change what is written.

Serving replies to people is the server's business; this one decodes greedily, a batch of prompts at a time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor

from idiolect.manifest import Decoding
from idiolect.prompt.chat import end_id, place
from idiolect_training.config import GenerateConfig, RunConfig
from idiolect_training.data.preferences import Preference
from idiolect_training.errors import BadRunConfig
from idiolect_training.fit.policy import Policy
from idiolect_training.progress import progress

Chat = list[dict[str, str]]

MAX_USERS = 12
GENERIC = ""
"""Whose replies a stranger would get."""


@dataclass(frozen=True)
class Reply:
    """What the policy says to `chat` with the tokens of `user_id`; GENERIC is nobody in particular.

    `number` is the prompt's: equal for everybody who was asked the same, with a profile before it or without.
    """

    user_id: str
    number: int
    chat: Chat
    text: str


def generate(
    run: RunConfig, policy: Policy, user_rows: Mapping[str, int], preferences: Sequence[Preference]
) -> list[Reply]:
    """Replies of the generic user and of at most MAX_USERS trained users, to the same prompts.

    The prompts are the run's own, or some of `preferences`. A user's explicit profile, if `preferences` have one, goes
    into the prompt as in training. Raises BadRunConfig when the file of prompts cannot be read.
    """
    if run.generate is None:
        return []
    prompts = _prompts(run.generate, preferences)
    example = {p.user_id: p for p in preferences if p.user_id in user_rows}
    asked = [(GENERIC, 0, number, prompt) for number, prompt in enumerate(prompts)]
    # Spread over the alphabet, since ids often say what users have in common.
    every = -(-len(example) // MAX_USERS) or 1
    for user_id in sorted(example)[::every]:
        user = example[user_id]
        asked += [(user_id, user_rows[user_id], number, user.ask(prompt)) for number, prompt in enumerate(prompts)]

    asked.sort(key=lambda item: len(json.dumps(item[3])))
    size = 4 * run.batch_pairs
    replies = []
    for start in progress(range(0, len(asked), size), "replies"):
        chunk = asked[start : start + size]
        placed = [place(chat, policy.layout, policy.tokenizer) for *_, chat in chunk]
        tokens = policy.user_tokens([row for _, row, _, _ in chunk])
        texts = _decode(policy, placed, tokens, run.generate.max_new_tokens, run.decoding)
        replies += [Reply(user, number, chat, text) for (user, _, number, chat), text in zip(chunk, texts, strict=True)]
    return sorted(replies, key=lambda reply: (reply.user_id, reply.number))


def _prompts(wanted: GenerateConfig, preferences: Sequence[Preference]) -> list[Chat]:
    if wanted.prompts is None:
        turns = {json.dumps(p.turns(), sort_keys=True): p.turns() for p in preferences}
        return [turns[key] for key in sorted(turns)[: wanted.n_prompts]]
    try:
        lines = wanted.prompts.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise BadRunConfig(f"generate.prompts: {error}") from error
    asked = [line.strip() for line in lines if line.strip()][: wanted.n_prompts]
    if not asked:
        raise BadRunConfig(f"generate.prompts: {wanted.prompts} holds no prompt")
    return [[{"role": "user", "content": prompt}] for prompt in asked]


class _Penalty(LogitsProcessor):  # type: ignore[misc]
    """Decoding.frequency_penalty, as vLLM has it: the prompt, here given as embeddings, does not count."""

    def __init__(self, penalty: float) -> None:
        self._penalty = penalty

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        counts = torch.zeros_like(scores).scatter_add_(1, input_ids, torch.ones_like(input_ids, dtype=scores.dtype))
        return scores - self._penalty * counts


@torch.no_grad()
def _decode(
    policy: Policy,
    prompts: Sequence[tuple[Sequence[int], int]],
    user_tokens: Tensor,
    max_new_tokens: int,
    decoding: Decoding | None = None,
) -> list[str]:
    """Greedy replies to B prompts (token ids, place of user tokens) with `user_tokens` [B, T_u, H]."""
    model = policy.model.get_base_model()
    embed = model.get_input_embeddings()
    rows = []
    for (ids, cut), tokens in zip(prompts, user_tokens, strict=True):
        prompt = embed(torch.tensor(ids, device=policy.device))
        rows.append(torch.cat([prompt[:cut], tokens.to(prompt.dtype), prompt[cut:]]))
    length = max(map(len, rows))
    embeds = torch.stack([torch.nn.functional.pad(row, (0, 0, length - len(row), 0)) for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=policy.device)
    new = model.generate(
        inputs_embeds=embeds,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        logits_processor=[] if decoding is None else [_Penalty(decoding.frequency_penalty)],
        pad_token_id=policy.pad_id,
        eos_token_id=end_id(policy.layout, policy.tokenizer),
    )
    return [str(text).strip() for text in policy.tokenizer.batch_decode(new, skip_special_tokens=True)]
