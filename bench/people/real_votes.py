"""Votes of real people with frozen features: LLMFAO (answers of language models) and UKP ConvArg (arguments).

From ../shared/data; who is held out, and what is counted of it.
"""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from idiolect_training.data.formats import llmfao, ukp_convarg
from idiolect_training.reward_track.features import Text, encode, surface
from idiolect_training.reward_track.heads import Array, Basis, Heads, Votes
from tests.live import ROOT

DATA = ROOT.parent / "shared" / "data"
FEATURES = ROOT / "runs" / "features.sqlite"
READERS = {"llmfao": llmfao.read, "ukp_convarg": ukp_convarg.read}
MIN_VOTES = {"llmfao": 20, "ukp_convarg": 30}
N_OWN = (0, 1, 2, 4, 8, 16, 32)
MIN_REST = 10
Flags = NDArray[np.bool_]
Index = NDArray[np.int64]
Hits = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """n votes of U users on T texts, whose features come in blocks [T, F]."""

    name: str
    user: Index  # [n]
    chosen: Index  # [n]: a text
    rejected: Index  # [n]
    pair: Index  # [n]: numbers the unordered pairs of texts
    blocks: tuple[Array, ...]
    evaluated: Flags  # [U]: has enough votes
    tied: Flags  # [n]: neither text was preferred

    def votes(self, train: Flags) -> tuple[Votes, tuple[int, ...]]:
        """All votes in the basis of the training pairs, and the sizes of its blocks."""
        once = np.flatnonzero(train)[np.unique(self.pair[train], return_index=True)[1]]
        basis = Basis.fit([block[self.chosen[once]] - block[self.rejected[once]] for block in self.blocks])
        x = basis.apply(self.blocks)
        return Votes(self.user, x[self.chosen] - x[self.rejected]), basis.sizes


@dataclass(frozen=True)
class Split:
    """Of n votes: which train, each vote's place among the first ones of a new user (-1: none), and which test."""

    train: Flags
    own: Index
    test: Flags

    def margins(self, heads: Heads, votes: Votes, n_own: int) -> Array:
        """Margins of the test votes, with each new user's code inferred from `n_own` votes."""
        mine = (self.own >= 0) & (self.own < n_own)
        return heads.margins(votes[self.test], heads.infer(votes[mine], len(heads.codes)) if mine.any() else None)


def by_pair(data: Data, among: Flags, rng: np.random.Generator) -> Split:
    """A fifth of the pairs tests, whoever voted on them."""
    held = (rng.random(data.pair.max() + 1) < 0.2)[data.pair]
    return Split(among & ~held, np.full(len(held), -1), among & held & data.evaluated[data.user])


def by_user(data: Data, among: Flags, rng: np.random.Generator) -> Split:
    """A quarter of the users with enough votes are new: some pairs to learn from, the rest tests."""
    n_pairs = {user: np.unique(data.pair[among & (data.user == user)]) for user in np.unique(data.user[among])}
    enough = [user for user, pairs in n_pairs.items() if len(pairs) >= max(N_OWN) + MIN_REST]
    new = rng.choice(enough, max(1, len(enough) // 4), replace=False)
    place = np.full(len(among), -1)
    for user in new:
        where = np.flatnonzero(among & (data.user == user))
        order = rng.permutation(len(n_pairs[user]))
        place[where] = order[np.searchsorted(n_pairs[user], data.pair[where])]
    return Split(among & (place < 0), np.where(place < max(N_OWN), place, -1), place >= max(N_OWN))


Protocol = Callable[[Data, Flags, np.random.Generator], Split]


def count(data: Data, test: Flags, margins: Array) -> Hits:
    """Hits and votes of each user, [U, 2]; a margin of zero is half a hit."""
    hits = np.zeros((len(data.evaluated), 2))
    np.add.at(hits, data.user[test], np.stack([(margins > 0) + 0.5 * (margins == 0), np.ones(len(margins))], 1))
    return hits


def load(name: str, ties: bool = False, encoded: bool = True) -> tuple[Data, Data | None]:
    """The votes with the frozen features; and, where it is known who wrote a text, with the writer as only feature.

    Ties are left out unless asked for; without `encoded`, features are what can be counted in a text.
    """
    votes = [vote for vote in READERS[name](DATA / name) if ties or vote.kind != "tie"]
    texts = sorted({Text(vote.prompt or "", reply) for vote in votes for reply in (vote.chosen, vote.rejected)})
    at = {text: place for place, text in enumerate(texts)}
    users, user = np.unique([vote.user_id for vote in votes], return_inverse=True)
    chosen, rejected = (
        np.array([at[Text(vote.prompt or "", getattr(vote, side))] for vote in votes])
        for side in ("chosen", "rejected")
    )
    pair = np.unique(np.minimum(chosen, rejected) * len(texts) + np.maximum(chosen, rejected), return_inverse=True)[1]
    blocks: tuple[Array, ...] = (surface(texts),)
    if encoded:
        encoding = encode(texts, FEATURES)
        blocks = (np.hstack([blocks[0], encoding.logps]), encoding.states.reshape(len(texts), -1))
    enough = np.bincount(user, minlength=len(users)) >= MIN_VOTES[name]
    tied = np.array([vote.kind == "tie" for vote in votes])
    data = Data(name, user, chosen, rejected, pair, blocks, enough, tied)
    return data, replace(data, blocks=(_writers(texts),)) if name == "llmfao" else None


def _writers(texts: Sequence[Text]) -> Array:
    """Which models wrote a text, [T, models], each row summing to 1."""
    prompts, responses = (
        [json.loads(line) for line in gzip.decompress((DATA / "llmfao" / f"{file}.jsonl.gz").read_bytes()).splitlines()]
        for file in ("prompts", "responses")
    )
    prompt = {row["id"]: row["text"] for row in prompts}
    at = {text: place for place, text in enumerate(texts)}
    wrote = np.zeros((len(texts), 1 + max(row["model"] for row in responses)), np.float32)
    for row in responses:
        if (text := Text(prompt[row["prompt"]], row["text"])) in at:
            wrote[at[text], row["model"]] = 1
    return np.asarray(wrote[:, wrote.any(0)] / wrote.sum(1, keepdims=True))


def majority_of_others(data: Data) -> Hits:
    """Hits of what most other voters on the pair chose; votes on a pair without other voters do not count."""
    first = (data.chosen < data.rejected).astype(int)
    tally = np.zeros((data.pair.max() + 1, 2))
    np.add.at(tally, (data.pair, first), 1)
    agree, against = tally[data.pair, first] - 1, tally[data.pair, 1 - first]
    counted = data.evaluated[data.user] & (agree + against > 0)
    return count(data, counted, (agree - against)[counted])
