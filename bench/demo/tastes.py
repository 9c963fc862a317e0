"""make tastes (G1, G2, G3): does the demo bundle write what its users and its strangers want, in words worth reading?

Everything goes through the HTTP API of a server on real vLLM, with the bundle as it ships.

- G1, language: replies to prompts of another source, for every known user, for strangers of every taste after five
  answers, and for the generic user. Repeated 4-grams, loops, and likelihood under the base model; for one user of each
  taste also without the bundle's frequency penalty.
- G2, tastes: replies of known users to held-out prompts, drawn at temperature 0.7 with three seeds.
- G3, strangers: 24 for each of three seeds answer five questions by a rule, and skip questions by chance, as people do.
"""

import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import httpx
import numpy as np

from bench.demo.strangers import Stranger, meet, shows
from bench.demo.words import Loops, ask_all, less_likely, loops, written_over_all
from bench.load.metrics import metric
from bench.results import provenance, record
from idiolect.bundle import Bundle
from idiolect_client import Client
from idiolect_training.config import RunConfig
from idiolect_training.data.everyday import AXES, TASTES, read
from idiolect_training.evaluate.replies import GENERIC, Reply
from idiolect_training.evaluate.reply_style import style
from idiolect_training.fit.policy import Policy
from tests.live import DEMO_BUNDLE, ROOT, running_server

COMMAND = "make tastes"
OUT = ROOT / "docs" / "results" / "tastes.json"
RAW = ROOT / "runs" / "tastes.json"
RUN = DEMO_BUNDLE.parent / "run.yaml"
OTHER_PROMPTS = DEMO_BUNDLE.parent / "other_prompts.txt"
N_OTHER, N_HELD_OUT, N_ASKED = 40, 24, 6
"""Prompts per user of G1, per user and seed of G2, and per stranger of G3."""
N_STRANGERS = 24
N_SEEDS = 3


@dataclass
class Found:
    """Replies for G1, with the bundle's penalty and without; (taste, reply) of each seed for G2; strangers of G3."""

    words: list[Reply]
    unpenalized: list[Reply]
    drawn: dict[int, list[tuple[str, str]]]
    strangers: list[dict[str, Any]]


def serve_and_ask(bundle: Path) -> Found:
    other = OTHER_PROMPTS.read_text().splitlines()[:N_OTHER]
    held_out = [row["prompt"] for row in read() if row["split"] == "test"]
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "server.log").open("wb") as log,
        running_server(log, bundle=str(bundle), data_dir=f"{folder}/data") as (url, _),
        Client(url, timeout_s=3600) as client,
        httpx.Client(base_url=url) as http,
    ):
        strangers = {
            seed: [Stranger(f"new-{seed}-{n}", TASTES[n % len(TASTES)]) for n in range(N_STRANGERS)]
            for seed in range(N_SEEDS)
        }
        counted = [f'idiolect_engine_requests_total{{purpose="{purpose}"}}' for purpose in ("reply", "score")]
        calls = [metric(http, name) for name in counted]
        for seed, those in strangers.items():
            chance = random.Random(seed)
            for stranger in those:
                meet(client, stranger, chance)
        n_calls = sum(metric(http, name) for name in counted) - sum(calls)

        known = list(Bundle.read(bundle).user_ids)
        users = [GENERIC, *known, *(stranger.user_id for stranger in strangers[0][: len(TASTES)])]

        def replies_of(users: Sequence[str], prompts: Sequence[str], penalty: float | None) -> list[Reply]:
            asked = [(user, prompt) for user in users for prompt in prompts]
            texts = ask_all(client, [(user or "nobody-knows-me", prompt, None) for user, prompt in asked], penalty)
            return [
                Reply(user, other.index(prompt), [{"role": "user", "content": prompt}], text)
                for (user, prompt), text in zip(asked, texts, strict=True)
            ]

        words = replies_of(users, other, None)
        unpenalized = replies_of([GENERIC, *(f"{taste}-1" for taste in TASTES)], other[::2], 0.0)
        drawn: dict[int, list[tuple[str, str]]] = {}
        for seed in range(N_SEEDS):
            prompts = random.Random(seed).sample(held_out, N_HELD_OUT)
            of = [(taste, prompt) for taste in TASTES for prompt in prompts]
            texts = iter(ask_all(client, [(f"{taste}-{1 + seed % 2}", prompt, seed) for taste, prompt in of]))
            drawn[seed] = [(taste, next(texts)) for taste, _ in of]
        met = []
        for seed, those in strangers.items():
            prompts = random.Random(100 + seed).sample(other, N_ASKED)
            texts = iter(ask_all(client, [(one.user_id, prompt, None) for one in those for prompt in prompts]))
            for one in those:
                replies = [next(texts) for _ in prompts]
                outcome = {
                    "seed": seed,
                    "shows": shows(replies, one.taste, one.spoken),
                    "style": style(("", text) for text in replies)[""],
                }
                met.append({**asdict(one), "spoken": sorted(one.spoken), **outcome, "n_calls": n_calls})
    return Found(words, unpenalized, drawn, met)


def g1(measured: Loops, over: dict[str, float], written: dict[str, float], of: dict[str, str]) -> dict[str, float]:
    """The worst of every user beside the generic one.

    `over` is by how much a user's replies are less likely than the generic one's, and `written` the same of written
    replies of each taste over all of them: what a taste explains itself.
    """
    generic = measured[GENERIC]
    users = {user: one for user, one in measured.items() if user != GENERIC}
    return {
        "repeated_4grams_over_generic": max(u["repeated_4grams"] for u in users.values()) - generic["repeated_4grams"],
        "looping": max(u["looping"] for u in users.values()),
        "unexplained_nats_per_token": max(over[user] - max(0.0, written[of[user]]) for user in users),
        "nats_per_token_over_generic": max(over[user] for user in users),
    }


def g2(drawn: dict[int, list[tuple[str, str]]]) -> dict[str, Any]:
    """The worst seed of each measure."""
    found: dict[str, list[float]] = {"short_to_thorough": [], "lists": [], "prose_lists": [], "warm_over_plain": []}
    for replies in drawn.values():
        by = {taste: style([("", text) for own, text in replies if own == taste])[""] for taste in TASTES}

        def over(word: str, measure: str, by: dict[str, dict[str, Any]] = by) -> list[float]:
            return [float(one[measure]) for taste, one in by.items() if word in taste.split("-")]

        words = {size: median(len(text.split()) for own, text in replies if size in own.split("-")) for size in AXES[0]}
        found["short_to_thorough"].append(words["thorough"] / words["short"])
        found["lists"].append(mean(over("list", "list")))
        found["prose_lists"].append(mean(over("prose", "list")))
        found["warm_over_plain"].append(mean(over("warm", "exclamation")) - mean(over("plain", "exclamation")))
    worst = {name: (max if name == "prose_lists" else min)(values) for name, values in found.items()}
    return worst | {"per_seed": {name: [round(v, 3) for v in values] for name, values in found.items()}}


def kept() -> Found:
    """The replies of the last run."""
    raw = json.loads(RAW.read_text())
    words, unpenalized = ([Reply(**reply) for reply in raw[name]] for name in ("words", "unpenalized"))
    return Found(words, unpenalized, {int(seed): each for seed, each in raw["drawn"].items()}, raw["strangers"])


def main(again: bool) -> None:
    """`again`: measure the replies of the last run, without a server."""
    if again:
        found = kept()
    else:
        found = serve_and_ask(DEMO_BUNDLE)
        RAW.parent.mkdir(exist_ok=True)
        RAW.write_text(json.dumps(asdict(found)) + "\n")  # all replies; too many to keep
    words, met = found.words, found.strangers
    policy = Policy(RunConfig.read(RUN), 0)
    measured, written = loops(words), written_over_all(policy, N_OTHER)
    over = less_likely(policy, words, {reply.number: reply.text for reply in words if reply.user_id == GENERIC})
    of = {user: user.rsplit("-", 1)[0] for user in measured if user and not user.startswith("new-")}
    of |= {one["user_id"]: one["taste"] for one in met}
    answers_ms = [ms for one in met for ms in one["answers_ms"]]
    per_seed = [mean(one["shows"] for one in met if one["seed"] == seed) for seed in range(N_SEEDS)]
    lines = {
        "G1": g1(measured, over, written, of),
        "G2": g2(found.drawn),
        "G3": {
            "strangers_who_show_all": min(per_seed),
            "per_seed": [round(share, 3) for share in per_seed],
            "calls_for_answers": met[0]["n_calls"],
            "answer_p99_ms": float(np.percentile(answers_ms, 99)),
            "answers": len(answers_ms),
        },
    }
    rows = {}
    for line, value in lines.items():
        rounded = {name: round(number, 4) if isinstance(number, float) else number for name, number in value.items()}
        rows[line] = record(line, rounded)
    by_user = style((reply.user_id, reply.text) for reply in words)
    result = {
        **{line: {"value": row["value"], "met": row["met"]} for line, row in rows.items()},
        "users": {
            user or "generic": {**by_user[user], **measured[user], "nats_over_generic": round(over[user], 4)}
            for user in measured
        },
        "without_penalty": loops(found.unpenalized),
        "written_nats_over_all": {taste: round(nats, 4) for taste, nats in written.items()},
        "strangers": met,
        "examples": [asdict(reply) for reply in words if reply.number < 4],
        "model": "SmolLM2-135M-Instruct, float32",
        **provenance(COMMAND),
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps({line: result[line] for line in lines}, indent=2) + "\n")


if __name__ == "__main__":
    main(again="--again" in sys.argv)
