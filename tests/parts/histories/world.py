"""Random histories of votes over a real Redis, with retrainings: do server, export, reader and fit count alike?

A world is a store and a few users. In each round they vote, repeat themselves, change their minds, take votes back and
are erased; then the votes are exported, read, trained on (a tiny random model) and the new bundle is served. What
counts is worked out here once more, by an own rule, and compared.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from idiolect.bank import NO_REPLY
from idiolect.bundle import Bundle
from idiolect.learning import MAX_DAILY_VOTES, GivenVote, know
from idiolect.trained_votes import digest
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.store import Store
from idiolect_server.users.learner import Learner
from idiolect_training.config import RunConfig
from idiolect_training.data.formats import read_format
from idiolect_training.data.preferences import Preference, index_users
from idiolect_training.export.bundle import export
from idiolect_training.fit.batch import tokenize
from idiolect_training.fit.loop import fit, trained_votes
from tests.parts.bundles import small_bundle, with_bank
from tests.parts.histories.tally import Answer, Found, Vote, counting_votes, in_order
from tests.parts.tiny import tiny_run

REPLIES = ("yes", "no way at all", "perhaps<|im_end|>", "that depends on who asks")
"""One brings the mark of its end, which training takes off and the server keeps."""
N_PROMPTS = 12
USER_MODELS = ({"kind": "individual"}, {"kind": "cluster", "n_clusters": 2}, {"kind": "low_rank", "n_factors": 2})


class World:
    """`n_users` users of one store, whose votes start from nothing."""

    def __init__(self, folder: Path, model: Path, store: Store, seed: int, n_users: int, found: Found) -> None:
        folder.mkdir()
        self._folder, self._model, self._store, self._found = folder, model, store, found
        self._rng = random.Random(seed)
        self._votes: dict[str, list[Vote]] = {f"user {seed}/{n}": [] for n in range(n_users)}
        self._erased: set[str] = set()
        self._inexact: set[str] = set()
        """Whose votes, put together from increments, may hold some that count no more."""
        self._cursor: str | None = None
        found.histories += n_users

    async def live(self, n_rounds: int) -> None:
        """All rounds, and what is counted after each, under the newest bundle and the one before."""
        served = [await self._serve(with_bank(small_bundle(self._folder / "0", user_ids=list(self._votes)[::2])))]
        for number in range(1, n_rounds + 1):
            for _ in range(8 * len(self._votes)):
                await self._act(self._rng.choice(list(self._votes)))
            for bundle in served[-2:]:
                await self._check_server(bundle)
            served.append(await self._serve(await self._retrain(self._folder / str(number))))
        for bundle in served[-2:]:
            await self._check_server(bundle)

    async def _act(self, user_id: str) -> None:
        """One thing that a user does."""
        rng, given = self._rng, self._votes[user_id]
        act = rng.choices(("new", "click", "repeat", "change", "back", "erase", "flood"), (8, 1, 2, 3, 2, 0.2, 0.1))[0]
        old = rng.choice(given) if given else None
        if act == "back" and old is not None:
            assert await self._store.votes.take_back(user_id, old.vote_id) is not None
            given.remove(old)
            self._inexact.add(user_id)
        elif act == "erase":
            assert (await self._store.erase(user_id)).votes == len(given)
            given.clear()
            self._erased.add(user_id)
            self._inexact.add(user_id)
        elif act == "click" and old is not None:
            receipt = await self._store.votes.add(user_id, old.key, old.content)
            assert (receipt.duplicate, receipt.vote_id) == (True, old.vote_id)
        elif act == "repeat" and old is not None:
            await self._vote(user_id, old.content)
        elif act == "change" and old is not None:
            sides = {"chosen": old.content["rejected"], "rejected": old.content["chosen"]}
            compares = NO_REPLY not in sides.values()
            kind = {"kind": rng.choice(("comparison", "edit", "tie"))} if compares else {}
            await self._vote(user_id, old.content | sides | kind)
        else:
            for _ in range(MAX_DAILY_VOTES if act == "flood" else 1):
                await self._vote(user_id, self._new())

    def _new(self) -> dict[str, Any]:
        rng = self._rng
        chosen, rejected = rng.sample(REPLIES, 2)
        messages = [{"role": "user", "content": f"Question {rng.randrange(N_PROMPTS)}?"}]
        if rng.random() < 0.3:
            messages = [{"role": "system", "content": "Be kind."}, *messages]
        profile = rng.choice((None, "likes tea"))
        consent = rng.random() < 0.9
        vote = {"messages": messages, "profile": profile, "chosen": chosen, "rejected": rejected, "consent": consent}
        absent = {rng.choice(("chosen", "rejected")): NO_REPLY}
        kinds: tuple[dict[str, Any], ...] = ({}, {"kind": "edit"}, {"kind": "tie"}, {"kind": "thumb", **absent})
        return vote | rng.choices(kinds, (3, 1, 1, 2))[0]

    async def _vote(self, user_id: str, content: dict[str, Any]) -> None:
        key = f"{self._rng.random()}"
        receipt = await self._store.votes.add(user_id, key, content)
        self._votes[user_id].append(Vote(user_id, receipt.vote_id, content, key))
        self._found.votes += 1
        if not content["consent"] or len(self._votes[user_id]) > MAX_DAILY_VOTES:
            self._inexact.add(user_id)

    async def _retrain(self, folder: Path) -> Bundle:
        """Export, read, train and export a bundle; compare what each has counted."""
        wanted = [vote for votes in self._votes.values() for vote in counting_votes(votes) if vote.content["consent"]]
        answers = in_order(vote.answer for vote in wanted)
        folder.mkdir()
        lines, _ = await self._exported(None)
        self._found.compare("export", sorted(vote["vote_id"] for vote in lines), sorted(v.vote_id for v in wanted))
        file = write(folder / "votes.ndjson", lines)
        self._found.compare("reader", said(read_format("feedback", file)), answers)
        await self._check_increments(answers)
        rng = self._rng
        changes: dict[str, Any] = {"user_model": {"n_user_tokens": 2} | rng.choices(USER_MODELS, (1, 2, 2))[0]}
        changes |= {"bank": {"n_questions": 6}}
        changes |= {
            "epochs": 1,
            "batch_pairs": 16,
            "alpha": rng.choice((0.5, 1.0)),
            "alpha_mix": rng.choice(("draw", "both")),
        }
        if rng.random() < 0.3:
            changes["early_stop"] = {"share": 0.5, "every_steps": 2, "patience": 1}
        splitting = {"by": rng.choice(("pair", "prompt")), "share": 0.3}
        run = tiny_run(folder, self._model, train=file, test=None, format="feedback", split=splitting, **changes)
        policy = fit(run, folder / "out")
        train, held_out = run.data()
        parts = (tokenize(part, policy.tokenizer, policy.layout, {}, 512, 256)[0] for part in (train, held_out))
        self._found.compare("fit", in_order(answer for part in parts for answer in said(part)), answers)
        bundle = export(run, policy, index_users(train), folder / "bundle", trained_votes(run, folder / "out"))
        self._check_trained(run, bundle, said(train))
        self._found.retrainings += 1
        return bundle

    def _check_trained(self, run: RunConfig, bundle: Bundle, train: list[Answer]) -> None:
        """Trained votes are among the training data, and all of it where nothing was held out or drawn otherwise."""
        votes = bundle.trained_votes
        listed = set() if votes is None else set(votes.digests.tolist())
        known = {digest(*answer) for answer in train}
        everything = run.early_stop is None and (run.alpha == 1 or run.alpha_mix == "both")
        self._found.compare("fit", listed if everything else listed - known, known if everything else set())
        self._found.trained += len(listed)

    async def _check_increments(self, answers: list[Answer]) -> None:
        """What was exported bit by bit, some of it twice, and put together."""
        lines, cursor = await self._exported(None if self._rng.random() < 0.3 else self._cursor)
        self._cursor = cursor
        found = said(read_format("feedback", write(self._folder / "increments.ndjson", lines)))
        exact = [answer for answer in found if answer[0] not in self._inexact]
        self._found.compare("increments", exact, [answer for answer in answers if answer[0] not in self._inexact])
        self._found.compare("increments", len({answer[:2] for answer in found}), len(found))

    async def _exported(self, cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
        lines: list[dict[str, Any]] = []
        while True:
            page, after = await self._store.export.page(cursor, self._rng.randint(1, 200))
            if after == cursor:
                return lines, cursor
            lines, cursor = lines + page, after

    async def _serve(self, bundle: Bundle) -> Bundle:
        await self._store.load_codes(CodeTable.of(bundle), bundle.user_ids, bundle.codes)
        return bundle

    async def _check_server(self, bundle: Bundle) -> None:
        """What each user is taken for: the trained code, and the scored votes that count and are not in it."""
        bank, rng = bundle.bank, np.random.default_rng(self._rng.randrange(1 << 32))
        assert bank is not None
        pairs = sorted({vote.pair for votes in self._votes.values() for vote in votes} - bank.index.keys())
        for pair in pairs[::2]:
            await self._store.margins.put(bundle.bundle_id, pair, rng.normal(size=1 + len(bank.mean)))
        margins = await self._store.margins.get(bundle.bundle_id, pairs)
        learner = Learner(bundle, self._store)
        in_code = set() if bundle.trained_votes is None else set(bundle.trained_votes.digests.tolist())
        for user_id, votes in self._votes.items():
            has_code = user_id in bundle.user_ids and user_id not in self._erased
            trained = self._code(bundle, user_id) if has_code else None
            counted = counting_votes(votes)
            old = [vote for vote in counted if has_code and digest(*vote.answer) in in_code]
            new = [v for v in counted if v not in old and (v.pair in bank.index or v.pair in margins)]
            expected = know(bank, bundle.user_model, [as_given(vote) for vote in new], margins, trained)
            known, n_trained = await learner.known(user_id)
            self._found.compare("server", n_trained, len(old))
            self._found.compare("server", known and known.code.tobytes(), expected and expected.code.tobytes())
            n_evidence = 0 if known is None else known.effective_votes + known.outdated_votes
            self._found.compare("server", n_evidence, len(new))
            self._found.counted_twice += sum(known is not None and vote.pair in known.pairs for vote in old)

    def _code(self, bundle: Bundle, user_id: str) -> Any:
        """A user's code as the store gives it back."""
        table = CodeTable.of(bundle)
        return table.decode(table.encode(bundle.codes[list(bundle.user_ids).index(user_id)]))


def as_given(vote: Vote) -> GivenVote:
    return GivenVote(*vote.answer[1:], vote.given_ms, kind=vote.content.get("kind", "comparison"))


def said(preferences: list[Preference]) -> list[Answer]:
    return in_order((preference.user_id, *preference.answer) for preference in preferences)


def write(file: Path, lines: list[dict[str, Any]]) -> Path:
    """Behind what is there."""
    with file.open("a") as out:
        out.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return file
