"""The question bank: pairs of replies that tell most about a new user, with what each answer would mean.

A new user's answer costs no model call when the margin of the pair under every code is known before. Margins are
taken to be linear in a few coordinates z of the user: the cluster weights, the low-rank factors, or, for individual
users, the main directions of the trained offsets. For clusters the slopes are the margins at the vertices; for the
others they are secants over one standard deviation of the trained users, to each side of the generic one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from idiolect.bank import Bank, Message, Question, pair_id, population
from idiolect.inference.priors import Gaussian, Prior
from idiolect.text import is_printable
from idiolect.user_model import Array, Kind
from idiolect.votes import Belief, Likelihood, Votes
from idiolect_training.config import RunConfig
from idiolect_training.data.preferences import Preference
from idiolect_training.errors import BadRunConfig
from idiolect_training.fit.batch import Pair, tokenize
from idiolect_training.fit.loss import pair_margins
from idiolect_training.fit.policy import Policy
from idiolect_training.progress import progress

Floats = NDArray[np.float64]

MAX_DIRECTIONS = 8
FIT_USERS = 200
ACCEPTABLE = 0.9
"""A reply less likely, a token, than this share of all replies is offered to nobody."""
NOISES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
TIES = tuple(float(t) for t in np.geomspace(0.1, 10, 21))
"""Likelihood.ties."""
TEMPERATURES = tuple(float(t) for t in np.geomspace(0.1, 10, 41))
"""As shares of 1 / beta, at which the likelihood of votes is the trainer's own."""
COARSE = 5
"""Every so manyth temperature and noise is tried first, and then all around the best temperature."""


@dataclass(frozen=True)
class Coordinates:
    """Users as points z [C]: their code is `origin` + z . `directions`."""

    origin: Floats  # [code_size]
    directions: Floats  # [C, code_size]
    points: Floats  # [n_users, C]: the trained users

    def code(self, z: Floats) -> Array:
        return (self.origin + z @ self.directions).astype(np.float32)

    @classmethod
    def of(cls, policy: Policy) -> "Coordinates":
        """Of the trained users; directions of individual users by principal components around the generic one."""
        codes = policy.users.codes(policy.rows.values[1:].to(policy.device)).detach().cpu().double().numpy()
        if policy.users.basis()[0] != "individual":
            return cls(np.zeros(codes.shape[1]), np.eye(codes.shape[1]), codes)
        _, _, directions = np.linalg.svd(codes, full_matrices=False)
        directions = directions[: min(MAX_DIRECTIONS, max(1, len(codes) - 1))]
        return cls(np.zeros(codes.shape[1]), directions, codes @ directions.T)


def build_bank(run: RunConfig, policy: Policy, user_rows: dict[str, int]) -> Bank:
    """Questions from the held-out comparisons, and the likelihood of votes fitted on trained users' answers there.

    Held out, since margins of trained pairs say more than those of pairs never seen. Of two replies alone: a thumb asks
    nothing, and an edit is a user's own text, which is shown to nobody else. Raises BadRunConfig without any.
    """
    assert run.bank is not None
    _, held_out = run.data()
    held_out = [preference for preference in held_out if preference.kind in ("comparison", "tie")]
    if not held_out:
        raise BadRunConfig("bank: no vote that is held out compares two replies: there is nothing to ask")
    layout = policy.layout
    limits = run.max_prompt_tokens, run.max_reply_tokens, run.bad_lines
    held_out, pairs = tokenize(held_out, policy.tokenizer, layout, user_rows, *limits)
    first_of: dict[tuple[object, ...], int] = {}
    for place, pair in enumerate(pairs):
        first_of.setdefault((pair.prompt_ids, frozenset((pair.chosen_ids, pair.rejected_ids))), place)
    coordinates = Coordinates.of(policy)
    distinct = [pairs[place] for place in first_of.values()]
    table = margin_table(run, policy, distinct, coordinates)
    mean, covariance = coordinates.points.mean(0), np.atleast_2d(np.cov(coordinates.points.T))
    covariance = covariance + np.eye(len(mean)) * 1e-3 * max(np.trace(covariance) / len(mean), 1e-12)
    askable = _are_askable([held_out[place] for place in first_of.values()])
    open_ = _acceptable(run, policy, distinct) & askable
    own = _own_votes(pairs, distinct, table)
    blended, likelihood = fit_population(policy.users.basis()[0], own, mean, covariance, run.beta)
    # Sides in the order of the alphabet: the order says nothing of who answered before.
    sign = np.array([1 if held_out[p].chosen < held_out[p].rejected else -1 for p in first_of.values()])
    chosen = choose(table, mean, covariance, likelihood, open_, run.bank.n_questions)
    return Bank(
        questions=tuple(_question(held_out[place]) for place in np.array(list(first_of.values()))[chosen]),
        slopes=(sign[:, None] * table.slopes)[chosen],
        offsets=(sign * table.offsets)[chosen],
        origin=coordinates.origin,
        directions=coordinates.directions,
        mean=mean,
        covariance=covariance,
        likelihood=likelihood,
        blended=blended,
        length_normalized=run.length_normalized,
    )


def margin_table(run: RunConfig, policy: Policy, pairs: Sequence[Pair], coordinates: Coordinates) -> Votes:
    """Margins of `chosen` over `rejected`, in nats, as linear functions of z: the generic user's is at z = 0."""
    reference = policy.reference(pairs, 2 * run.batch_pairs)
    n = len(coordinates.directions)
    user_model = policy.users.export()

    def margins(z: Floats) -> Floats:
        tokens = torch.from_numpy(user_model.user_tokens(coordinates.code(z)))
        logps = policy.score_tokens(pairs, tokens, 2 * run.batch_pairs)
        found: Floats = pair_margins(run, pairs, logps, reference).double().numpy()
        return found

    if policy.users.basis()[0] == "cluster":
        each = [margins(np.eye(n)[k]) for k in progress(range(n), "margins")]
        return Votes.of(np.stack(each, axis=1))
    offsets = margins(np.zeros(n))
    scale = np.maximum(coordinates.points.std(0), 1e-6)
    slopes = [
        (margins(scale[j] * np.eye(n)[j]) - margins(-scale[j] * np.eye(n)[j])) / (2 * scale[j])
        for j in progress(range(n), "margins")
    ]
    return Votes.of(np.stack(slopes, axis=1), offsets)


def fit_population(kind: Kind, votes: Votes, mean: Floats, covariance: Floats, beta: float) -> tuple[bool, Likelihood]:
    """Whether cluster users are blends rather than each of one cluster, and the likelihood of their votes [U, N].

    Whichever has the greater evidence. Raises BadRunConfig when there are none.
    """
    priors = {blended: population(kind, mean, covariance, blended) for blended in (False, kind == "cluster")}
    fitted = {blended: fit_likelihood(votes, prior, beta) for blended, prior in priors.items()}
    blended = max(priors, key=lambda blended: float(priors[blended].evidence(votes, fitted[blended]).sum()))
    return blended, fitted[blended]


def fit_likelihood(votes: Votes, prior: Prior, beta: float) -> Likelihood:
    """Temperature and noise under which the votes [U, N] of trained users have the greatest evidence; then `ties`.

    Temperature and noise are those of the choices, and `ties` is the default where nobody had no preference. Each user
    is thought to be anybody from the population, as a new user will be: with the trained codes in their place the votes
    would seem noisier than they are, wherever a code is less than its user.
    Raises BadRunConfig when there are none.
    """
    chosen = replace(votes, weights=votes.weights * (votes.tied <= 0), tied=np.zeros(votes.tied.shape))
    if not chosen.weights.any():
        raise BadRunConfig("bank: no user of the held-out comparisons is a trained one: votes cannot be calibrated")

    def likeliest(temperatures: Sequence[float], noises: Sequence[float]) -> Likelihood:
        grid = [Likelihood(temperature / beta, noise) for temperature in temperatures for noise in noises]
        return max(grid, key=lambda likelihood: float(prior.evidence(chosen, likelihood).sum()))

    coarse = likeliest(TEMPERATURES[::COARSE], NOISES[::COARSE]).temperature * beta
    near = min(range(len(TEMPERATURES)), key=lambda place: abs(TEMPERATURES[place] - coarse))
    found = likeliest(TEMPERATURES[max(0, near - COARSE) : near + COARSE + 1], NOISES)
    if not votes.tied.any():
        return found
    grid = [replace(found, ties=ties) for ties in TIES]
    return max(grid, key=lambda likelihood: float(prior.evidence(votes, likelihood).sum()))


def choose(
    table: Votes, mean: Floats, covariance: Floats, likelihood: Likelihood, open_: NDArray[np.bool_], n: int
) -> NDArray[np.int64]:
    """Greedy: each next question is the one that answers to those before leave most unsure, for a typical user."""
    open_ = open_.copy()
    chosen: list[int] = []
    while len(chosen) < n and open_.any():
        gains = Gaussian(mean, covariance).gain(Belief(mean, covariance), table, likelihood)
        best = int(np.where(open_, gains, -np.inf).argmax())
        chosen.append(best)
        open_[best] = False
        # An answer worth g nats shrinks the variance of its margin by exp(-2 g).
        direction = covariance @ table.slopes[best]
        variance = max(float(table.slopes[best] @ direction), 1e-300)
        covariance = covariance - np.outer(direction, direction) / variance * -np.expm1(-2 * gains[best])
    return np.array(chosen, np.int64)


def _own_votes(pairs: Sequence[Pair], distinct: Sequence[Pair], table: Votes) -> Votes:
    """Trained users' held-out votes [U, N], of FIT_USERS users at most; where a user has fewer, some have no weight.

    Users who never had no preference are thought to have had no such answer, as where they are served.
    """
    at = {(p.prompt_ids, frozenset((p.chosen_ids, p.rejected_ids))): place for place, p in enumerate(distinct)}
    own: dict[int, list[tuple[int, int, bool]]] = {}
    for pair in pairs:
        if pair.row and (pair.row in own or len(own) < FIT_USERS):
            place = at[(pair.prompt_ids, frozenset((pair.chosen_ids, pair.rejected_ids)))]
            sign = 1 if distinct[place].chosen_ids == pair.chosen_ids else -1
            own.setdefault(pair.row, []).append((place, sign, pair.tied))
    places, signs, tied = np.zeros((3, len(own), max(map(len, own.values()), default=0)), np.int64)
    for user, votes in enumerate(own.values()):
        places[user, : len(votes)], signs[user, : len(votes)], none = np.array(votes).T
        tied[user, : len(votes)] = np.where(none, 1, -1) * none.any()
    slopes, offsets = signs[..., None] * table.slopes[places], signs * table.offsets[places]
    return Votes.of(slopes, offsets, signs != 0, tied=tied.astype(np.float64))


def _acceptable(run: RunConfig, policy: Policy, pairs: Sequence[Pair]) -> NDArray[np.bool_]:
    """Which pairs have two replies that the generic user's model finds likely enough."""
    logps = policy.score(pairs, [0] * len(pairs), 2 * run.batch_pairs, "acceptable").double().numpy()
    lengths = np.array([(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs])
    losses = -logps / lengths
    return np.asarray((losses <= np.quantile(losses, ACCEPTABLE)).all(axis=1))


def _are_askable(preferences: Sequence[Preference]) -> NDArray[np.bool_]:
    """Which can be shown to anybody; of those that differ in their users' profiles alone, one."""
    seen: set[str] = set()
    askable = []
    for preference in preferences:
        texts = [preference.chosen, preference.rejected, *(turn["content"] for turn in preference.turns())]
        pair = pair_id(preference.turns(), preference.chosen, preference.rejected)
        askable.append(all(text and is_printable(text) for text in texts) and pair not in seen)
        seen.add(pair)
    return np.array(askable)


def _question(preference: Preference) -> Question:
    first, second = sorted((preference.chosen, preference.rejected))
    messages = cast(list[Message], preference.turns())  # Question checks the roles
    return Question(messages=tuple(messages), first=first, second=second)
