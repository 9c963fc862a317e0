"""make weak-votes (M7): what thumbs and edits tell of a stranger, and how much they should count beside comparisons.

Strangers of the eight tastes of the demo bundle give thumbs, edits or comparisons by the rules below, and slip in none,
a tenth or a quarter of them. They are inferred from the replies' real margins (bench/learning/reply_margins.json), as
the server infers from pairs that are not in the bank, with each weight of the grid, alone and beside as many
comparisons. The latter choose the weights, by strangers and prompts other than those that are reported. Writes
docs/results/weak_votes.json and line M7.

    thumb        one reply in any taste: up when it has two of the stranger's three words or all of them
    edit         one reply that is wrong in some word: the same reply with one such word put right
    comparison   two replies in any tastes: the one that has more of the stranger's words
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.learning.reply_margins import DEMO, read_margins
from bench.results import ROOT, provenance, record
from idiolect.bundle import Bundle
from idiolect.inference.voter import impression
from idiolect.learning import WEIGHTS, VoteKind
from idiolect.votes import Floats, Votes
from idiolect_training.data.everyday import AXES, TASTES, opposed, shared

COMMAND = "make weak-votes"
KINDS: tuple[VoteKind, ...] = ("comparison", "edit", "thumb")
WEAK = tuple(kind for kind in KINDS if kind != "comparison")
GRID = (0.25, 0.5, 1.0)
SLIPS = (0.0, 0.1, 0.25)
N_ANSWERS = (1, 2, 3, 5, 8, 12, 16, 24)
STRANGERS_EACH = 25
"""Of each taste, seed and half of the prompts."""
WORDS_FOR_A_THUMB = 2
N_BINS = 10

Sides = tuple[int, int | None]
"""A reply that is preferred, and to which, as places in TASTES; None is no reply."""


def vote(kind: VoteKind, taste: str, draw: np.random.Generator) -> Sides:
    """What a stranger of a taste says of a prompt, without slips."""
    one, other = (int(place) for place in draw.choice(len(TASTES), 2, replace=False))
    n_words = shared(taste, TASTES[one])
    if kind == "thumb":
        return one, None
    if kind == "edit":
        wrong = [axis for axis in range(len(AXES)) if n_words < len(AXES) and _is_wrong(taste, TASTES[one], axis)]
        if not wrong:
            return vote(kind, taste, draw)
        return TASTES.index(opposed(TASTES[one], [int(draw.choice(wrong))])), one
    difference = n_words - shared(taste, TASTES[other])
    return vote(kind, taste, draw) if not difference else (one, other) if difference > 0 else (other, one)


def _is_wrong(taste: str, reply: str, axis: int) -> bool:
    return taste.split("-")[axis] != reply.split("-")[axis]


def said(kind: VoteKind, margins: Floats, slips: float, seed: int) -> tuple[NDArray[np.int64], Floats]:
    """Strangers' tastes [U], as places in TASTES, and the slopes [U, N, C] of what each says of every prompt."""
    draw = np.random.default_rng([seed, KINDS.index(kind), round(100 * slips)])
    tastes = np.repeat(np.arange(len(TASTES)), STRANGERS_EACH)
    slopes = np.zeros((len(tastes), len(margins), margins.shape[-1]))
    for user, taste in enumerate(tastes):
        for number, prompt in enumerate(draw.permutation(len(margins))):
            better, worse = vote(kind, TASTES[taste], draw)
            margin = margins[prompt, better] - (0 if worse is None else margins[prompt, worse])
            likes = worse is not None or shared(TASTES[taste], TASTES[better]) >= WORDS_FOR_A_THUMB
            slopes[user, number] = margin if likes != (draw.random() < slips) else -margin
    return tastes, slopes


def inferred(bundle: Bundle, *votes: tuple[Floats, float]) -> Floats:
    """Belief [U, C] in each cluster after votes of these slopes [U, N, C] and weights."""
    assert bundle.bank is not None
    slopes = np.concatenate([slopes for slopes, _ in votes], axis=1)
    weights = np.concatenate([np.full(slopes.shape[:2], weight) for slopes, weight in votes], axis=1)
    prior, likelihood = bundle.bank.prior(bundle.user_model), bundle.bank.likelihood
    given = (Votes.of(*each) for each in zip(slopes, np.zeros_like(weights), weights, strict=True))
    return np.stack([impression(prior, one, likelihood).taste.code for one in given])


def measure(
    bundle: Bundle, kind: VoteKind, margins: Floats, seeds: Sequence[int], beside: bool = False
) -> dict[str, Any]:
    """By weight and slips what `judge` says of votes of the kind alone, or `beside` as many comparisons."""
    found: dict[str, Any] = {}
    for slips in SLIPS:
        tastes, slopes = _together(said(kind, margins, slips, seed) for seed in seeds)
        _, others = _together(said("comparison", margins, slips, seed + len(seeds)) for seed in seeds)
        for weight in GRID:
            beliefs = {
                n: inferred(bundle, (slopes[:, :n], weight), *[(others[:, :n], 1.0)] * beside) for n in N_ANSWERS
            }
            found.setdefault(f"{weight:g}", {})[f"{slips:g}"] = judge(beliefs, tastes, clusters(bundle))
    return found


def judge(beliefs: Mapping[int, Floats], tastes: NDArray[np.int64], cluster_of: NDArray[np.int64]) -> dict[str, Any]:
    """Of beliefs [U, C] by number of answers: how often the likeliest taste is the stranger's, how many of its three
    words are, and the belief in the stranger's own, in nats; and over all of them the error of calibration.
    """
    taste_of, true = np.argsort(cluster_of), cluster_of[tastes]
    likeliest = {n: taste_of[belief.argmax(-1)] for n, belief in beliefs.items()}
    sure = np.concatenate([belief.max(-1) for belief in beliefs.values()])
    right = np.concatenate([found == tastes for found in likeliest.values()])
    own = {n: np.maximum(belief[np.arange(len(true)), true], 1e-12) for n, belief in beliefs.items()}
    return {
        "taste": {n: _mean(found == tastes) for n, found in likeliest.items()},
        "words": {
            n: _mean([_words(*pair) for pair in zip(found, tastes, strict=True)]) for n, found in likeliest.items()
        },
        "log_belief": {n: _mean(np.log(belief)) for n, belief in own.items()},
        "calibration_error": calibration_error(sure, right),
    }


def _together(
    drawn: Iterable[tuple[NDArray[np.int64], Floats]],
) -> tuple[NDArray[np.int64], Floats]:
    tastes, slopes = zip(*drawn, strict=True)
    return np.concatenate(tastes), np.concatenate(slopes)


def clusters(bundle: Bundle) -> NDArray[np.int64]:
    """The cluster of each of TASTES, by its name."""
    names = bundle.manifest.cluster_names
    assert names is not None
    return np.array([list(names).index(taste.replace("-", ", ")) for taste in TASTES])


def calibration_error(sure: Floats, right: NDArray[np.bool_]) -> float:
    """How far what is believed is from how often it is right, over bins of equal width."""
    place = np.minimum((sure * N_BINS).astype(int), N_BINS - 1)
    gaps = [abs(float((sure[place == bin_] - right[place == bin_]).sum())) for bin_ in range(N_BINS)]
    return round(sum(gaps) / len(sure), 4)


def likeliest_weight(measured: Mapping[str, Any]) -> float:
    """Of the grid, that under which strangers' own tastes are believed most, over all slips and numbers of answers."""
    return max(
        GRID, key=lambda weight: np.mean([list(one["log_belief"].values()) for one in measured[f"{weight:g}"].values()])
    )


def _words(one: int, other: int) -> float:
    return shared(TASTES[one], TASTES[other]) / len(AXES)


def _mean(values: Any) -> float:
    return round(float(np.mean(values)), 4)


def main(n_seeds: int = 3) -> None:
    bundle = Bundle.read(DEMO / "bundle")
    margins = read_margins(bundle.bundle_id)
    seeds, others = range(n_seeds), range(100, 100 + n_seeds)
    choosing = {kind: measure(bundle, kind, margins[::2], others, beside=True) for kind in WEAK}
    chosen = {kind: likeliest_weight(measured) for kind, measured in choosing.items()}
    alone = {kind: measure(bundle, kind, margins[1::2], seeds) for kind in KINDS}
    beside = {kind: measure(bundle, kind, margins[1::2], seeds, beside=True) for kind in WEAK}
    value = {
        "seeds": n_seeds,
        "strangers": n_seeds * len(TASTES) * STRANGERS_EACH,
        "chosen": chosen,
        "weights_are_the_chosen": all(WEIGHTS[kind] == weight for kind, weight in chosen.items()),
        "alone": {kind: _in_use(kind, measured) for kind, measured in alone.items()},
        "beside_as_many_comparisons": {kind: _in_use(kind, measured) for kind, measured in beside.items()},
    }
    by_weight = {"choosing": choosing, "alone": alone, "beside_as_many_comparisons": beside}
    everything = {**value, "by_weight": by_weight, **provenance(COMMAND)}
    (ROOT / "docs" / "results" / "weak_votes.json").write_text(json.dumps(everything, indent=1) + "\n")
    record("M7", value)
    sys.stdout.write(json.dumps(value) + "\n")


def _in_use(kind: VoteKind, measured: Mapping[str, Any]) -> dict[str, Any]:
    """With the weight that votes of the kind have."""
    by_slips = measured[f"{WEIGHTS[kind]:g}"]
    return {
        f"slips_{slips}": {name: one[name] for name in ("taste", "calibration_error")}
        for slips, one in by_slips.items()
    }


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
