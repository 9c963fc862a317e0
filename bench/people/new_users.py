"""make new-users (C1, C2): how well is a user known after k answers, whom the trainer never saw?

Worlds of simulated users whom `make attribute-users` and `make persona-users` trained on. A new user is of one of their
kinds, and answers by its rule; where the rule says nothing the question is skipped, which costs nothing, or, harder,
a coin is thrown. Questions come from a bank that is built from held-out comparisons, and answers are judged on other
held-out comparisons, all through margin tables, as the service does it: random questions and active ones against the
generic user and the trained users of the same kind (the oracle).

Then votes are flipped with a probability of 0, 10 and 25 %, for calibration; and wishes are switched after 16 votes.
Writes docs/results/new_users.{json,png,svg}.
"""

import json
import sys
import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from bench.learning import attribute_users, persona_users
from bench.learning.length_users import first_sentences, write_lines
from bench.people.trained_world import RUNS, NewUser, World, build, fit
from bench.results import provenance, record
from idiolect.inference.priors import Gaussian, Mixture, Simplex, next_question
from idiolect.learning import LEAST_GAIN
from idiolect.votes import Likelihood, Votes
from idiolect_training.config import RunConfig
from idiolect_training.evaluate.metrics import calibration
from tests.live import ROOT

COMMAND = "make new-users"
OUT = ROOT / "docs" / "results"
N_ANSWERS = (0, 1, 2, 4, 5, 8, 16, 32)
N_USERS, N_DRAWS = 24, 10
FLIPS = (0.0, 0.1, 0.25)


def accuracy_by_answers(world: World, skips: bool, seed: int = 0) -> dict[str, Any]:
    """C1: mean accuracy and its standard error over users, for each way of asking and number of answers."""
    rng = np.random.default_rng(seed)
    kinds = list(world.wants)
    generic = world.bank.prior(world.user_model).infer(Votes.none(len(world.bank.mean)), world.bank.likelihood).code
    found: dict[str, NDArray[np.float64]] = {
        way: np.full((N_USERS, N_DRAWS, len(N_ANSWERS)), np.nan) for way in ("random", "active")
    }
    asked = []
    for number in range(N_USERS):
        kind = kinds[number % len(kinds)]
        for draw in range(N_DRAWS):
            for way, results in found.items():
                user = NewUser(world, kind, rng, skips=skips)
                done = False
                for n in range(N_ANSWERS[-1] + 1):
                    if n in N_ANSWERS:
                        results[number, draw, N_ANSWERS.index(n)] = world.right(user.belief.code, kind)
                    place = None if done else user.pick_at_random() if way == "random" else user.pick_best()
                    done = place is None
                    if place is not None:
                        user.answer(place)
                if way == "active":
                    asked.append(len(user.answers))
    result: dict[str, Any] = {"answers": N_ANSWERS, "users": N_USERS, "draws": N_DRAWS}
    for way, results in found.items():
        by_user = results.mean(axis=1)
        result[way] = {
            "mean": by_user.mean(0).round(4).tolist(),
            "standard_error": (by_user.std(0, ddof=1) / np.sqrt(N_USERS)).round(4).tolist(),
        }
    result["questions_asked_before_it_stops"] = float(np.mean(asked))
    result["generic"] = round(float(np.mean([world.right(generic, kind) for kind in kinds])), 4)
    result["oracle"] = round(float(np.mean([world.right(world.trained[kind], kind) for kind in kinds])), 4)
    return result


def calibrated(world: World, flips: float, seed: int = 1) -> dict[str, float]:
    """C2: expected calibration error of P(vote), for the next of 12 random questions, and of the posterior.

    After each answer the posterior says how probable it is that the user's code has a positive margin on a test
    comparison. That is held against the trained code of the user's kind, and against the rule, about which the trained
    code errs too. The likelihood is fitted anew on trained users' votes of which as many are flipped, as the trainer
    does.
    """
    rng = np.random.default_rng(seed)
    likelihood = fit(world, np.where(rng.random((20 * len(world.wants), len(world.bank.questions))) < flips, -1, 1))
    probabilities, of_code, of_rule = [], [], []
    kinds = list(world.wants)
    for number in range(N_USERS * N_DRAWS):
        user = NewUser(world, kinds[number % len(kinds)], rng, flips=flips, likelihood=likelihood)
        truth, margins = world.wants[user.kind][1], world.test.margins(world.trained[user.kind])
        for _ in range(12):
            place = user.pick_at_random()
            if place is None:
                break
            p = user.predict(place)
            probabilities.append(p if user.answer(place) > 0 else 1 - p)
            sure = world.sides(user.belief)
            of_code.append(np.where(margins > 0, sure, 1 - sure))
            of_rule.append(np.where(truth > 0, sure, 1 - sure)[truth != 0])
    found: dict[str, Any] = {"votes": calibration(np.array(probabilities))}
    found |= {"code": calibration(np.concatenate(of_code)), "rule": calibration(np.concatenate(of_rule))}
    fitted = {"temperature": likelihood.temperature, "noise": float(np.mean(likelihood.noise))}
    return {f"{name}_of_{what}": float(one[name]) for what, one in found.items() for name in ("ece", "brier")} | fitted


def switched(world: World, seed: int = 2) -> dict[str, Any]:
    """C2: accuracy for the new wish, after up to 16 votes for the old one and 0 to 12 for the new; random ones."""
    rng = np.random.default_rng(seed)
    kinds = list(world.wants)
    n_after = 12
    found = np.zeros((N_USERS * 4, n_after + 1))
    for number in range(len(found)):
        old, new = rng.choice(len(kinds), 2, replace=False)
        user = NewUser(world, kinds[old], rng)
        for _ in range(16):
            if (place := user.pick_at_random()) is not None:
                user.answer(place)
        user.kind = kinds[new]
        for n in range(n_after + 1):
            found[number, n] = world.right(user.belief.code, user.kind)
            if (place := user.pick_at_random()) is not None:
                user.answer(place)
    oracle = float(np.mean([world.right(world.trained[kind], kind) for kind in kinds]))
    by_votes = found.mean(0)
    recovered = [n for n, accuracy in enumerate(by_votes) if accuracy >= 0.95 * oracle]
    return {
        "accuracy": by_votes.round(4).tolist(),
        "oracle": oracle,
        "recovered_after_votes": min(recovered, default=None),
    }


def question_ms(n_questions: int = 1000, k: int = 16) -> dict[str, dict[str, float]]:
    """Milliseconds to choose the next question out of many, on one core; after five votes."""
    table = Votes.of(np.random.default_rng(3).normal(size=(n_questions, k)))
    likelihood, asked = Likelihood(), np.zeros(n_questions, bool)
    found = {}
    for prior in (Mixture(np.full(k, 1 / k)), Simplex(np.full(k, 1 / k), 4.0), Gaussian(np.zeros(k), np.eye(k))):
        belief = prior.infer(Votes.of(table.slopes[:5]), likelihood)
        took = []
        for _ in range(500):
            began = time.perf_counter()
            next_question(prior.gain(belief, table, likelihood), asked, LEAST_GAIN)
            took.append(1000 * (time.perf_counter() - began))
        p50, p99 = np.percentile(took, [50, 99])
        found[type(prior).__name__.lower()] = {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}
    return found


def attributes() -> World:
    """Three opposed pairs of styles, individual users."""
    folder = attribute_users.RUNS
    files = attribute_users.write_data(folder)
    write_lines(
        RUNS / "attributes.jsonl",
        [
            row
            for item in first_sentences()[attribute_users.N_TRAIN : -attribute_users.N_TEST]
            for row in attribute_users.compare(*item, attribute_users.OPPOSED)
        ],
    )
    generate = {"generate": {"n_prompts": 10, "max_new_tokens": 56}}
    run = RunConfig.model_validate(attribute_users.COMMON | files | generate)
    return build(
        "attributes", run, folder / "individual-0", RUNS / "attributes.jsonl", files["test"], lambda user: user
    )


def personas() -> World:
    """Four kinds of interests, cluster users."""
    folder = persona_users.RUNS
    persona_users.write_data()
    run = RunConfig.model_validate(persona_users.COMMON)
    bank, test = (folder / f"{name}.jsonl" for name in ("bank", "test"))
    return build("personas", run, folder / "cluster-0", bank, test, persona_users.kind)


def draw(found: dict[str, dict[str, Any]]) -> None:
    """Accuracy against answers, one panel a world."""
    figure, panels = plt.subplots(1, len(found), figsize=(5 * len(found), 4), squeeze=False)
    for panel, (name, world) in zip(panels[0], found.items(), strict=True):
        for scenario, curves in (("", world["accuracy"]), (", coins", world["accuracy_with_coins"])):
            for way, colour in (("random", "tab:orange"), ("active", "tab:blue")):
                style = {"color": colour, "linestyle": "--" if scenario else "-", "marker": "o"}
                mean, error = curves[way]["mean"], curves[way]["standard_error"]
                panel.errorbar(curves["answers"], mean, error, label=way + scenario, **style)
        curves = world["accuracy"]
        for line in ("generic", "oracle"):
            panel.axhline(curves[line], label=line, color="gray", linestyle=":" if line == "generic" else "--")
        panel.set(title=name, xlabel="answers", ylabel="accuracy", xscale="symlog", ylim=(0.4, 1.02))
    panels[0][0].legend()
    figure.tight_layout()
    for ending in ("png", "svg"):
        figure.savefig(OUT / f"new_users.{ending}", dpi=110)


def real_people() -> dict[int, Any]:
    """Gain over the global head by own votes, over users and over votes, as `make real-people` measured it."""
    models = json.loads((OUT / "real_people.json").read_text())["llmfao"]["by_user"]["all"]["models"]
    return {
        n_own: {how: models[f"personal@{n_own}"][f"gain_{how}"] for how in ("macro", "micro")}
        for n_own in (0, 1, 2, 4, 8, 16, 32)
    }


def main() -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for world in (attributes(), personas()):
        found[world.name] = {
            "questions": len(world.bank.questions),
            "tests": len(world.test.offsets),
            "likelihood": {"temperature": world.bank.likelihood.temperature, "noise": world.bank.likelihood.noise},
            "accuracy": accuracy_by_answers(world, skips=True),
            "accuracy_with_coins": accuracy_by_answers(world, skips=False),
            "calibration": {f"{flips:.0%} flipped": calibrated(world, flips) for flips in FLIPS},
            "switched": switched(world),
        }
        sys.stdout.write(json.dumps({world.name: found[world.name]}, indent=2) + "\n")
    asking = {"pairs": 1000, "clusters": 16, "milliseconds": question_ms()}
    written = {"worlds": found, "choosing_a_question": asking, **provenance(COMMAND)}
    (OUT / "new_users.json").write_text(json.dumps(written, indent=2) + "\n")
    draw(found)
    value: dict[str, Any] = {}
    for scenario in ("accuracy", "accuracy_with_coins"):
        curves = {name: world[scenario] for name, world in found.items()}
        share = {name: round(c["active"]["mean"][N_ANSWERS.index(5)] / c["oracle"], 4) for name, c in curves.items()}
        never_below = all(min(c[way]["mean"]) >= c["generic"] for c in curves.values() for way in ("random", "active"))
        value[scenario] = {"active_over_oracle_after_5": share, "never_below_generic": never_below, "curves": curves}
    value["real_people"] = {"dataset": "llmfao", "gain_points_by_own_votes": real_people()}
    record("C1", value)
    calibration_errors = {
        name: {
            flips: {what: round(one[f"ece_of_{what}"], 4) for what in ("votes", "code", "rule")}
            for flips, one in world["calibration"].items()
        }
        for name, world in found.items()
    }
    recovery = {name: world["switched"]["recovered_after_votes"] for name, world in found.items()}
    value = {"expected_calibration_error": calibration_errors, "recovered_after_votes": recovery}
    record("C2", value)


if __name__ == "__main__":
    main()
