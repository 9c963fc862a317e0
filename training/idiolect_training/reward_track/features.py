"""Frozen features of (prompt, reply): what the base model makes of a reply, and what can be counted in its text.

The base model is never trained here. Each distinct text is encoded once, and kept on disk by content.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from idiolect.base_model import identify
from idiolect.prompt.chat import prompt_ids, reply_ids
from idiolect.prompt.template import chat_layout
from idiolect_training.demo_model import resolve
from idiolect_training.fit.base import load, logits_at
from idiolect_training.progress import progress

Array = NDArray[np.float32]

MAX_REPLY_TOKENS = 160
BATCH = 12
SURFACE = (
    "log characters",
    "log words",
    "log sentences",
    "characters a word",
    "words a sentence",
    "types over tokens",
    "list items",
    "line breaks",
    "digits",
    "capitals",
    "punctuation",
    "exclamation marks",
    "question marks",
    "first person",
    "code or markup",
    "ends a sentence",
    "words of the prompt",
)


class Text(NamedTuple):
    """A reply and what it replies to."""

    prompt: str
    reply: str


class Encoding(NamedTuple):
    """What the frozen model says of n texts."""

    states: Array  # [n, 4, H]: mean over reply tokens at a third, two thirds and all of the depth; last token's state
    logps: Array  # [n, 2]: mean and sum of the reply tokens' log-probabilities


def surface(texts: Sequence[Text]) -> Array:
    """Counts in the reply's text, [n, len(SURFACE)]; the order is that of SURFACE."""
    return np.array([_count(text) for text in texts], np.float32).reshape(-1, len(SURFACE))


def encode(texts: Sequence[Text], file: Path, model: str = "demo") -> Encoding:
    """Encoding of each text, from the SQLite file at `file` where it has it; interrupted runs resume there."""
    folder = resolve(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    salt = f"{identify(folder).fingerprint} {MAX_REPLY_TOKENS} 1"
    keys = [hashlib.blake2b(json.dumps([salt, *text]).encode(), digest_size=16).digest() for text in texts]
    with closing(sqlite3.connect(file, timeout=60)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS encodings (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        known = {key for (key,) in database.execute("SELECT key FROM encodings")}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            encoder = _Encoder(folder)
            for batch, values in encoder.encode(list(missing.values())):
                rows = [(list(missing)[place], value.tobytes()) for place, value in zip(batch, values, strict=True)]
                with database:
                    database.executemany("INSERT OR REPLACE INTO encodings VALUES (?, ?)", rows)
        find = "SELECT value FROM encodings WHERE key = ?"
        found = [np.frombuffer(database.execute(find, (key,)).fetchone()[0], np.float32) for key in keys]
    values = np.stack(found)
    return Encoding(values[:, 2:].reshape(len(texts), 4, -1), values[:, :2])


class _Encoder:
    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.layout = chat_layout(self.tokenizer, "after_bos")
        # As the trainer computes: an 8B model in float32 on a processor would take 32 GB and hours.
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.model = load(folder, dtype).to(self.device).eval()

    def encode(self, texts: Sequence[Text]) -> Iterable[tuple[list[int], Array]]:
        """Places in `texts` and their values, a batch at a time; texts of like length share a batch."""
        split = [self._tokenize(text) for text in texts]
        order = sorted(range(len(split)), key=lambda place: sum(map(len, split[place])), reverse=True)
        for start in progress(range(0, len(order), BATCH), "features"):
            batch = order[start : start + BATCH]
            yield batch, self._forward([split[place] for place in batch])

    def _tokenize(self, text: Text) -> tuple[list[int], list[int]]:
        turns = [{"role": "user", "content": text.prompt}]
        return prompt_ids(turns, self.tokenizer), reply_ids(text.reply, self.layout, self.tokenizer)[:MAX_REPLY_TOKENS]

    @torch.no_grad()
    def _forward(self, split: Sequence[tuple[list[int], list[int]]]) -> Array:
        length = max(len(prompt) + len(reply) for prompt, reply in split)
        ids = torch.zeros(len(split), length, dtype=torch.long)  # right padding: causal tokens never look at it
        for row, (prompt, reply) in enumerate(split):
            ids[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        ids = ids.to(self.device)
        row = torch.tensor([row for row, (_, reply) in enumerate(split) for _ in reply])
        place = torch.tensor([len(prompt) - 1 + at for prompt, reply in split for at in range(len(reply))])
        logits, output = logits_at(self.model, row, place, input_ids=ids, output_hidden_states=True)
        scored = logits.log_softmax(-1).gather(1, ids[row, place + 1][:, None])[:, 0]
        by_reply = scored.split([len(reply) for _, reply in split])
        layers = output.hidden_states
        depth = len(layers) - 1
        values = []
        for number, ((prompt, reply), logps) in enumerate(zip(split, by_reply, strict=True)):
            start, end = len(prompt), len(prompt) + len(reply)
            means = [layers[layer][number, start:end].float().mean(0) for layer in (depth // 3, 2 * depth // 3, depth)]
            last = layers[-1][number, end - 1].float()
            values.append(torch.cat([torch.stack([logps.mean(), logps.sum()]), *means, last]))
        stacked: Array = torch.stack(values).cpu().numpy()
        return stacked


def _count(text: Text) -> list[float]:
    reply = text.reply.strip()
    words = re.findall(r"\w+", reply.lower())
    sentences = [part for part in re.split(r"[.!?]+\s|\n", reply) if part.strip()]
    n_chars, n_words, n_sentences = max(len(reply), 1), max(len(words), 1), max(len(sentences), 1)
    asked = set(re.findall(r"\w+", text.prompt.lower()))

    def share(pattern: str) -> float:
        return len(re.findall(pattern, reply)) / n_chars

    return [
        np.log(n_chars),
        np.log(n_words),
        np.log(n_sentences),
        n_chars / n_words,
        n_words / n_sentences,
        len(set(words)) / n_words,
        np.log1p(len(re.findall(r"^\s*(?:[-*•]|\d+[.)])\s", reply, re.M))),
        np.log1p(reply.count("\n")),
        share(r"\d"),
        share(r"[A-Z]"),
        share(r"[^\w\s]"),
        np.log1p(reply.count("!")),
        np.log1p(reply.count("?")),
        sum(word in {"i", "me", "my", "we", "our"} for word in words) / n_words,
        float(bool(re.search(r"[`{}<>|]|\*\*|https?:", reply))),
        float(reply.endswith((".", "!", "?", '"', ")"))),
        sum(word in asked for word in words) / n_words,
    ]
