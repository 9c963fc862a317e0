"""A trained run seen through its margins, and new users of its kinds who answer, as the server infers them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from bench.results import ROOT
from idiolect.bank import Bank
from idiolect.files.folder import Folder
from idiolect.learning import DAY_MS, GivenVote, ask, believed, know
from idiolect.user_model import UserModel
from idiolect.votes import Belief, Floats, Likelihood, Votes
from idiolect_training.config import BankConfig, RunConfig
from idiolect_training.data.preferences import Preference
from idiolect_training.export.questions import Coordinates, build_bank, fit_likelihood, margin_table
from idiolect_training.fit.batch import tokenize
from idiolect_training.fit.loop import CHECKPOINT, restore

RUNS = ROOT / "runs" / "new_users"
Key = tuple[str, str, str]
Signs = NDArray[np.float64]
"""+1 where `first` is preferred, -1 where `second` is, 0 where the user does not mind."""


@dataclass(frozen=True)
class World:
    """A trained run seen through its margins, and what each kind of user wants."""

    name: str
    bank: Bank
    user_model: UserModel
    test: Votes  # [m, C]: held-out comparisons that are not in the bank
    wants: dict[str, tuple[Signs, Signs]]  # kind -> answers to the n questions, and to the m tests
    trained: dict[str, Floats]  # kind -> coordinates [C] of its trained users, their mean
    beta: float

    def right(self, z: Floats, kind: str) -> float:
        """Share of the tests on which a user at z would choose as the kind does."""
        wanted = self.wants[kind][1]
        minds = wanted != 0
        return float((0.5 + 0.5 * np.sign(wanted * self.test.margins(z)))[minds].mean())

    def sides(self, belief: Belief) -> Floats:
        """P(margin > 0) of each test, [m], for a user of whom this is believed."""
        if self.user_model.kind == "cluster":
            return (self.test.offsets[:, None] + self.test.slopes > 0) @ belief.code
        variance = np.einsum("mc,cd,md->m", self.test.slopes, belief.covariance, self.test.slopes)
        return np.asarray(ndtr(self.test.margins(belief.code) / np.sqrt(variance)), np.float64)


def build(name: str, run: RunConfig, folder: Path, bank: Path, test: Path, kind: Callable[[str], str]) -> World:
    """The world of a finished run, with a bank from the comparisons in `bank`, tested on those in `test`."""
    policy, user_rows = restore(run, folder)
    asking = run.model_copy(update={"test": bank, "bank": BankConfig(n_questions=96)})
    coordinates = Coordinates.of(policy)
    contents = b"".join(file.read_bytes() for file in (folder / CHECKPOINT, bank, test))
    kept = RUNS / f"{name}-{hashlib.sha256(contents).hexdigest()[:12]}"
    try:
        # What is measured once is kept: margins take minutes, and what follows does not ask the model.
        shape = json.loads(kept.with_suffix(".json").read_text())
        built = Bank.read(Folder.as_it_is(kept), *shape)
    except OSError:
        built = build_bank(asking, policy, user_rows)
        kept.mkdir(parents=True, exist_ok=True)
        built.write(kept)
        shape = [len(built.questions), len(built.mean), built.directions.shape[1]]
        kept.with_suffix(".json").write_text(json.dumps(shape))
    users = sorted(user_rows)
    kinds = sorted({kind(user) for user in users})
    trained = {
        k: np.mean([coordinates.points[user_rows[user] - 1] for user in users if kind(user) == k], axis=0)
        for k in kinds
    }
    _, asked = asking.data()
    _, tested = run.model_copy(update={"test": test}).data()
    sides = {_key(vote): vote for vote in tested}
    layout = policy.layout
    distinct = [
        vote.model_copy(update={"chosen": first, "rejected": second}) for (_, first, second), vote in sides.items()
    ]
    _, pairs = tokenize(distinct, policy.tokenizer, layout, {}, run.max_prompt_tokens, run.max_reply_tokens)
    assert len(pairs) == len(sides)
    try:
        measured = np.load(kept / "tests.npz")
        table = Votes.of(measured["slopes"], measured["offsets"])
    except OSError:
        table = margin_table(run, policy, pairs, coordinates)
        np.savez(kept / "tests.npz", slopes=table.slopes, offsets=table.offsets)

    def answers(votes: Sequence[Preference], keys: Sequence[Key], of: str) -> Signs:
        said = {_key(vote): 1.0 if vote.chosen < vote.rejected else -1.0 for vote in votes if kind(vote.user_id) == of}
        return np.array([said.get(key, 0.0) for key in keys])

    bank_keys = [(q.messages[-1]["content"], q.first, q.second) for q in built.questions]
    wants = {k: (answers(asked, bank_keys, k), answers(tested, list(sides), k)) for k in kinds}
    world = World(name, built, policy.users.export(), table, wants, trained, run.beta)
    # As the trainer does; here anew, since what is kept may have been written by another version of it.
    return replace(world, bank=replace(built, likelihood=fit(world, np.ones((len(kinds), 1)))))


def fit(world: World, flips: NDArray[np.float64]) -> Likelihood:
    """The likelihood of what the kinds say of the bank, several times over; flipped where `flips` [U, n] is -1."""
    said = np.tile(np.stack([signs for signs, _ in world.wants.values()]), (len(flips) // len(world.wants), 1)) * flips
    votes = Votes.of(said[..., None] * world.bank.slopes, said * world.bank.offsets, said != 0)
    return fit_likelihood(votes, world.bank.prior(world.user_model), world.beta)


def _key(vote: Preference) -> Key:
    """A pair of replies to a question, whichever was chosen."""
    first, second = sorted((vote.chosen, vote.rejected))
    return vote.turns()[-1]["content"], first, second


class NewUser:
    """Somebody of a kind who answers questions, with a share of flipped answers.

    About a question that the kind does not mind such a user skips, or else throws a coin.
    """

    def __init__(
        self,
        world: World,
        kind: str,
        rng: np.random.Generator,
        *,
        skips: bool = True,
        flips: float = 0.0,
        likelihood: Likelihood | None = None,
    ) -> None:
        self._world, self.kind, self._rng, self._skips, self._flips = world, kind, rng, skips, flips
        self._bank = replace(world.bank, likelihood=likelihood or world.bank.likelihood)
        self.answers: list[tuple[int, float]] = []
        self._infer()

    def answer(self, place: int) -> float:
        """Answer one question, by the rule of the kind or a coin, flipped at times; the belief follows."""
        wanted = self._world.wants[self.kind][0][place] or float(self._rng.choice([-1.0, 1.0]))
        said = -wanted if self._rng.random() < self._flips else wanted
        self.answers.append((place, said))
        self._infer()
        return said

    def open_(self) -> NDArray[np.bool_]:
        """Which questions the user would answer and has not yet."""
        left = self._world.wants[self.kind][0] != 0 if self._skips else np.ones(len(self._world.bank.questions), bool)
        left[[place for place, _ in self.answers]] = False
        return left

    def pick_at_random(self) -> int | None:
        """None when there is none left."""
        left = np.flatnonzero(self.open_())
        return int(self._rng.choice(left)) if len(left) else None

    def pick_best(self) -> int | None:
        """The question of greatest expected gain, as the service asks it; None when none is worth asking."""
        closed = [
            question.question_id for question, left in zip(self._bank.questions, self.open_(), strict=True) if not left
        ]
        asked = ask(self._bank, self._prior, self._seen, closed)
        return None if asked.question is None else self._bank.index[asked.question.question_id]

    def predict(self, place: int) -> float:
        """P(first is preferred) of a question: by the taste of somebody we know, or a coin."""
        one, likelihood = self._bank.table.at([place]), replace(self._bank.likelihood, noise=self._seen.noise)
        known = float(self._prior.predict(self._seen.taste, one, likelihood)[0])
        return self._seen.familiar * known + (1 - self._seen.familiar) / 2

    def _infer(self) -> None:
        """As the service does (idiolect/learning.py), each answer on a day of its own: no limit is met."""
        votes = [
            GivenVote(self._bank.questions[place].question_id, said > 0, number * DAY_MS)
            for number, (place, said) in enumerate(self.answers)
        ]
        user_model = self._world.user_model
        known = know(self._bank, user_model, votes, {})
        self._prior, self._seen = believed(self._bank, user_model, known)
        self.belief = self._seen.taste if known is None else known.belief
