"""make feedback (C4): how soon is a vote felt, and what does scoring in the background cost those who wait for replies?

Latency: answers to bank questions through POST /feedback, one after the other; when it is answered, the new code is
stored. Seen by the server (its own histogram, of which the upper bounds are given) and by the caller, who shares the
machine with it. Model calls are counted by the server. A tiny random model: none of this depends on the model.

Throughput: the cluster bundle of `make length-users`, a few callers who ask for replies without pause; in turns without
and with a backlog of organic pairs, paired windows, and the ratio of tokens per second.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from bench.learning import length_users
from bench.learning.length_users import METHODS, RUNS
from bench.load.metrics import histogram, metric, slowest
from bench.results import provenance, record
from idiolect.bundle import Bundle
from idiolect_training.config import RunConfig
from idiolect_training.demo_model import demo_model
from idiolect_training.export.bundle import export
from idiolect_training.fit.loop import restore
from tests.live import ROOT, Redis, running_server
from tests.parts.tiny import tiny_bundle

COMMAND = "make feedback"
OUT = ROOT / "docs" / "results" / "feedback.json"
N_VOTES, N_CALLERS = 2000, 16
WINDOW_REPLIES, N_PAIRS = 128, 5
MAX_TOKENS = 32
VOTES_A_WINDOW = 2
"""Each takes the scorer longer than half a window, at its share of the time."""


@contextmanager
def served(folder: Path, bundle: Bundle, **settings: str) -> Iterator[httpx.Client]:
    """A server of the bundle with its own durable Redis."""
    store = Redis(folder / "redis")
    store.start()
    try:
        with (
            (folder / "server.log").open("wb") as log,
            running_server(log, bundle=str(bundle.path), redis_url=store.url, **settings) as (url, _),
            httpx.Client(base_url=url, timeout=600) as http,
        ):
            yield http
    finally:
        store.stop()


def taken(http: httpx.Client) -> dict[float, float]:
    """How many votes on bank pairs the server took in no more than so many seconds."""
    return histogram(http, "idiolect_vote_seconds", 'pair="bank"')


def model_calls(http: httpx.Client) -> float:
    return sum(metric(http, f'idiolect_engine_requests_total{{purpose="{purpose}"}}') for purpose in ("reply", "score"))


def latency() -> dict[str, Any]:
    """Milliseconds from sending an answer to its acknowledgement, the new code stored."""
    with tempfile.TemporaryDirectory() as name:
        bundle, model, _ = tiny_bundle(Path(name), demo_model())
        assert bundle.bank is not None
        questions = bundle.bank.questions
        with served(Path(name), bundle, model=str(model), cache_dir=f"{name}/cache") as http:
            before = model_calls(http)
            took = []
            for number in range(N_VOTES + 100):
                question = questions[number % len(questions)]
                body = {"user_id": f"user-{number // len(questions)}", "question_id": question.question_id}
                # Some want the first reply wherever they are asked, others the second.
                sides = (question.first, question.second)[:: 1 if number // len(questions) % 2 else -1]
                body |= {"chosen": sides[0], "rejected": sides[1]}
                began = time.perf_counter()
                answer = http.post("/feedback", json=body)
                took.append(1000 * (time.perf_counter() - began))
                assert answer.status_code == 200, answer.text
                if number == 99:
                    warm = taken(http)
            after = taken(http)
            known = http.get("/users/user-7").json()
            n_votes = known["effective_votes"] + known["outdated_votes"]
            assert (known["state"], n_votes) == ("inferred", len(questions)), known
            calls = model_calls(http) - before
    p50, p99 = np.percentile(took[100:], [50, 99])
    return {
        "votes": N_VOTES,
        "in_the_server_ms": {f"p{share}": slowest(after, warm, share / 100) for share in (50, 99)},
        "caller_ms": {"p50": round(float(p50), 2), "p99": round(float(p99), 2)},
        "model_calls": calls,
    }


def throughput() -> dict[str, Any]:
    """Tokens per second with a backlog over without, windows in turns."""
    length_users.write_data()
    run = RunConfig.model_validate(length_users.COMMON | METHODS["cluster"] | {"bank": {"n_questions": 8}})
    with tempfile.TemporaryDirectory() as name:
        policy, user_rows = restore(run, RUNS / "cluster-0")
        bundle = export(run, policy, user_rows, Path(name) / "bundle")
        del policy
        with served(Path(name), bundle) as http:
            stop, asking = threading.Event(), threading.Event()
            done: list[tuple[float, int]] = []  # when a reply was there, and its tokens

            def call(caller: int) -> None:
                n_asked = 0
                while asking.wait() and not stop.is_set():
                    n_asked += 1
                    body = {"prompt": f"Tell me about the number {n_asked}.", "user_id": f"user-{caller % 10 + 1}"}
                    answer = http.post("/generate", json=body | {"max_tokens": MAX_TOKENS})
                    done.append((time.monotonic(), answer.json()["usage"]["completion_tokens"]))

            callers = [threading.Thread(target=call, args=(caller,)) for caller in range(N_CALLERS)]
            for caller in callers:
                caller.start()

            def window() -> float:
                """Tokens per second, from the end of one reply to the end of another; then callers pause."""
                asking.set()
                first = len(done) + N_CALLERS
                while len(done) <= first + WINDOW_REPLIES:
                    time.sleep(0.05)
                asking.clear()
                seconds = done[first + WINDOW_REPLIES][0] - done[first][0]
                return sum(tokens for _, tokens in done[first + 1 : first + WINDOW_REPLIES + 1]) / seconds

            # Each window with a backlog stands between two without one.
            window()  # warm
            rates, lags = [window()], []
            for turn in range(N_PAIRS):
                for number in range(VOTES_A_WINDOW):
                    text = f"It is number {number} of turn {turn}, and no other one."
                    body = {"user_id": f"voter-{number}", "prompt": "Which one?", "chosen": text, "rejected": "None."}
                    assert http.post("/feedback", json=body).status_code == 200
                rates.append(window())
                assert metric(http, "idiolect_pairs_scored_total") < (turn + 1) * VOTES_A_WINDOW, "it ended too soon"
                _wait_until_scored(http, (turn + 1) * VOTES_A_WINDOW)
                lags.append(metric(http, "idiolect_scoring_lag_seconds"))
                rates.append(window())
                sys.stderr.write(f"{rates}\n")
            stop.set()
            asking.set()
            for caller in callers:
                caller.join()
            scored = metric(http, "idiolect_pairs_scored_total")
    ratios = [2 * rates[n] / (rates[n - 1] + rates[n + 1]) for n in range(1, len(rates), 2)]
    return {
        "tokens_a_second_without_with_without": [round(rate, 2) for rate in rates],
        "with_backlog_over_without": [round(ratio, 4) for ratio in ratios],
        "median": round(median(ratios), 4),
        "pairs": N_PAIRS * VOTES_A_WINDOW,
        "pairs_scored": scored,
        "lag_s": [round(lag, 1) for lag in lags],
    }


def _wait_until_scored(http: httpx.Client, n_pairs: int) -> None:
    """Nobody waits for replies meanwhile, so the scorer need not keep to its share."""
    began = time.monotonic()
    while metric(http, "idiolect_pairs_scored_total") < n_pairs:
        assert time.monotonic() - began < 300, "the backlog is not scored"
        time.sleep(1)


def main() -> None:
    value = {"latency": latency(), "throughput": throughput()}
    OUT.write_text(json.dumps({**value, **provenance(COMMAND)}, indent=2) + "\n")
    record("C4", value)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
