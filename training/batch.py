"""Pairs -> padded tensors: token ids, where the user tokens go, and which positions are the reply.

Worked example, T_u = 2, layout after_system, prompt [1 7 2 1 9 6 2], anchor [1 9], reply [8 2]:

    ids         1 7 2 0 0 1 9 6 2 8 2       zeros are placeholders for the two soft tokens
    user_mask   . . . x x . . . . . .
    reply_mask  . . . . . . . . . x x       log-probabilities are summed over these
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from idiolect.layout import Layout, Placement
from training.errors import BadPreference
from training.preferences import Preference

Tensor = torch.Tensor


@dataclass(frozen=True)
class Pair:
    """One tokenized comparison. `index` is its place in the preferences file."""

    index: int
    row: int
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    offset: int

    @property
    def n_tokens(self) -> int:
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


@dataclass(frozen=True)
class Batch:
    """Rows 0..B-1 are (prompt, chosen), rows B..2B-1 are (prompt, rejected). All masks are bool."""

    ids: Tensor  # [2B, L]
    attention_mask: Tensor  # [2B, L]
    user_mask: Tensor  # [2B, L]
    reply_mask: Tensor  # [2B, L]
    rows: Tensor  # [B]
    indices: Tensor  # [B]


def chat_layout(tokenizer: PreTrainedTokenizerBase, placement: Placement) -> Layout:
    """The layout for a chat template: its anchor is what the template puts before a user's first words.

    Found by rendering one user turn after one system turn, and cutting at the user's text.
    """
    system = [{"role": "system", "content": "S"}]
    before = tokenizer.apply_chat_template(system, tokenize=False)
    both = tokenizer.apply_chat_template([*system, {"role": "user", "content": "\0"}], tokenize=False)
    opening = both.removeprefix(before).split("\0")[0]
    anchor = tokenizer(opening, add_special_tokens=False)["input_ids"]
    # The last token may merge with the user's text (a newline does): the ones before it identify the turn.
    if len(anchor) > 2:
        anchor = anchor[:-1]
    return Layout(placement=placement, anchor=tuple(anchor), bos_id=tokenizer.bos_token_id)


def tokenize(
    preferences: Sequence[Preference],
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    user_rows: dict[str, int],
    max_prompt_tokens: int,
    max_reply_tokens: int,
) -> list[Pair]:
    """Tokenized pairs. A user without a row gets the generic row 0.

    A reply ends with the end-of-turn token, unless it is longer than `max_reply_tokens`: then it is cut, and the
    model is not taught to stop there. A longer prompt is an error, since cutting it would change its meaning.
    """
    pairs = []
    for index, preference in enumerate(preferences):
        # Rendered and encoded in two steps, so that every transformers version returns a plain list.
        text = tokenizer.apply_chat_template(preference.chat(), tokenize=False, add_generation_prompt=True)
        prompt_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(prompt_ids) > max_prompt_tokens:
            raise BadPreference(
                f"preference {index + 1}: prompt has {len(prompt_ids)} tokens, more than max_prompt_tokens"
            )
        chosen, rejected = (
            [*tokenizer(reply, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id][:max_reply_tokens]
            for reply in (preference.chosen, preference.rejected)
        )
        row = user_rows.get(preference.user_id, 0)
        offset = layout.offset(prompt_ids)
        pairs.append(Pair(index, row, tuple(prompt_ids), tuple(chosen), tuple(rejected), offset))
    return pairs


def collate(pairs: Sequence[Pair], n_user_tokens: int, pad_id: int) -> Batch:
    """Right-padded tensors with `n_user_tokens` placeholders a sequence (0 for the reference model)."""
    sequences = [(p, p.chosen_ids) for p in pairs] + [(p, p.rejected_ids) for p in pairs]
    length = max(len(p.prompt_ids) + len(reply) for p, reply in sequences) + n_user_tokens
    ids = torch.full((len(sequences), length), pad_id, dtype=torch.long)
    attention, user, reply_mask = (torch.zeros(ids.shape, dtype=torch.bool) for _ in range(3))
    for i, (pair, reply) in enumerate(sequences):
        cut = pair.offset
        row = [*pair.prompt_ids[:cut], *[0] * n_user_tokens, *pair.prompt_ids[cut:], *reply]
        ids[i, : len(row)] = torch.tensor(row)
        attention[i, : len(row)] = True
        user[i, cut : cut + n_user_tokens] = True
        reply_mask[i, len(row) - len(reply) : len(row)] = True
    rows = torch.tensor([pair.row for pair in pairs])
    return Batch(ids, attention, user, reply_mask, rows, torch.tensor([pair.index for pair in pairs]))


def shuffled(pairs: Sequence[Pair], batch_pairs: int, generator: torch.Generator) -> Iterator[list[Pair]]:
    """One epoch of batches. Pairs of like length share a batch (less padding); the order of batches is random."""
    noise = torch.rand(len(pairs), generator=generator)
    by_length = sorted(range(len(pairs)), key=lambda i: pairs[i].n_tokens + 8 * float(noise[i]))
    groups = [by_length[start : start + batch_pairs] for start in range(0, len(by_length), batch_pairs)]
    for group in torch.randperm(len(groups), generator=generator).tolist():
        yield [pairs[i] for i in groups[group]]
