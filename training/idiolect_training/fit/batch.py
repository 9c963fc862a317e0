"""Pairs -> padded tensors, one row per pair: the prompt once, then both replies, which do not see each other.

Worked example, T_u = 2, layout after_system, prompt [1 7 2 1 9 6 2], anchor [1 9], chosen [8 2], rejected [5 4 2]:

    ids         1 7 2 0 0 1 9 6 2 8 2 5 4 2     zeros are placeholders for the two soft tokens
    user_mask   . . . x x . . . . . . . . .
    positions   0 1 2 3 4 5 6 7 8 9 . 9 . .     each reply continues the prompt
    part        p p p p p p p p p c c r r r     a token sees earlier tokens of the prompt and of its own part

Two replies to one prompt share its computation, which is most of a short comparison.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from idiolect.bank import NO_REPLY
from idiolect.errors import IdiolectError
from idiolect.learning import WEIGHTS
from idiolect.prompt.chat import are_equal, place, reply_ids
from idiolect.prompt.end_mark import bare_reply, end_marks
from idiolect.prompt.layout import Layout
from idiolect_training.data.lines import BadLines, judge, some
from idiolect_training.data.preferences import Preference
from idiolect_training.errors import BadPreference

log = logging.getLogger(__name__)

PROMPT, CHOSEN, REJECTED, PAD = range(4)


@dataclass(frozen=True)
class Pair:
    """One tokenized comparison. `index` is its place among those that it was tokenized with.

    The side that a thumb lacks has no tokens, and so a log-probability of 0 under the policy and the reference.
    """

    index: int
    row: int
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    offset: int
    weight: float = 1.0
    """How much its loss counts (idiolect.learning.WEIGHTS)."""
    tied: bool = False
    """Neither reply was preferred: which of them stands for `chosen` says nothing."""

    @property
    def n_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


@dataclass(frozen=True)
class Batch:
    """B pairs of at most L tokens, N reply tokens in all."""

    ids: Tensor  # [B, L]
    positions: Tensor  # [B, L]
    part: Tensor  # [B, L]: PROMPT, CHOSEN, REJECTED or PAD
    user_mask: Tensor  # [B, L] bool
    reply: Tensor  # [N]: 2 * pair for a token of `chosen`, 2 * pair + 1 for one of `rejected`
    source: Tensor  # [N]: position in the row whose output predicts the token
    target: Tensor  # [N]: the token

    def visible(self) -> Tensor:
        """Which key (last axis) each query sees, [B, 1, L, L] bool; padding sees itself, since softmax needs one."""
        length = self.ids.shape[1]
        query, key = self.part[:, :, None], self.part[:, None, :]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.ids.device).tril()
        return (
            (((key == PROMPT) | (key == query)) & (query != PAD) & causal)
            | torch.eye(length, dtype=torch.bool, device=self.ids.device)
        )[:, None]

    def to(self, device: torch.device) -> Self:
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def tokenize(
    preferences: Sequence[Preference],
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    user_rows: dict[str, int],
    max_prompt_tokens: int,
    max_reply_tokens: int,
    bad_lines: BadLines = "stop",
) -> tuple[list[Preference], list[Pair]]:
    """The comparisons that are kept and their tokens, side by side. A user without a row gets the generic row 0.

    A reply ends with the end-of-turn token, unless it is longer than `max_reply_tokens`: then it is cut, and the
    model is not taught to stop there. A mark of the end that the reply brings itself is taken off first. A longer
    prompt is a bad line, since cutting it would change its meaning; so is one that the chat template refuses. Replies
    that are equal by now are no preference, and are left out.
    Raises BadPreference, also when none of some is left.
    """
    if not preferences:
        return [], []
    marks = end_marks(tokenizer)
    counts: Counter[str] = Counter()

    def reply(text: str) -> tuple[str, tuple[int, ...]]:
        if text == NO_REPLY:
            return text, ()
        bare = bare_reply(text, marks)
        ids = reply_ids(bare, layout, tokenizer)
        counts.update(marked=bare != text, cut=len(ids) > max_reply_tokens)
        return bare, tuple(ids[:max_reply_tokens])

    def read(preference: Preference) -> tuple[Preference, Pair]:
        try:
            prompt, offset = place(preference.chat(), layout, tokenizer)
        except (IdiolectError, TemplateError) as error:
            raise ValueError(f"the chat template takes no such conversation: {error}") from error
        if len(prompt) > max_prompt_tokens:
            raise ValueError(f"prompt has {len(prompt)} tokens, more than max_prompt_tokens")
        (chosen, chosen_ids), (rejected, rejected_ids) = reply(preference.chosen), reply(preference.rejected)
        row = user_rows.get(preference.user_id, 0)
        kept, weight = preference.trimmed(chosen, rejected), WEIGHTS[preference.kind]
        return kept, Pair(0, row, tuple(prompt), chosen_ids, rejected_ids, offset, weight, preference.kind == "tie")

    items = ((preference.source or f"preference {n}", preference) for n, preference in enumerate(preferences, start=1))
    judged = judge("comparisons", items, read, bad_lines)
    equal = [source for source, both in judged if _are_equal(*both)]
    kept = [both for _, both in judged if not _are_equal(*both)]
    log.info(
        "%d comparisons; of their replies %d were cut at max_reply_tokens, and %d lost a mark of their end",
        len(judged), counts["cut"], counts["marked"],
    )  # fmt: skip
    if equal:
        reason = "replies that are equal after Unicode normalization (NFC), tokenizing or cutting"
        log.warning("left out %d of %d comparisons, %s: %s", len(equal), len(judged), reason, some(equal))
    if not kept:
        raise BadPreference(f"{some(equal)}: no comparison is left: {reason}")
    return [preference for preference, _ in kept], [replace(pair, index=n) for n, (_, pair) in enumerate(kept)]


def _are_equal(preference: Preference, pair: Pair) -> bool:
    return are_equal(preference.chosen, preference.rejected, (), pair.chosen_ids, pair.rejected_ids)


def collate(pairs: Sequence[Pair], n_user_tokens: int, pad_id: int) -> Batch:
    """Right-padded tensors with `n_user_tokens` placeholders a pair (0 for the reference model)."""
    length = max(pair.n_tokens for pair in pairs) + n_user_tokens
    ids = torch.full((len(pairs), length), pad_id, dtype=torch.long)
    positions = torch.zeros_like(ids)
    part = torch.full_like(ids, PAD)
    user = torch.zeros_like(ids, dtype=torch.bool)
    reply: list[int] = []
    source: list[int] = []
    target: list[int] = []
    for i, pair in enumerate(pairs):
        cut = pair.offset
        prompt = [*pair.prompt_ids[:cut], *[0] * n_user_tokens, *pair.prompt_ids[cut:]]
        user[i, cut : cut + n_user_tokens] = True
        end = start = len(prompt)
        ids[i, :start], positions[i, :start], part[i, :start] = torch.tensor(prompt), torch.arange(start), PROMPT
        for side, tokens in ((CHOSEN, pair.chosen_ids), (REJECTED, pair.rejected_ids)):
            here = slice(start, start + len(tokens))
            ids[i, here], part[i, here] = torch.tensor(tokens), side
            positions[i, here] = torch.arange(end, end + len(tokens))
            reply += [2 * i + side - CHOSEN] * len(tokens)
            source += [end - 1, *range(start, start + len(tokens) - 1)][: len(tokens)]
            target += tokens
            start += len(tokens)
    return Batch(ids, positions, part, user, torch.tensor(reply), torch.tensor(source), torch.tensor(target))


def shuffled(pairs: Sequence[Pair], batch_pairs: int, generator: torch.Generator) -> Iterator[list[Pair]]:
    """One epoch of batches. Pairs of like length share a batch (less padding); the order of batches is random.

    Votes on the same two replies stay together: where users disagree on them, what is left of the batch's gradient is
    about the users, and what is not about them cancels.
    """
    noise = torch.rand(len(pairs), generator=generator)
    first: dict[tuple[object, ...], int] = {}
    same = [first.setdefault((p.prompt_ids, frozenset((p.chosen_ids, p.rejected_ids))), i) for i, p in enumerate(pairs)]
    by_length = sorted(range(len(pairs)), key=lambda i: (pairs[i].n_tokens + 8 * float(noise[same[i]]), same[i]))
    groups = [by_length[start : start + batch_pairs] for start in range(0, len(by_length), batch_pairs)]
    for group in torch.randperm(len(groups), generator=generator).tolist():
        yield [pairs[i] for i in groups[group]]
